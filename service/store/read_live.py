"""Live runs as Prometheus sees them: a bounded number of numbers per run, whatever the size of its model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, and_, func, select

from initscope.hooks.moments import ABSENT, Moments
from initscope.hooks.vocabulary import RunStatus
from initscope.service.store.models import Run, Session, Tensor, TensorStatsRow
from initscope.service.store.read_findings import Summary, standing_by_run, summarize
from initscope.service.store.read_runs import RunHead, list_runs, sum_books

_ROW = TensorStatsRow.__table__.c


@dataclass(slots=True)
class StepSummary:
    """A run's newest sampled step: non-finite elements, and the rms of every tensor by kind, see `honest_rms`."""

    nonfinite_count: int = 0
    rms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that was seen in the last 120 s."""

    head: RunHead
    tensor_count: int
    findings: Summary
    dropped: dict[str, int]
    newest: StepSummary


def live_runs(conn: Connection, now: datetime, limit: int = 100) -> list[LiveRun]:
    """The newest live runs, at most `limit`; five queries for any number of them."""
    heads = list_runs(conn, now=now, status=RunStatus.RUNNING, limit=limit)
    numbers = [head.run_no for head in heads]
    tensors, findings = _tensor_counts(conn, numbers), standing_by_run(conn, numbers)
    dropped, newest = _dropped(conn, numbers), _newest_steps(conn, numbers)
    return [
        LiveRun(
            head,
            tensors.get(head.run_no, 0),
            summarize(findings[head.run_no]),
            dropped[head.run_no],
            newest[head.run_no],
        )
        for head in heads
    ]


def honest_rms(moments: Moments) -> float:
    """The rms of all elements: NaN if one is NaN, infinite if one is infinite. Without elements: NaN."""
    if moments.nan_count:
        return math.nan
    return math.inf if moments.nonfinite_count else moments.rms


def _tensor_counts(conn: Connection, run_nos: Sequence[int]) -> dict[int, int]:
    c = Tensor.__table__.c
    query = select(c.run_no, func.count()).where(c.run_no.in_(run_nos)).group_by(c.run_no)
    return {row[0]: row[1] for row in conn.execute(query)}


def _dropped(conn: Connection, run_nos: Sequence[int]) -> dict[int, dict[str, int]]:
    c = Session.__table__.c
    books: dict[int, list[dict[str, object]]] = {run_no: [] for run_no in run_nos}
    for run_no, account in conn.execute(select(c.run_no, c.books).where(c.run_no.in_(run_nos))):
        books[run_no].append(account)
    return {run_no: sum_books(accounts).dropped for run_no, accounts in books.items()}


def _newest_steps(conn: Connection, run_nos: Sequence[int]) -> dict[int, StepSummary]:
    run, tensor, other = Run.__table__.c, Tensor.__table__.c, TensorStatsRow.__table__.alias("newest")
    newest = select(func.max(other.c.step)).where(other.c.run_no == run.run_no, other.c.attempt == run.attempt)
    at_newest = and_(
        _ROW.run_no == run.run_no, _ROW.attempt == run.attempt, _ROW.step == newest.correlate(Run).scalar_subquery()
    )
    query = (
        select(
            _ROW.run_no, tensor.kind, _ROW.count, _ROW.nan_count, _ROW.posinf_count, _ROW.neginf_count, _ROW.mean,
            _ROW.m2,
        )
        .select_from(Run.__table__.join(TensorStatsRow.__table__, at_newest))
        .join(Tensor.__table__, and_(tensor.run_no == _ROW.run_no, tensor.tensor_no == _ROW.tensor_no))
        .where(run.run_no.in_(run_nos))
    )  # fmt: skip
    found = {run_no: StepSummary() for run_no in run_nos}
    for run_no, kind, count, nan, posinf, neginf, mean, m2 in conn.execute(query):
        moments = Moments(
            count, nan, posinf, neginf, mean=ABSENT if mean is None else mean, m2=ABSENT if m2 is None else m2
        )
        found[run_no].nonfinite_count += moments.nonfinite_count
        found[run_no].rms[kind].append(honest_rms(moments))
    return found
