"""Every write of ingest but records: runs, attempts, sessions, batches, tensors, scalars.

All of them run inside one transaction that `lock_run` begins: whoever holds the run's row is alone with the run.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import Connection, Table, and_, bindparam, case, func, select
from sqlalchemy.dialects import postgresql, sqlite

from initscope.hooks.vocabulary import RunStatus
from initscope.hooks.wire import RunKey, Scalar, SessionKey, TensorInfo, Traits, run_uuid
from initscope.service.store.models import Attempt, BatchRow, Run, ScalarRow, Session, Tensor

_ATTEMPTS: Final = cast(Table, Attempt.__table__)
_BATCHES: Final = cast(Table, BatchRow.__table__)
_RUNS: Final = cast(Table, Run.__table__)
_SESSIONS: Final = cast(Table, Session.__table__)
_TENSORS: Final = cast(Table, Tensor.__table__)
_SCALARS: Final = cast(Table, ScalarRow.__table__)
_ATTEMPT, _RUN, _SESSION, _TENSOR = _ATTEMPTS.c, _RUNS.c, _SESSIONS.c, _TENSORS.c

# What every batch runs is built once: building a statement costs more than executing it.
_LOCK_RUN: Final = (
    select(_RUN.run_no, _RUN.created_at, _RUN.status, _RUN.attempt, _RUN.last_step, _RUN.description)
    .where(_RUN.project == bindparam("project"), _RUN.run_id == bindparam("run_id"))
    .with_for_update(key_share=True)  # findings that refer to the run may still be written
)
_SAVE_RUN: Final = _RUNS.update().where(_RUN.run_no == bindparam("this_run"))
_FIND_SESSION: Final = (
    select(
        _SESSION.session_no, _SESSION.run_no, _SESSION.attempt, _SESSION.last_step, _SESSION.current_step,
        _BATCHES.c.accepted, _BATCHES.c.rejected,
    )
    .select_from(
        _SESSIONS.outerjoin(
            _BATCHES,
            and_(_BATCHES.c.session_no == _SESSION.session_no, _BATCHES.c.sequence == bindparam("sequence")),
        )
    )
    .where(_SESSION.session_id == bindparam("session_id"))
)  # fmt: skip
_SAVE_SESSION: Final = _SESSIONS.update().where(_SESSION.session_no == bindparam("this_session"))
_MARK_DIRTY: Final = (
    _ATTEMPTS.update()
    .where(
        _ATTEMPT.run_no == bindparam("this_run"),
        _ATTEMPT.number == bindparam("this_attempt"),
        _ATTEMPT.evaluated_step >= bindparam("late_step"),
    )
    .values(
        dirty_step=case(
            (_ATTEMPT.dirty_step < bindparam("late_step"), _ATTEMPT.dirty_step), else_=bindparam("late_step")
        )
    )
)


@dataclass(frozen=True, slots=True)
class RunState:
    """A run as it was before this batch."""

    run_no: int
    created_at: datetime
    status: RunStatus
    attempt: int
    last_step: int | None
    is_described: bool


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session as it was before this batch; `stored` are the counts of the same batch, had it come before."""

    session_no: int
    run_no: int
    attempt: int
    last_step: int | None
    current_step: int | None
    stored: tuple[int, int] | None = None


def lock_run(connection: Connection, key: RunKey, now: datetime) -> RunState:
    """The run, created if it is new; held until the transaction ends."""
    wanted = {"project": key.project, "run_id": key.run_id}
    row = connection.execute(_LOCK_RUN, wanted).first()
    if row is None:
        values = {
            "id": run_uuid(key.project, key.run_id), "project": key.project, "run_id": key.run_id, "name": key.name,
            "status": RunStatus.RUNNING.value, "note": "", "tags": [], "description": {}, "attempt": key.attempt,
            "created_at": now, "last_seen_at": now,
        }  # fmt: skip
        connection.execute(_insert(connection, _RUNS).values(**values).on_conflict_do_nothing())
        row = connection.execute(_LOCK_RUN, wanted).one()
    return RunState(
        row.run_no, row.created_at, RunStatus(row.status), row.attempt, row.last_step, bool(row.description)
    )


