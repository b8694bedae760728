"""Reading records: the steps there are, the curve of a tensor, all tensors at a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from initscope.hooks.moments import TensorStats
from initscope.hooks.vocabulary import Kind
from initscope.service.store.derived import MOMENT_COLUMNS, stats_of
from initscope.service.store.models import Tensor, TensorStatsRow

_TENSOR = Tensor.__table__.c
_ROW = TensorStatsRow.__table__.c


@dataclass(frozen=True, slots=True)
class Records:
    """Records of one tensor, ascending by step."""

    steps: list[int]
    stats: list[TensorStats]


def sampled_steps(conn: Connection, run_no: int, attempt: int) -> list[int]:
    """Steps of an attempt that have any record, ascending.

    Jumps from step to step through the index: a DISTINCT would read every record of the run.
    """
    wanted = (_ROW.run_no == run_no, _ROW.attempt == attempt)
    found = select(func.min(_ROW.step).label("step")).where(*wanted).cte("found", recursive=True)
    later = select(func.min(_ROW.step)).where(*wanted, _ROW.step > found.c.step).correlate(found).scalar_subquery()
    found = found.union_all(select(later).where(found.c.step.is_not(None)))
    return list(conn.scalars(select(found.c.step).where(found.c.step.is_not(None)).order_by(found.c.step)))


def first_step(conn: Connection, run_no: int, attempt: int) -> int | None:
    """The first step of an attempt with records."""
    found: int | None = conn.scalar(select(func.min(_ROW.step)).where(_ROW.run_no == run_no, _ROW.attempt == attempt))
    return found


def step_at(conn: Connection, run_no: int, attempt: int, step: int | None) -> int | None:
    """The newest step with records, not later than `step`."""
    wanted = [_ROW.run_no == run_no, _ROW.attempt == attempt]
    if step is not None:
        wanted.append(_ROW.step <= step)
    query = select(_ROW.step).where(*wanted).order_by(_ROW.step.desc()).limit(1)
    return conn.scalar(query)


def step_records(
    conn: Connection, run_no: int, attempt: int, step: int, kinds: Sequence[Kind] = ()
) -> dict[int, TensorStats]:
    """Records of one step by tensor_no; of all kinds if none is named."""
    query = select(_ROW.tensor_no, *MOMENT_COLUMNS).where(
        _ROW.run_no == run_no, _ROW.step == step, _ROW.attempt == attempt
    )
    if kinds:
        query = query.join(Tensor.__table__, _TENSOR.tensor_no == _ROW.tensor_no)
        query = query.where(_TENSOR.run_no == run_no, _TENSOR.kind.in_([kind.value for kind in kinds]))
    return {row[0]: stats_of(row[1:]) for row in conn.execute(query)}


def tensor_records(
    conn: Connection,
    run_no: int,
    attempt: int,
    tensor_nos: Sequence[int],
    from_step: int | None = None,
    to_step: int | None = None,
) -> dict[int, Records]:
    """Records of some tensors, each ascending by step; one query, along the primary key."""
    wanted = [_ROW.run_no == run_no, _ROW.tensor_no.in_(tensor_nos), _ROW.attempt == attempt]
    if from_step is not None:
        wanted.append(_ROW.step >= from_step)
    if to_step is not None:
        wanted.append(_ROW.step <= to_step)
    query = select(_ROW.tensor_no, _ROW.step, *MOMENT_COLUMNS).where(*wanted).order_by(_ROW.tensor_no, _ROW.step)
    found = {tensor_no: Records([], []) for tensor_no in tensor_nos}
    for row in conn.execute(query):
        records = found[row[0]]
        records.steps.append(row[1])
        records.stats.append(stats_of(row[2:]))
    return found
