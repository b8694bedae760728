"""Descriptions of a run's tensors."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from initscope.hooks.vocabulary import Kind
from initscope.service.api import schemas
from initscope.service.api.auth import require
from initscope.service.api.lookup import reading, the_run
from initscope.service.api.responses import Answer
from initscope.service.store.read_tensors import list_tensors

router = APIRouter(prefix="/api/v1/runs/{run}", tags=["tensors"], dependencies=[Depends(require("read"))])


@router.get("/tensors")
def show_tensors(request: Request, run: str, kind: Kind | None = None) -> Answer:
    """Tensors in forward order."""
    with reading(request) as conn:
        head = the_run(conn, run)
        tensors = list_tensors(conn, head.run_no, kind)
    return Answer({"tensors": [schemas.tensor(info) for info in tensors]})
