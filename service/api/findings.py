"""Findings of a run, consequences folded under what explains them."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request

from initscope.service.api import schemas
from initscope.service.api.auth import require
from initscope.service.api.errors import ApiError
from initscope.service.api.lookup import AttemptQuery, reading, the_attempt, the_run
from initscope.service.api.responses import Answer
from initscope.service.store import read_findings

router = APIRouter(prefix="/api/v1/runs/{run}", tags=["findings"], dependencies=[Depends(require("read"))])


@router.get("/findings")
def show_findings(
    request: Request, run: str, state: Literal["open", "all"] = "open", attempt: AttemptQuery = None
) -> Answer:
    """Findings, worst first. `open` are those that stand: open now, or when the run ended."""
    with reading(request) as conn:
        head = the_run(conn, run)
        number = the_attempt(head, attempt)
        found = read_findings.list_findings(conn, head.run_no, number, only_standing=state == "open")
    verdict = read_findings.summarize([f for f in found if f.state in read_findings.STANDING]).verdict
    return Answer({"attempt": number, "verdict": verdict, "findings": [schemas.finding(f) for f in found]})


@router.get("/findings/{finding}")
def show_finding(request: Request, run: str, finding: str) -> Answer:
    """One finding with what it explains and how its state changed."""
    with reading(request) as conn:
        head = the_run(conn, run)
        found = read_findings.find_finding(conn, head.run_no, finding)
        if found is None:
            raise ApiError(404, "not_found", "this run has no such finding", field="finding")
        changes = read_findings.list_transitions(conn, found.finding_no)
    return Answer({**schemas.finding(found), "transitions": [schemas.transition(t) for t in changes]})
