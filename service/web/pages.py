"""The built-in pages: list of runs, one run, the rules."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from initscope.hooks.rules.selection import Selection
from initscope.hooks.vocabulary import MAX_NAME, RunStatus
from initscope.service.alerting import thresholds
from initscope.service.api.auth import require
from initscope.service.store import read_findings, read_runs, read_scalars, read_stats
from initscope.service.store.read_runs import RunHead
from initscope.service.web import sparkline, words
from initscope.service.web.rendering import database_of, render

router = APIRouter(tags=["pages"], dependencies=[Depends(require("read"))], include_in_schema=False)
_PAGE = 50
_LOSS_UNTIL = 200


@router.get("/")
def list_page(
    request: Request,
    project: Annotated[str, Query(max_length=MAX_NAME)] = "",
    status: RunStatus | None = None,
    name: Annotated[str, Query(max_length=MAX_NAME)] = "",
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> Response:
    """Runs, newest first."""
    now = datetime.now(UTC)
    with database_of(request).read() as conn:
        found = read_runs.list_runs(
            conn, now=now, project=project or None, status=status, name=name or None, before=before, limit=_PAGE + 1
        )
        runs = found[:_PAGE]
        standing = read_findings.standing_by_run(conn, [run.run_no for run in runs])
        losses = read_scalars.first_losses(conn, [run.run_no for run in runs], _LOSS_UNTIL)
        projects = read_runs.list_projects(conn)
    lines = [
        {
            "run": run,
            "status": words.status_word(run, now),
            "summary": read_findings.summarize(standing[run.run_no]),
            "loss": losses.get(run.run_no),
        }
        for run in runs
    ]
    chosen = {"project": project, "status": status, "name": name}
    older = runs[-1].run_no if len(found) > _PAGE else None
    return render(request, "runs.html", lines=lines, projects=projects, chosen=chosen, older=older, sparkline=sparkline)


@router.get("/runs/{run}")
def run_page(request: Request, run: str, attempt: Annotated[int | None, Query(ge=0, le=1_000_000)] = None) -> Response:
    """One run."""
    with database_of(request).read() as conn:
        head = read_runs.find_run(conn, run)
        if head is None:
            return render(request, "missing.html", status_code=404)
        number = head.attempt if attempt is None else min(attempt, head.attempt)
        findings = read_findings.list_findings(conn, head.run_no, number)
        past = [
            f
            for f in read_findings.list_findings(conn, head.run_no, number, only_standing=False)
            if f.state == "resolved"
        ]
        steps = read_stats.sampled_steps(conn, head.run_no, number)
        attempts = read_runs.list_attempts(conn, head.run_no)
        sessions = read_runs.list_sessions(conn, head.run_no)
        stored = read_runs.count_stored(conn, head.run_no)
    return render(
        request,
        "run.html",
        **_headline(head, findings, steps, len(thresholds.of_run(_selection(request), head.description).active)),
        attempt=number,
        findings=findings,
        past=past,
        attempts=attempts,
        sessions=sessions,
        books=read_runs.sum_books(session.books for session in sessions),
        stored=stored,
    )


@router.get("/rules")
def rules_page(request: Request, run: Annotated[str | None, Query(max_length=MAX_NAME)] = None) -> Response:
    """Every rule, with the thresholds that hold here, or for one run."""
    selection = _selection(request)
    head, ignored = None, []
    if run is not None:
        with database_of(request).read() as conn:
            head = read_runs.find_run(conn, run)
        if head is None:
            return render(request, "missing.html", status_code=404)
        ignored = thresholds.ignored(selection, head.description)
        selection = thresholds.of_run(selection, head.description)
    return render(request, "rules.html", run=head, selection=selection, ignored=ignored)


def _headline(head: RunHead, findings: list[read_findings.FindingHead], steps: list[int], rules: int) -> dict[str, Any]:
    now = datetime.now(UTC)
    summary = read_findings.summarize(findings)
    return {
        "run": head,
        "status": words.status_word(head, now),
        "summary": summary,
        "headline": words.headline(summary, has_rows=bool(steps)),
        "explanation": words.explanation(summary, len(steps), steps[-1] if steps else None, rules),
        "has_rows": bool(steps),
        # Whatever arrives, heartbeats included, makes the charts look again.
        "revision": f"{head.attempt}-{head.last_step}-{head.last_seen_at.timestamp()}",
    }


def _selection(request: Request) -> Selection:
    selection: Selection = request.app.state.selection
    return selection