def save_run(connection: Connection, run_no: int, values: Mapping[str, Any]) -> None:
    """Changes columns of a run."""
    connection.execute(_SAVE_RUN, {**values, "this_run": run_no})


def find_session(connection: Connection, session_id: str, sequence: int = -1) -> SessionState | None:
    """A session, and what became of its batch of that sequence."""
    row = connection.execute(_FIND_SESSION, {"session_id": session_id, "sequence": sequence}).first()
    if row is None:
        return None
    stored = None if row.accepted is None else (row.accepted, row.rejected)
    return SessionState(*row[:5], stored=stored)


def add_session(connection: Connection, run_no: int, attempt: int, key: SessionKey, now: datetime) -> SessionState:
    """A new session of an attempt that exists."""
    values = {
        "session_id": key.session_id, "run_no": run_no, "attempt": attempt, "rank": key.rank,
        "world_size": key.world_size, "host": key.host, "pid": key.pid,
        "started_at": key.started_at if math.isfinite(key.started_at) else 0.0,
        "first_seen_at": now, "last_seen_at": now, "status": RunStatus.RUNNING.value, "books": {},
    }  # fmt: skip
    number = connection.execute(
        _insert(connection, _SESSIONS).values(**values).returning(_SESSION.session_no)
    ).scalar_one()
    return SessionState(number, run_no, attempt, None, None)


def save_session(connection: Connection, session_no: int, values: Mapping[str, Any]) -> None:
    """Changes columns of a session."""
    connection.execute(_SAVE_SESSION, {**values, "this_session": session_no})


def ensure_attempt(
    connection: Connection, run_no: int, number: int, world_size: int, first_step: int | None, now: datetime
) -> None:
    """The attempt, created if it is new; a larger world size or an earlier first step is kept."""
    values = {"run_no": run_no, "number": number, "world_size": world_size, "first_step": first_step, "created_at": now}
    new = _insert(connection, _ATTEMPTS).values(**values)
    given = new.excluded
    larger = case((given.world_size > _ATTEMPT.world_size, given.world_size), else_=_ATTEMPT.world_size)
    earlier = case(
        (_ATTEMPT.first_step.is_(None), given.first_step),
        (given.first_step < _ATTEMPT.first_step, given.first_step),
        else_=_ATTEMPT.first_step,
    )
    kept = {"world_size": larger, "first_step": earlier}
    connection.execute(new.on_conflict_do_update(index_elements=["run_no", "number"], set_=kept))


def mark_dirty(connection: Connection, run_no: int, attempt: int, step: int) -> None:
    """Notes that a step got rows after the rules saw it; the evaluation goes back to it."""
    connection.execute(_MARK_DIRTY, {"this_run": run_no, "this_attempt": attempt, "late_step": step})


def add_batch(
    connection: Connection, session_no: int, sequence: int, accepted: int, rejected: int, now: datetime
) -> None:
    """The identity of an accepted batch; a second one of the same sequence is an IntegrityError."""
    values = {"session_no": session_no, "sequence": sequence, "accepted": accepted, "rejected": rejected}
    connection.execute(_BATCHES.insert(), {**values, "received_at": now})


def session_statuses(connection: Connection, run_no: int, attempt: int) -> list[RunStatus]:
    """The status of every rank of an attempt, by its newest session."""
    query = select(_SESSION.rank, _SESSION.status).where(_SESSION.run_no == run_no, _SESSION.attempt == attempt)
    by_rank = {rank: RunStatus(status) for rank, status in connection.execute(query.order_by(_SESSION.session_no))}
    return list(by_rank.values())


@dataclass(frozen=True, slots=True)
class KnownTensor:
    """A stored tensor: its number and what it is called."""

    tensor_no: int
    identity: tuple[str, str, str]


