"""Statistics as SQL over `tensor_stats`, for aggregates that would be slow row by row.

The expressions need no square root (not every SQLite has one): where a statistic is a root, the expression is its
square, which has the same order, and `finish` draws the root of the one value that was wanted.
"""

from __future__ import annotations

import math
from typing import Any, Final

from sqlalchemy import ColumnElement, Double, case, cast, func

from initscope.hooks.vocabulary import Statistic
from initscope.service.store.models import TensorStatsRow

_ROW = TensorStatsRow.__table__.c

NONFINITE: Final[ColumnElement[int]] = _ROW.nan_count + _ROW.posinf_count + _ROW.neginf_count
# Cast by hand: SQLAlchemy divides by an integer as NUMERIC, which is slow and rounds.
_FINITE = cast(func.nullif(_ROW.count - NONFINITE, 0), Double)
_VARIANCE = _ROW.m2 / _FINITE
_MEAN_SQUARE = _ROW.mean * _ROW.mean + _VARIANCE
# Divided step by step: m2 * m2 * m2 leaves the range of a double long before the quotient does.
_SKEWNESS_SIGNED_SQUARE = (_ROW.m3 / _ROW.m2) * (func.abs(_ROW.m3) / _ROW.m2) / _ROW.m2 * _FINITE

_EXPRESSIONS: Final[dict[Statistic, ColumnElement[Any]]] = {
    Statistic.NONFINITE_COUNT: NONFINITE,
    Statistic.ZERO_FRACTION: _ROW.zero_count / cast(func.nullif(_ROW.count, 0), Double),
    Statistic.STD: _VARIANCE,
    Statistic.RMS: _MEAN_SQUARE,
    Statistic.NORM: _MEAN_SQUARE * _FINITE,
    Statistic.ABS_MAX: case((-_ROW.min > _ROW.max, -_ROW.min), else_=_ROW.max),
    Statistic.SKEWNESS: case((_ROW.m2 == 0.0, 0.0), else_=_SKEWNESS_SIGNED_SQUARE),
    Statistic.KURTOSIS: case((_ROW.m2 == 0.0, 0.0), else_=_ROW.m4 / _ROW.m2 / _ROW.m2 * _FINITE),
}
_ROOTS: Final = frozenset({Statistic.STD, Statistic.RMS, Statistic.NORM, Statistic.SKEWNESS})


def expression_of(statistic: Statistic) -> ColumnElement[Any]:
    """SQL whose order is that of the statistic; NULL where it does not exist."""
    found = _EXPRESSIONS.get(statistic)
    return TensorStatsRow.__table__.c[statistic.value] if found is None else found


def finish(statistic: Statistic, value: float | None) -> float | None:
    """The statistic from the expression's value."""
    if value is None or math.isnan(value):
        return None
    return math.copysign(math.sqrt(abs(value)), value) if statistic in _ROOTS else float(value)
