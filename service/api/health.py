"""Is the process alive, can it work? Without authentication and without details."""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlalchemy.exc import SQLAlchemyError

from initscope.service.api.errors import ApiError
from initscope.service.api.responses import Answer
from initscope.service.store import schema
from initscope.service.store.engine import Busy

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> Answer:
    """200 while the process serves requests; asks nothing of the database."""
    return Answer({"status": "ok"})


@router.get("/readyz")
def readyz(request: Request) -> Answer:
    """200 if the database answers and has the schema of this version, else 503."""
    try:
        ready = schema.at_head(request.app.state.database)
    except (SQLAlchemyError, Busy):
        ready = False
    if not ready:
        raise ApiError(
            503, "not_ready", "the database does not answer or has another schema", headers={"Retry-After": "1"}
        )
    return Answer({"status": "ok"})
