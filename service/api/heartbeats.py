"""POST /api/v1/heartbeats: a job's sign of life."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool

from initscope.service.api.auth import require
from initscope.service.api.body import read_body
from initscope.service.api.responses import Answer
from initscope.service.ingest.accept import Ingest
from initscope.service.ingest.decode import decode_heartbeat
from initscope.service.store.tokens import Grant

router = APIRouter(prefix="/api/v1", tags=["ingest"])
_MAX_BYTES: Final = 64 * 2**10


@router.post("/heartbeats")
async def post_heartbeat(request: Request, _grant: Annotated[Grant, Depends(require("ingest"))]) -> Answer:
    """Notes step and books of a session. `{"known": false}`, and nothing is stored, before its first batch."""
    body = await read_body(request, _MAX_BYTES)
    return Answer({"known": await run_in_threadpool(_beat, request, body)})


def _beat(request: Request, body: bytes) -> bool:
    ingest: Ingest = request.app.state.ingest
    headers = request.headers
    return ingest.beat(decode_heartbeat(headers.get("content-type", ""), headers.get("content-encoding", ""), body))
