"""Reading and changing runs: list, head, attempts, sessions and their books."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, update

from initscope.hooks.vocabulary import LOST_AFTER_SECONDS, STALLED_AFTER_SECONDS, RunStatus
from initscope.service.store.models import Attempt, BatchRow, Run, Session

_RUN = Run.__table__.c
_LOST_AFTER = timedelta(seconds=LOST_AFTER_SECONDS)
_ID_PART = re.compile(r"[0-9a-f-]{4,36}")
_STALLED_AFTER = timedelta(seconds=STALLED_AFTER_SECONDS)


@dataclass(frozen=True, slots=True)
class RunHead:
    """One row of `runs`. Times are UTC; `stored_status` is what the row says, see `status`."""

    run_no: int
    id: str
    project: str
    run_id: str
    name: str
    stored_status: str
    note: str
    tags: list[str]
    description: dict[str, Any]
    attempt: int
    last_step: int | None
    created_at: datetime
    last_seen_at: datetime
    last_step_at: datetime | None
    ended_at: datetime | None

    def status(self, now: datetime) -> RunStatus:
        """Status at `now`: a running run that was not seen for 120 s is lost, before any worker has written it."""
        stored = RunStatus(self.stored_status)
        is_silent = stored is RunStatus.RUNNING and now - self.last_seen_at > _LOST_AFTER
        return RunStatus.LOST if is_silent else stored

    def is_stalled(self, now: datetime) -> bool:
        """Alive by its heartbeat, but at the same step for 600 s."""
        since = self.last_step_at or self.created_at
        return self.status(now) is RunStatus.RUNNING and now - since > _STALLED_AFTER


@dataclass(frozen=True, slots=True)
class AttemptHead:
    """A stretch of a run between restarts."""

    number: int
    world_size: int
    first_step: int | None
    evaluated_step: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SessionHead:
    """One process life of a rank, with the client's own account."""

    session_id: str
    attempt: int
    rank: int
    world_size: int
    host: str
    pid: int
    started_at: float
    first_seen_at: datetime
    last_seen_at: datetime
    last_step: int | None
    status: str
    books: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BooksSum:
    """The clients' accounts of a run's sessions, added up, in records and scalars."""

    recorded: int = 0
    acknowledged: int = 0
    pending: int = 0
    hook_errors: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def dropped_count(self) -> int:
        """Everything dropped, whatever the reason."""
        return sum(self.dropped.values())


_HEAD: tuple[ColumnElement[Any], ...] = (
    _RUN.run_no, _RUN.id, _RUN.project, _RUN.run_id, _RUN.name, _RUN.status, _RUN.note, _RUN.tags, _RUN.description,
    _RUN.attempt, _RUN.last_step, _RUN.created_at, _RUN.last_seen_at, _RUN.last_step_at, _RUN.ended_at,
)  # fmt: skip


