"""The page of a comparison: two runs side by side. The charts and the table come from the read API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Connection

from initscope.hooks.vocabulary import MAX_NAME
from initscope.service.api.auth import require
from initscope.service.store import read_findings, read_runs, read_stats
from initscope.service.store.read_runs import RunHead
from initscope.service.web import words
from initscope.service.web.rendering import database_of, render

router = APIRouter(tags=["pages"], dependencies=[Depends(require("read"))], include_in_schema=False)


@router.get("/compare")
def compare_page(
    request: Request,
    run: Annotated[list[Annotated[str, Query(max_length=MAX_NAME)]], Query(max_length=64)] = [],  # noqa: B006 - FastAPI copies defaults
) -> Response:
    """Two runs beside each other."""
    chosen = [one for one in run if one]
    if len(chosen) != 2:
        return render(request, "choose.html", count=len(chosen), status_code=200 if len(chosen) < 2 else 422)
    with database_of(request).read() as conn:
        heads = [read_runs.find_run(conn, one) for one in chosen]
        found = [head for head in heads if head is not None]
        if len(found) < 2:
            return render(request, "missing.html", status_code=404)
        sides = [_side(conn, letter, head) for letter, head in zip("AB", found, strict=True)]
    return render(
        request,
        "compare.html",
        sides=sides,
        has_rows=all(side["steps"] for side in sides),
        swapped="?" + urlencode([("run", head.id) for head in reversed(found)]),
    )


def _side(conn: Connection, letter: str, head: RunHead) -> dict[str, Any]:
    findings = read_findings.list_findings(conn, head.run_no, head.attempt)
    steps = read_stats.sampled_steps(conn, head.run_no, head.attempt)
    return {
        "letter": letter,
        "run": head,
        "status": words.status_word(head, datetime.now(UTC)),
        "findings": findings,
        "summary": read_findings.summarize(findings),
        "steps": steps,
        # Whatever arrives, heartbeats included, makes the charts look again.
        "revision": f"{head.attempt}-{head.last_step}-{head.last_seen_at.timestamp()}",
    }
