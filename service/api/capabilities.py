"""What this collector speaks and how much of it: for clients that are older or newer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from initscope.hooks import vocabulary as v
from initscope.hooks import wire
from initscope.service.api.auth import require
from initscope.service.api.responses import Answer
from initscope.service.store.tokens import Grant

router = APIRouter(prefix="/api/v1", tags=["service"])


@router.get("/capabilities")
async def get_capabilities(request: Request, _grant: Annotated[Grant, Depends(require("ingest", "read"))]) -> Answer:
    """Versions, media types and limits."""
    return Answer(
        {
            "version": request.app.version,
            "api_versions": ["v1"],
            "wire_versions": [wire.WIRE_VERSION],
            "media_types": [wire.MEDIA_BINARY, wire.MEDIA_JSON],
            "content_encodings": ["gzip", "identity"],
            "limits": {
                "body_bytes": v.MAX_BODY_BYTES,
                "decoded_bytes": v.MAX_DECODED_BYTES,
                "records_per_batch": v.MAX_RECORDS_PER_BATCH,
                "scalars_per_batch": v.MAX_SCALARS_PER_BATCH,
                "tensors_per_run": v.MAX_TENSORS_PER_RUN,
                "config_bytes": v.MAX_CONFIG_BYTES,
            },
        }
    )


@router.get("/openapi.json")
def get_openapi(request: Request, _grant: Annotated[Grant, Depends(require("read"))]) -> Answer:
    """The routes as OpenAPI."""
    return Answer(request.app.openapi())
