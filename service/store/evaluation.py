"""Queries of the evaluation: what is new, the rows of a step, and the episodes that came out."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, tuple_, update

from initscope.hooks.moments import TensorStats
from initscope.hooks.vocabulary import LOST_AFTER_SECONDS, EpisodeState, RunStatus
from initscope.hooks.wire import OptimizerInfo, RunDescription
from initscope.service.store.derived import MOMENT_COLUMNS, stats_of
from initscope.service.store.models import (
    Attempt,
    FindingRow,
    FindingTransition,
    Run,
    ScalarRow,
    Session,
    TensorStatsRow,
)
from initscope.service.store.read_scalars import value_of_class

ENDED: Final = (RunStatus.FINISHED.value, RunStatus.FAILED.value)
_LIVE: Final = (EpisodeState.PENDING.value, EpisodeState.OPEN.value)


@dataclass(frozen=True, slots=True)
class Work:
    """An attempt that has steps which the rules have not seen, or that ended with live episodes."""

    run_no: int
    run_id: str
    attempt: int
    world_size: int
    last_step: int | None
    evaluated_step: int | None
    dirty_step: int | None
    has_ended: bool
    """The run did, or went on to another attempt: what stands is closed."""
    is_silent: bool
    """No rank is waited for: the attempt has ended, or the run is lost."""


def pending(connection: Connection) -> list[Work]:
    """Newest attempts with new rows, any with late rows, and ended ones with episodes to close."""
    live = select(FindingRow.run_no, FindingRow.attempt).where(FindingRow.state.in_(_LIVE))
    is_newest = Attempt.number == Run.attempt
    query = (
        select(
            Run.run_no, Run.id, Run.status, Run.last_step, Attempt.number, Attempt.world_size,
            Attempt.evaluated_step, Attempt.dirty_step, is_newest.label("is_newest"),
        )
        .join(Attempt, Attempt.run_no == Run.run_no)
        .where(
            or_(
                and_(is_newest, Run.last_step > func.coalesce(Attempt.evaluated_step, -1)),
                Attempt.dirty_step.is_not(None),
                and_(
                    or_(Run.status.in_(ENDED), Attempt.number < Run.attempt),
                    tuple_(Attempt.run_no, Attempt.number).in_(live),
                ),
            )
        )
        .order_by(Run.run_no, Attempt.number)
    )  # fmt: skip
    return [_work(row) for row in connection.execute(query)]


def _work(row: Any) -> Work:
    has_ended = row.status in ENDED or not row.is_newest
    return Work(
        run_no=row.run_no,
        run_id=row.id,
        attempt=row.number,
        world_size=row.world_size,
        last_step=row.last_step if row.is_newest else None,
        evaluated_step=row.evaluated_step,
        dirty_step=row.dirty_step,
        has_ended=has_ended,
        is_silent=has_ended or row.status == RunStatus.LOST.value,
    )


def mark_lost(connection: Connection, now: datetime) -> int:
    """Running runs without a sign of life for 120 s become lost; a later batch makes them running again."""
    limit = now - timedelta(seconds=LOST_AFTER_SECONDS)
    result = connection.execute(
        update(Run)
        .where(Run.status == RunStatus.RUNNING.value, Run.last_seen_at < limit)
        .values(status=RunStatus.LOST.value)
    )
    return result.rowcount


def steps_between(connection: Connection, work: Work, after: int) -> list[int]:
    """Sampled steps of the attempt later than `after`, ascending."""
    t = TensorStatsRow
    query = (
        select(t.step)
        .where(t.run_no == work.run_no, t.step > after, t.attempt == work.attempt)
        .distinct()
        .order_by(t.step)
    )
    return list(connection.execute(query).scalars())


def steps_before(connection: Connection, work: Work, step: int, limit: int) -> list[int]:
    """The last `limit` sampled steps before `step`, ascending."""
    t = TensorStatsRow
    query = (
        select(t.step)
        .where(t.run_no == work.run_no, t.step < step, t.attempt == work.attempt)
        .distinct()
        .order_by(t.step.desc())
        .limit(limit)
    )
    return sorted(connection.execute(query).scalars())


def first_step(connection: Connection, work: Work) -> int | None:
    """The attempt's first sampled step."""
    t = TensorStatsRow
    return connection.execute(
        select(func.min(t.step)).where(t.run_no == work.run_no, t.attempt == work.attempt)
    ).scalar()


def reached_step(connection: Connection, work: Work) -> int | None:
    """The step that every rank has acknowledged; None while a rank is missing."""
    s = Session
    rows = connection.execute(
        select(s.rank, func.max(func.coalesce(s.last_step, -1)))
        .where(s.run_no == work.run_no, s.attempt == work.attempt)
        .group_by(s.rank)
    ).all()
    return min(last for _, last in rows) if rows and len(rows) >= work.world_size else None


def load_digests(connection: Connection, work: Work) -> dict[int, dict[str, str]]:
    """What each rank of the attempt started with: digests by full name of a parameter, by rank."""
    s = Session
    query = (
        select(s.rank, s.digests)
        .where(s.run_no == work.run_no, s.attempt == work.attempt, s.digests.is_not(None))
        .order_by(s.session_no)
    )
    return {rank: dict(digests) for rank, digests in connection.execute(query)}


def tensor_revision(connection: Connection, work: Work) -> int:
    """A number that grows whenever descriptions of the run's tensors are written."""
    revision: int = connection.execute(select(Run.tensor_revision).where(Run.run_no == work.run_no)).scalar_one()
    return revision


