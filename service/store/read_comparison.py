"""Reading what runs are compared by: one step of a run with its description, and activations over steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from initscope.hooks.comparison import Snapshot
from initscope.hooks.moments import TensorStats
from initscope.hooks.schemes import recognise
from initscope.hooks.vocabulary import Kind
from initscope.hooks.wire import TensorInfo
from initscope.service.store.evaluation import description_of
from initscope.service.store.models import ScalarRow, TensorStatsRow
from initscope.service.store.read_runs import RunHead
from initscope.service.store.read_scalars import value_of_class
from initscope.service.store.read_stats import step_at, step_records, tensor_records
from initscope.service.store.read_tensors import load_tensors

_ROW = TensorStatsRow.__table__.c
_SCALAR = ScalarRow.__table__.c


@dataclass(frozen=True, slots=True)
class Moment:
    """An attempt at one sampled step, with what was logged at it; `step` is None if nothing was recorded by then."""

    step: int | None
    snapshot: Snapshot
    scalars: Mapping[str, float]


def first_step(conn: Connection, run_no: int, attempt: int) -> int | None:
    """The first step of an attempt that has records."""
    first: int | None = conn.scalar(select(func.min(_ROW.step)).where(_ROW.run_no == run_no, _ROW.attempt == attempt))
    return first


def load_moment(
    conn: Connection, run: RunHead, step: int | None, kinds: Sequence[Kind] = (), *, with_schemes: bool = False
) -> Moment:
    """The newest sampled step of a run that is not later than `step`; without one its first.

    `with_schemes` recognises the schemes of its weights, from the newest attempt's first step.
    """
    run_no, attempt = run.run_no, run.attempt
    start = first_step(conn, run_no, attempt)
    at = start if step is None or start is None else step_at(conn, run_no, attempt, step)
    tensors = load_tensors(conn, run_no)
    recognition = None
    if with_schemes and start is not None:
        weights = step_records(conn, run_no, attempt, start, [Kind.WEIGHT])
        recognition = recognise(tensors, weights, description_of(run.description))
    if at is None:
        return Moment(None, Snapshot(tensors, {}, recognition), {})
    records = step_records(conn, run_no, attempt, at, kinds)
    return Moment(at, Snapshot(tensors, records, recognition), scalars_at(conn, run_no, attempt, at))


def scalars_at(conn: Connection, run_no: int, attempt: int, step: int) -> dict[str, float]:
    """Numbers that were logged at exactly that step, by name; NaN and infinities are values."""
    query = (
        select(_SCALAR.name, _SCALAR.value, _SCALAR.value_class)
        .where(_SCALAR.run_no == run_no, _SCALAR.attempt == attempt, _SCALAR.step == step)
        .order_by(_SCALAR.name)
    )
    return {name: value_of_class(value, kind) for name, value, kind in conn.execute(query)}


def records_at(
    conn: Connection, run_no: int, attempt: int, tensors: Collection[TensorInfo], steps: Collection[int]
) -> dict[int, dict[int, TensorStats]]:
    """Records of some tensors by step and tensor_no, at those of the steps that have any."""
    found: dict[int, dict[int, TensorStats]] = {}
    numbers = [tensor.key for tensor in tensors]
    read = tensor_records(conn, run_no, attempt, numbers, min(steps), max(steps))
    for tensor_no, records in read.items():
        for step, stats in zip(records.steps, records.stats, strict=True):
            if step in steps:
                found.setdefault(step, {})[tensor_no] = stats
    return found
