"""Descriptions of a run's tensors."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from initscope.hooks.vocabulary import Kind
from initscope.service.api import schemas
from initscope.service.api.auth import require
from initscope.service.api.lookup import reading, the_run
from initscope.service.api.recognised import schemes_at_start
from initscope.service.api.responses import Answer
from initscope.service.store.read_tensors import list_tensors

router = APIRouter(prefix="/api/v1/runs/{run}", tags=["tensors"], dependencies=[Depends(require("read"))])


@router.get("/tensors")
def show_tensors(request: Request, run: str, kind: Kind | None = None) -> Answer:
    """Tensors in forward order; weights with the scheme that they were drawn by, as the newest attempt began."""
    with reading(request) as conn:
        head = the_run(conn, run)
        everything = list_tensors(conn, head.run_no)
        wanted = [t for t in everything if kind in (None, t.kind)]
        is_asked = any(t.kind is Kind.WEIGHT for t in wanted)
        by_key = {t.key: t for t in everything}
        schemes = schemes_at_start(conn, head.run_no, head.attempt, by_key) if is_asked else {}
    return Answer({"tensors": [{**schemas.tensor(t), "scheme": schemes.get(t.key)} for t in wanted]})
