"""Numbers for charts: curves of tensors, one step by depth, the step × depth grid, logged scalars."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection

from initscope.hooks.vocabulary import Kind, Statistic
from initscope.service.api.auth import require
from initscope.service.api.errors import ApiError
from initscope.service.api.expected import expected_at
from initscope.service.api.lookup import (
    AttemptQuery,
    PointsQuery,
    StepQuery,
    reading,
    the_attempt,
    the_run,
    the_statistics,
)
from initscope.service.api.responses import Answer
from initscope.service.store import read_grid, read_stats
from initscope.service.store.derived import ALL, value_of, values_of
from initscope.service.store.downsample import thin
from initscope.service.store.read_scalars import list_scalars
from initscope.service.store.read_stats import Records
from initscope.service.store.read_tensors import TensorName, name_tensors, order_tensors

router = APIRouter(prefix="/api/v1/runs/{run}", tags=["stats"], dependencies=[Depends(require("read"))])
_MAX_TENSORS = 64


@router.get("/stats/series")
def show_series(
    request: Request,
    run: str,
    tensor: Annotated[list[Annotated[int, Query(ge=0, lt=2**63)]], Query(min_length=1, max_length=_MAX_TENSORS)],
    statistic: Annotated[str, Query(max_length=400)] = Statistic.RMS.value,
    attempt: AttemptQuery = None,
    from_step: StepQuery = None,
    to_step: StepQuery = None,
    max_points: PointsQuery = 500,
) -> Answer:
    """Curves of tensors over steps, one for each statistic; thinned without hiding extremes or non-finite values."""
    wanted = the_statistics(statistic)
    with reading(request) as conn:
        head = the_run(conn, run)
        number = the_attempt(head, attempt)
        names = _known(conn, head.run_no, tensor)
        found = read_stats.tensor_records(conn, head.run_no, number, list(names), from_step, to_step)
    series = [_curve(name, found[no], s, max_points) for no, name in names.items() for s in wanted]
    return Answer({"attempt": number, "series": series})


def _known(conn: Connection, run_no: int, tensor_nos: list[int]) -> dict[int, TensorName]:
    names = name_tensors(conn, run_no, tensor_nos)
    for tensor_no in tensor_nos:
        if tensor_no not in names:
            raise ApiError(404, "not_found", f"this run has no tensor {tensor_no}", field="tensor")
    return {tensor_no: names[tensor_no] for tensor_no in tensor_nos}


def _curve(name: TensorName, records: Records, statistic: Statistic, max_points: int) -> dict[str, Any]:
    values = [value_of(stats, statistic) for stats in records.stats]
    nonfinite = [stats.moments.nonfinite_count for stats in records.stats]
    curve = thin(records.steps, values, nonfinite, max_points)
    return {
        **_named(name),
        "statistic": statistic.value,
        "steps": curve.steps,
        "values": curve.values,
        "nonfinite": curve.nonfinite,
        "total_points": curve.total_points,
    }


def _named(name: TensorName) -> dict[str, Any]:
    return {
        "tensor_no": name.tensor_no,
        "module_path": name.module_path,
        "name": name.name,
        "kind": name.kind,
        "depth": name.depth,
    }


@router.get("/stats/profile")
def show_profile(
    request: Request,
    run: str,
    step: StepQuery = None,
    kind: Annotated[tuple[Kind, ...], Query(max_length=8)] = (),
    statistic: Annotated[str | None, Query(max_length=400)] = None,
    attempt: AttemptQuery = None,
) -> Answer:
    """All tensors (of some kinds) at one step in forward order, with what theory expects.

    `step` in the answer is the newest sampled step not later than the one asked for; null before the first record.
    """
    wanted = ALL if statistic is None else the_statistics(statistic)
    with reading(request) as conn:
        head = the_run(conn, run)
        number = the_attempt(head, attempt)
        at = read_stats.step_at(conn, head.run_no, number, step)
        if at is None:
            return Answer({"attempt": number, "step": None, "tensors": []})
        records = read_stats.step_records(conn, head.run_no, number, at, kind)
        names = order_tensors(conn, head.run_no, kind)
        expected = expected_at(conn, (head.run_no, number, at), records, kind) if _has_theory(kind) else {}
    rows = [
        {**_named(name), "statistics": values_of(stats, wanted), "expected": expected.get(name.tensor_no)}
        for name in names
        if (stats := records.get(name.tensor_no)) is not None
    ]
    return Answer({"attempt": number, "step": at, "tensors": rows})


def _has_theory(kinds: tuple[Kind, ...]) -> bool:
    return not kinds or Kind.ACTIVATION in kinds or Kind.ACTIVATION_GRADIENT in kinds


@router.get("/stats/grid")
def show_grid(
    request: Request,
    run: str,
    kind: Kind = Kind.ACTIVATION,
    statistic: Statistic = Statistic.RMS,
    attempt: AttemptQuery = None,
    max_steps: Annotated[int, Query(ge=1, le=1_000)] = 120,
    max_rows: Annotated[int, Query(ge=1, le=1_000)] = 128,
) -> Answer:
    """One statistic by depth and step. A cell holds the lowest and the highest of its records.

    `low` is null if every cell has at most one record; see `store.read_grid`.
    """
    with reading(request) as conn:
        head = the_run(conn, run)
        number = the_attempt(head, attempt)
        grid = read_grid.read_grid(conn, head.run_no, number, kind, statistic, max_rows=max_rows, max_steps=max_steps)
    return Answer(
        {
            "attempt": number,
            "kind": kind.value,
            "statistic": statistic.value,
            "rows": [[_named(name) for name in group] for group in grid.rows],
            "steps": grid.steps,
            # Half of the answer, and the usual case: every cell is one record.
            "low": None if grid.low == grid.high else grid.low,
            "high": grid.high,
            "nonfinite": [[cell.row, cell.column, cell.nonfinite_count] for cell in grid.nonfinite],
        }
    )


@router.get("/scalars")
def show_scalars(request: Request, run: str, attempt: AttemptQuery = None, max_points: PointsQuery = 500) -> Answer:
    """Logged numbers over steps; values may be "NaN", "Infinity" and "-Infinity"."""
    with reading(request) as conn:
        head = the_run(conn, run)
        number = the_attempt(head, attempt)
        curves = list_scalars(conn, head.run_no, number, max_points)
    return Answer(
        {
            "attempt": number,
            "scalars": [
                {"name": c.name, "steps": c.steps, "values": c.values, "total_points": c.total_points} for c in curves
            ],
        }
    )