def list_runs(
    conn: Connection,
    *,
    now: datetime,
    project: str | None = None,
    status: RunStatus | None = None,
    name: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[RunHead]:
    """Runs, newest first. `name` is any part of the name; `before` is the run_no that the page ended with."""
    wanted: list[ColumnElement[bool]] = []
    if project is not None:
        wanted.append(_RUN.project == project)
    if name:
        wanted.append(_RUN.name.icontains(name, autoescape=True))
    if before is not None:
        wanted.append(_RUN.run_no < before)
    if status is not None:
        wanted.append(_has_status(status, now))
    query = select(*_HEAD).where(*wanted).order_by(_RUN.run_no.desc()).limit(limit)
    return [RunHead(*tuple(row)) for row in conn.execute(query)]


def _has_status(status: RunStatus, now: datetime) -> ColumnElement[bool]:
    is_silent = and_(_RUN.status == RunStatus.RUNNING, _RUN.last_seen_at < now - _LOST_AFTER)
    if status is RunStatus.LOST:
        return or_(_RUN.status == RunStatus.LOST, is_silent)
    if status is RunStatus.RUNNING:
        return and_(_RUN.status == RunStatus.RUNNING, _RUN.last_seen_at >= now - _LOST_AFTER)
    return _RUN.status == status


def list_projects(conn: Connection) -> list[str]:
    """Names of all projects, ascending."""
    return list(conn.scalars(select(_RUN.project).distinct().order_by(_RUN.project)))


def find_run(conn: Connection, run: str) -> RunHead | None:
    """The run with that id of the API."""
    row = conn.execute(select(*_HEAD).where(_RUN.id == run)).one_or_none()
    return None if row is None else RunHead(*tuple(row))


def refer_to_runs(conn: Connection, reference: str, limit: int = 5) -> list[RunHead]:
    """Runs that a person may mean, newest first: one of that id, else of that name, else those whose id begins so.

    An id is unique; a name or the beginning of an id need not be.
    """
    identity = reference.lower()
    begins = _RUN.id.startswith(identity, autoescape=True) if _ID_PART.fullmatch(identity) else None
    for wanted in (_RUN.id == identity, _RUN.name == reference, begins):
        if wanted is not None:
            query = select(*_HEAD).where(wanted).order_by(_RUN.run_no.desc()).limit(limit)
            if found := [RunHead(*tuple(row)) for row in conn.execute(query)]:
                return found
    return []


def list_attempts(conn: Connection, run_no: int) -> list[AttemptHead]:
    """Attempts of a run, oldest first."""
    c = Attempt.__table__.c
    columns = (c.number, c.world_size, c.first_step, c.evaluated_step, c.created_at)
    query = select(*columns).where(c.run_no == run_no).order_by(c.number)
    return [AttemptHead(*row) for row in conn.execute(query)]


def list_sessions(conn: Connection, run_no: int, limit: int = 1_000) -> list[SessionHead]:
    """Sessions of a run: newest attempt first, then by rank."""
    c = Session.__table__.c
    columns: tuple[ColumnElement[Any], ...] = (
        c.session_id, c.attempt, c.rank, c.world_size, c.host, c.pid,
        c.started_at, c.first_seen_at, c.last_seen_at, c.last_step, c.status, c.books,
    )  # fmt: skip
    query = select(*columns).where(c.run_no == run_no).order_by(c.attempt.desc(), c.rank, c.session_no).limit(limit)
    return [SessionHead(*row) for row in conn.execute(query)]


def count_stored(conn: Connection, run_no: int) -> int:
    """Records and scalars that were accepted: the collector's own count, while books are what jobs last said."""
    batch, session = BatchRow.__table__.c, Session.__table__.c
    joined = BatchRow.__table__.join(Session.__table__, session.session_no == batch.session_no)
    query = select(func.sum(batch.accepted)).select_from(joined).where(session.run_no == run_no)
    return int(conn.scalar(query) or 0)


def sum_books(books: Iterable[Mapping[str, Any]]) -> BooksSum:
    """One account out of the sessions'."""
    accounts: Sequence[Mapping[str, Any]] = list(books)
    dropped: Counter[str] = Counter()
    for account in accounts:
        dropped.update(account.get("dropped") or {})
    names = ("recorded", "acknowledged", "pending", "hook_errors")
    totals = {name: sum(int(account.get(name) or 0) for account in accounts) for name in names}
    return BooksSum(**totals, dropped=dict(sorted(dropped.items())))


def update_run(conn: Connection, run_no: int, values: Mapping[str, Any]) -> None:
    """Sets `name`, `note` or `tags` of a run."""
    if values:
        conn.execute(update(Run.__table__).where(_RUN.run_no == run_no).values(**values))  # type: ignore[arg-type]


def delete_run(conn: Connection, run_no: int) -> None:
    """Removes a run with everything that belongs to it (the foreign keys cascade)."""
    conn.execute(delete(Run.__table__).where(_RUN.run_no == run_no))  # type: ignore[arg-type]
