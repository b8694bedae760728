"""The step × depth grid: one statistic of all tensors of a kind, binned by the database.

A cell holds the lowest and the highest value of its records, never an average: an average would hide both a single
vanishing layer and a single exploding one. Bins are over neighbours in forward order and neighbours among the sampled
steps, so that a model and a run that fit are shown record by record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import CTE, JSON, BigInteger, Connection, Select, cast, func, literal, select

from initscope.hooks.vocabulary import Kind, Statistic
from initscope.service.store.models import TensorStatsRow
from initscope.service.store.read_stats import sampled_steps
from initscope.service.store.read_tensors import TensorName, order_tensors
from initscope.service.store.statistic_sql import NONFINITE, expression_of, finish

_ROW = TensorStatsRow.__table__.c
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Marked:
    """A cell with non-finite elements."""

    row: int
    column: int
    nonfinite_count: int


@dataclass(frozen=True, slots=True)
class Grid:
    """`low[row][column]` and `high[row][column]`: None where no record has the statistic.

    Rows are groups of neighbouring tensors, first layer first; columns are groups of neighbouring sampled steps,
    given by their first and last step.
    """

    rows: list[list[TensorName]]
    steps: list[tuple[int, int]]
    low: list[list[float | None]]
    high: list[list[float | None]]
    nonfinite: list[Marked]


def read_grid(
    conn: Connection,
    run_no: int,
    attempt: int,
    kind: Kind,
    statistic: Statistic,
    *,
    max_rows: int = 128,
    max_steps: int = 120,
) -> Grid:
    """The grid of a kind and statistic, at most `max_rows` × `max_steps` cells."""
    rows = split(order_tensors(conn, run_no, [kind]), max_rows)
    columns = split(sampled_steps(conn, run_no, attempt), max_steps)
    low: list[list[float | None]] = [[None] * len(columns) for _ in rows]
    high: list[list[float | None]] = [[None] * len(columns) for _ in rows]
    grid = Grid(rows, [(steps[0], steps[-1]) for steps in columns], low, high, [])
    if rows and columns:
        _fill(conn, grid, _cells(conn, run_no, attempt, statistic, rows, columns), statistic)
    return grid


def split(items: Sequence[_T], parts: int) -> list[list[_T]]:
    """Neighbours in at most `parts` groups, whose sizes differ by one at most."""
    total, parts = len(items), min(len(items), parts)
    return [list(items[k * total // parts : (k + 1) * total // parts]) for k in range(parts)]


def _fill(conn: Connection, grid: Grid, cells: Select[Any], by: Statistic) -> None:
    for row, column, low, high, nonfinite in conn.execute(cells):
        grid.low[row][column] = finish(by, low)
        grid.high[row][column] = finish(by, high)
        if nonfinite:
            grid.nonfinite.append(Marked(row, column, int(nonfinite)))


def _cells(
    conn: Connection,
    run_no: int,
    attempt: int,
    statistic: Statistic,
    rows: Sequence[Sequence[TensorName]],
    columns: Sequence[Sequence[int]],
) -> Select[Any]:
    """One row a cell: row, column, lowest, highest, non-finite elements."""
    dialect = conn.dialect.name
    by_tensor = _bins({t.tensor_no: k for k, group in enumerate(rows) for t in group}, "by_tensor", dialect)
    by_step = _bins({step: k for k, group in enumerate(columns) for step in group}, "by_step", dialect)
    value = expression_of(statistic)
    # The sum keeps SQLite from jumping from tensor to tensor: along the steps the rows lie side by side.
    tensor_no = _ROW.tensor_no if dialect == "postgresql" else _ROW.tensor_no + 0
    records = by_tensor.join(TensorStatsRow.__table__, by_tensor.c.key == tensor_no)
    return (
        select(
            by_tensor.c.bin,
            by_step.c.bin,
            func.min(value),
            func.max(value),
            func.sum(NONFINITE),
        )
        .select_from(records.join(by_step, by_step.c.key == _ROW.step))
        .where(_ROW.run_no == run_no, _ROW.attempt == attempt)
        .group_by(by_tensor.c.bin, by_step.c.bin)
    )


def _bins(bins: dict[int, int], name: str, dialect: str) -> CTE:
    """A relation (key, bin) out of one JSON parameter: thousands of bound values would cost more than the query."""
    text = json.dumps(bins)
    if dialect == "postgresql":
        pairs = func.json_each_text(cast(literal(text), JSON)).table_valued("key", "value", name=f"{name}_pairs")
    else:
        pairs = func.json_each(literal(text)).table_valued("key", "value", name=f"{name}_pairs")
    key, value = cast(pairs.c.key, BigInteger), cast(pairs.c.value, BigInteger)
    return select(key.label("key"), value.label("bin")).cte(name).prefix_with("MATERIALIZED")
