"""POST /api/v1/batches: a training job's records."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool

from initscope.hooks.vocabulary import MAX_BODY_BYTES
from initscope.service.api.auth import require
from initscope.service.api.body import read_body
from initscope.service.api.responses import Answer
from initscope.service.ingest.accept import Accepted, Ingest
from initscope.service.ingest.decode import decode_batch
from initscope.service.ingest.limits import Admission
from initscope.service.ingest.records import MAX_LISTED
from initscope.service.ingest.refusal import Refusal
from initscope.service.ingest.tally import Tally
from initscope.service.store.tokens import Grant

router = APIRouter(prefix="/api/v1", tags=["ingest"])


@router.post("/batches")
async def post_batch(request: Request, _grant: Annotated[Grant, Depends(require("ingest"))]) -> Answer:
    """Stores a batch exactly once, whatever is repeated; answers after the commit.

    200 `{accepted, duplicate, rejected: [{index, code, message}] (at most 10), rejected_count}`; `accepted` counts
    records and scalars. A bad record is rejected by its index, the good ones are stored.
    """
    arrived = time.perf_counter()
    tally: Tally = request.app.state.tally
    admission: Admission = request.app.state.admission
    try:
        with admission.enter():
            body = await read_body(request, MAX_BODY_BYTES)
            accepted = await run_in_threadpool(_accept, request, body)
    except Refusal as refusal:
        tally.add("refused", label=refusal.code)
        raise
    request.app.state.metrics.body_bytes.observe(len(body))
    request.app.state.metrics.ingest_seconds.observe(time.perf_counter() - arrived)
    return Answer(_plain(accepted))


def _accept(request: Request, body: bytes) -> Accepted:
    ingest: Ingest = request.app.state.ingest
    headers = request.headers
    return ingest.accept(decode_batch(headers.get("content-type", ""), headers.get("content-encoding", ""), body))


def _plain(accepted: Accepted) -> dict[str, object]:
    listed = [{"index": r.index, "code": r.code, "message": r.message} for r in accepted.rejected[:MAX_LISTED]]
    return {
        "accepted": accepted.accepted,
        "duplicate": accepted.duplicate,
        "rejected": listed,
        "rejected_count": accepted.rejected_count,
    }
