"""Runs: list, look at, rename, note, tag, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from initscope.hooks.vocabulary import MAX_NAME, RunStatus
from initscope.service.api import schemas
from initscope.service.api.auth import require
from initscope.service.api.errors import ApiError
from initscope.service.api.lookup import now, reading, the_run, writing
from initscope.service.api.responses import Answer
from initscope.service.store import read_findings, read_runs, read_stats, read_tensors

router = APIRouter(prefix="/api/v1/runs", tags=["runs"])
_READ = [Depends(require("read"))]
_ADMIN = [Depends(require("admin"))]


@router.get("", dependencies=_READ)
def list_runs(
    request: Request,
    project: Annotated[str | None, Query(max_length=MAX_NAME)] = None,
    status: RunStatus | None = None,
    name: Annotated[str | None, Query(max_length=MAX_NAME)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=20)] = None,
) -> Answer:
    """Runs, newest first, a page at a time; `name` is any part of it, `cursor` the last answer's `next_cursor`."""
    at = now()
    with reading(request) as conn:
        found = read_runs.list_runs(
            conn, now=at, project=project, status=status, name=name, before=_position(cursor), limit=limit + 1
        )
        page = found[:limit]
        standing = read_findings.standing_by_run(conn, [run.run_no for run in page])
    runs = [schemas.run_summary(run, read_findings.summarize(standing[run.run_no]), at) for run in page]
    return Answer({"runs": runs, "next_cursor": str(page[-1].run_no) if len(found) > limit else None})


def _position(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdigit() or int(cursor) >= 2**63:
        raise ApiError(422, "invalid_field", "not a cursor of an earlier answer", field="cursor")
    return int(cursor)


@router.get("/{run}", dependencies=_READ)
def show_run(request: Request, run: str) -> Answer:
    """A run: verdict, attempts, sessions with their books and the sum of them, kinds of tensors, sampled steps."""
    at = now()
    with reading(request) as conn:
        head = the_run(conn, run)
        findings = read_findings.list_findings(conn, head.run_no, head.attempt)
        attempts = read_runs.list_attempts(conn, head.run_no)
        sessions = read_runs.list_sessions(conn, head.run_no)
        tensors = read_tensors.count_tensors(conn, head.run_no)
        steps = read_stats.sampled_steps(conn, head.run_no, head.attempt)
        stored = read_runs.count_stored(conn, head.run_no)
    return Answer(
        {
            **schemas.run_summary(head, read_findings.summarize(findings), at),
            "description": head.description,
            "attempts": [schemas.attempt(a) for a in attempts],
            "sessions": [schemas.session(s) for s in sessions],
            "books": schemas.books(read_runs.sum_books(s.books for s in sessions), stored),
            "tensors": tensors,
            "steps": steps,
        }
    )


@router.patch("/{run}", dependencies=_ADMIN)
def change_run(request: Request, run: str, patch: schemas.RunPatch) -> Answer:
    """Renames, notes or tags a run."""
    with writing(request) as conn:
        head = the_run(conn, run)
        read_runs.update_run(conn, head.run_no, patch.model_dump(exclude_none=True))
    return show_run(request, run)


@router.delete("/{run}", dependencies=_ADMIN, status_code=204)
def delete_run(request: Request, run: str) -> Response:
    """Removes a run with all its records."""
    with writing(request) as conn:
        read_runs.delete_run(conn, the_run(conn, run).run_no)
    return Response(status_code=204)