def load_description(connection: Connection, work: Work) -> RunDescription:
    """The run's description."""
    return description_of(connection.execute(select(Run.description).where(Run.run_no == work.run_no)).scalar_one())


def description_of(data: Mapping[str, Any]) -> RunDescription:
    """A stored description; unknown fields of a newer client are left out."""
    known = {k: x for k, x in data.items() if k in RunDescription.__dataclass_fields__}
    known["optimizers"] = [
        OptimizerInfo(**{k: x for k, x in o.items() if k in OptimizerInfo.__dataclass_fields__})
        for o in known.get("optimizers", [])
    ]
    return RunDescription(**known)


def load_steps(connection: Connection, work: Work, steps: Sequence[int]) -> dict[int, dict[int, TensorStats]]:
    """Records of those steps, by step and tensor_no."""
    t = TensorStatsRow
    found: dict[int, dict[int, TensorStats]] = {step: {} for step in steps}
    query = select(t.step, t.tensor_no, *MOMENT_COLUMNS).where(
        t.run_no == work.run_no, t.step.in_(steps), t.attempt == work.attempt
    )
    # All at once: SQLAlchemy fetches row by row otherwise, and a step has a thousand.
    for row in connection.execute(query).fetchall():
        found[row[0]][row[1]] = stats_of(row[2:])
    return found


def count_rows(connection: Connection, work: Work, after: int, until: int) -> tuple[int, int]:
    """(records, sessions merged in them) of the steps later than `after`, up to `until`.

    Any row that comes changes one of the two.
    """
    t = TensorStatsRow
    query = select(func.count(), func.coalesce(func.sum(t.session_count), 0)).where(
        t.run_no == work.run_no, t.step > after, t.step <= until, t.attempt == work.attempt
    )
    rows, sessions = connection.execute(query).one()
    return rows, int(sessions)


def lock_run(connection: Connection, work: Work) -> None:
    """Holds off ingest of this run until the transaction ends (SQLite has one writer anyway)."""
    connection.execute(select(Run.run_no).where(Run.run_no == work.run_no).with_for_update())


def load_scalars(
    connection: Connection, work: Work, start_until: int, window_from: int
) -> dict[str, list[tuple[int, float]]]:
    """Logged values of the start (up to `start_until`) and of the window, by name, ascending by step."""
    s = ScalarRow
    query = (
        select(s.name, s.step, s.value, s.value_class)
        .where(s.run_no == work.run_no, s.attempt == work.attempt, or_(s.step <= start_until, s.step >= window_from))
        .order_by(s.step)
    )
    found: dict[str, list[tuple[int, float]]] = {}
    for name, step, value, value_class in connection.execute(query):
        found.setdefault(name, []).append((step, value_of_class(value, value_class)))
    return found


def load_episodes(connection: Connection, work: Work) -> list[Row[Any]]:
    """The newest episode of each fingerprint of the attempt."""
    f = FindingRow.__table__
    query = (
        select(f)
        .where(f.c.run_no == work.run_no, f.c.attempt == work.attempt)
        .order_by(f.c.fingerprint, f.c.episode.desc())
    )
    newest: dict[str, Row[Any]] = {}
    for row in connection.execute(query):
        newest.setdefault(row.fingerprint, row)
    return list(newest.values())


def save_step(connection: Connection, work: Work, step: int, dirty_step: int | None) -> bool:
    """Notes how far the rules have come, and from where late rows remain.

    False if somebody else moved it meanwhile: nothing may be written then.
    """
    a = Attempt
    result = connection.execute(
        update(a)
        .where(
            a.run_no == work.run_no,
            a.number == work.attempt,
            a.evaluated_step.is_(work.evaluated_step)
            if work.evaluated_step is None
            else a.evaluated_step == work.evaluated_step,
            a.dirty_step.is_(work.dirty_step) if work.dirty_step is None else a.dirty_step == work.dirty_step,
        )
        .values(evaluated_step=step, dirty_step=dirty_step)
    )
    return result.rowcount == 1


def save_episodes(connection: Connection, work: Work, rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], int]:
    """Inserts or updates episodes; (fingerprint, episode) → finding_no."""
    f = FindingRow
    numbers: dict[tuple[str, int], int] = {}
    for row in rows:
        where = (
            f.run_no == work.run_no,
            f.attempt == work.attempt,
            f.fingerprint == row["fingerprint"],
            f.episode == row["episode"],
        )
        key = (row["fingerprint"], row["episode"])
        known = connection.execute(select(f.finding_no).where(*where)).scalar()
        if known is None:
            values = {**row, "id": str(uuid.uuid4()), "run_no": work.run_no, "attempt": work.attempt}
            known = connection.execute(insert(f).values(**values).returning(f.finding_no)).scalar_one()
        else:
            changes = {**row, "opened_at": func.coalesce(f.opened_at, row["opened_at"])}
            connection.execute(update(f).where(*where).values(**changes))
        numbers[key] = known
    return numbers


def drop_pending(connection: Connection, work: Work, fingerprints: Iterable[str]) -> None:
    """Removes pending episodes of those fingerprints: they never opened."""
    f = FindingRow
    connection.execute(
        delete(f).where(
            f.run_no == work.run_no,
            f.attempt == work.attempt,
            f.fingerprint.in_(list(fingerprints)),
            f.state == EpisodeState.PENDING.value,
        )
    )


def save_transitions(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Appends transitions, in order."""
    if rows:
        connection.execute(insert(FindingTransition), [dict(row) for row in rows])
