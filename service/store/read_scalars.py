"""Reading logged numbers. NaN and infinities are values like any other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, select

from initscope.service.store.downsample import thin
from initscope.service.store.models import Run, ScalarRow

_SCALAR = ScalarRow.__table__.c
_CLASSES = {"nan": math.nan, "posinf": math.inf, "neginf": -math.inf}


def value_of_class(value: float | None, value_class: str) -> float:
    """The number that was logged, from the two columns that hold it."""
    return _CLASSES[value_class] if value is None else value


@dataclass(frozen=True, slots=True)
class ScalarCurve:
    """One logged number over steps; `values` may be NaN or infinite. Points may be left out, none of which is worse."""

    name: str
    steps: list[int]
    values: list[float]
    total_points: int


def list_scalars(
    conn: Connection, run_no: int, attempt: int, max_points: int, *, until_step: int | None = None
) -> list[ScalarCurve]:
    """Every logged number of an attempt, by name; curves thinned to `max_points`."""
    wanted = [_SCALAR.run_no == run_no, _SCALAR.attempt == attempt]
    if until_step is not None:
        wanted.append(_SCALAR.step <= until_step)
    columns = (_SCALAR.name, _SCALAR.step, _SCALAR.value, _SCALAR.value_class)
    found: dict[str, list[tuple[int, float]]] = {}
    for name, step, value, kind in conn.execute(select(*columns).where(*wanted).order_by(_SCALAR.name, _SCALAR.step)):
        found.setdefault(name, []).append((step, value_of_class(value, kind)))
    return [_curve(name, points, max_points) for name, points in found.items()]


def _curve(name: str, points: list[tuple[int, float]], max_points: int) -> ScalarCurve:
    finite = [value if math.isfinite(value) else None for _, value in points]
    flags = [int(value is None) for value in finite]
    # Thinned by position, so that a kept non-finite point comes back as the value it was.
    kept = thin(range(len(points)), finite, flags, max_points).steps
    return ScalarCurve(name, [points[i][0] for i in kept], [points[i][1] for i in kept], len(points))


def first_losses(conn: Connection, run_nos: Sequence[int], until_step: int) -> dict[int, ScalarCurve]:
    """The logged `loss` of each run's newest attempt up to a step; one query for any number of runs."""
    run = Run.__table__.c
    newest = and_(run.run_no == _SCALAR.run_no, run.attempt == _SCALAR.attempt)
    columns = (_SCALAR.run_no, _SCALAR.step, _SCALAR.value, _SCALAR.value_class)
    query = (
        select(*columns)
        .join(Run.__table__, newest)
        .where(_SCALAR.run_no.in_(run_nos), _SCALAR.name == "loss", _SCALAR.step <= until_step)
        .order_by(_SCALAR.run_no, _SCALAR.step)
    )
    found: dict[int, list[tuple[int, float]]] = {}
    for run_no, step, value, kind in conn.execute(query):
        found.setdefault(run_no, []).append((step, value_of_class(value, kind)))
    return {run_no: _curve("loss", points, len(points)) for run_no, points in found.items()}