def load_tensors(connection: Connection, run_no: int) -> dict[int, KnownTensor]:
    """Every tensor of a run by its key on the wire."""
    columns = (_TENSOR.tensor_key, _TENSOR.tensor_no, _TENSOR.module_path, _TENSOR.name, _TENSOR.kind)
    rows = connection.execute(select(*columns).where(_TENSOR.run_no == run_no))
    return {key: KnownTensor(number, (path, name, kind)) for key, number, path, name, kind in rows}


_KEEP_IF_ABSENT: Final = (
    "fan_in", "fan_out", "depth", "block", "activation_before", "activation_after", "norm_before", "norm_after",
    "tied_with", "traits",
)  # fmt: skip
_OVERWRITE: Final = ("role", "module_type", "shape", "dtype", "residual", "trainable")


def save_tensors(connection: Connection, run_no: int, infos: Collection[TensorInfo]) -> None:
    """Writes descriptions. What a later one leaves out stays: ranks describe at different moments."""
    new = _insert(connection, _TENSORS)
    set_ = {name: new.excluded[name] for name in _OVERWRITE}
    set_ |= {name: func.coalesce(new.excluded[name], _TENSOR[name]) for name in _KEEP_IF_ABSENT}
    statement = new.on_conflict_do_update(index_elements=["run_no", "tensor_key"], set_=set_)
    # Sorted, so that two collectors lock rows in the same order.
    connection.execute(statement, [_tensor_values(run_no, info) for info in sorted(infos, key=lambda i: i.key)])
    counted = _RUNS.update().where(_RUN.run_no == run_no).values(tensor_revision=_RUN.tensor_revision + 1)
    connection.execute(counted)


def _tensor_values(run_no: int, info: TensorInfo) -> dict[str, Any]:
    return {
        "run_no": run_no, "tensor_key": info.key, "module_path": info.module_path, "name": info.name,
        "kind": info.kind.value, "role": info.role.value, "module_type": info.module_type, "shape": info.shape,
        "dtype": info.dtype, "fan_in": _finite(info.fan_in), "fan_out": _finite(info.fan_out), "depth": info.depth,
        "block": info.block, "activation_before": info.activation_before, "activation_after": info.activation_after,
        "norm_before": info.norm_before, "norm_after": info.norm_after, "residual": info.residual,
        "tied_with": info.tied_with, "trainable": info.trainable,
        "traits": _plain_traits(info.traits),
    }  # fmt: skip


def _plain_traits(traits: Traits | None) -> dict[str, Any] | None:
    # PostgreSQL's JSON has no NaN.
    if traits is None:
        return None
    return {name: _finite(x) if isinstance(x, float) else x for name, x in asdict(traits).items()}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def save_scalars(connection: Connection, run_no: int, attempt: int, scalars: Sequence[Scalar], *, wins: bool) -> None:
    """Writes logged numbers. Where several ranks log the same one, the one that `wins` (rank 0) is kept."""
    new = _insert(connection, _SCALARS)
    key = ["run_no", "name", "attempt", "step"]
    if wins:
        set_ = {"value": new.excluded.value, "value_class": new.excluded.value_class}
        statement = new.on_conflict_do_update(index_elements=key, set_=set_)
    else:
        statement = new.on_conflict_do_nothing(index_elements=key)
    # One number per name and step: PostgreSQL refuses to update a row twice in one statement.
    last = {(s.name, s.step): s.value for s in scalars}
    rows = [
        {"run_no": run_no, "attempt": attempt, "name": name, "step": step, **_classified(value)}
        for (name, step), value in sorted(last.items())
    ]
    connection.execute(statement, rows)


def _classified(value: float) -> dict[str, Any]:
    if math.isfinite(value):
        return {"value": value, "value_class": "finite"}
    name = "nan" if math.isnan(value) else "posinf" if value > 0 else "neginf"
    return {"value": None, "value_class": name}


def _insert(connection: Connection, table: Any) -> Any:
    """INSERT with ON CONFLICT, which both databases spell the same and SQLAlchemy keeps apart."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
