"""Statistics by name, derived from stored moments exactly as `initscope.hooks.moments` defines them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

from initscope.hooks.moments import ABSENT, ChannelStats, Moments, TensorStats
from initscope.hooks.vocabulary import Statistic
from initscope.service.store.models import TensorStatsRow

_ROW = TensorStatsRow.__table__.c

MOMENT_COLUMNS = (
    _ROW.count, _ROW.nan_count, _ROW.posinf_count, _ROW.neginf_count, _ROW.zero_count,
    _ROW.mean, _ROW.m2, _ROW.m3, _ROW.m4, _ROW.min, _ROW.max,
    _ROW.signal_fraction, _ROW.dead_fraction, _ROW.saturated_fraction, _ROW.row_similarity,
)  # fmt: skip
"""Columns of a record in the order that `stats_of` takes them."""

ALL: Final = tuple(Statistic)
_CHANNELS: Final = frozenset(
    {
        Statistic.SIGNAL_FRACTION,
        Statistic.DEAD_FRACTION,
        Statistic.SATURATED_FRACTION,
        Statistic.ROW_SIMILARITY,
    }
)


def stats_of(values: Sequence[Any]) -> TensorStats:
    """A record from the values of `MOMENT_COLUMNS`; NULL is `ABSENT`."""
    # A thousand records are read for every new step: what most of them share is made once.
    finite, units = values[5:11], values[11:15]
    channels = _NO_CHANNELS if units == _NOTHING else ChannelStats(*_with_absent(units))
    return TensorStats(Moments(*values[:5], *(_with_absent(finite) if None in finite else finite)), channels)


def _with_absent(values: Sequence[Any]) -> list[Any]:
    return [ABSENT if value is None else value for value in values]


_NOTHING: Final = (None,) * 4
_NO_CHANNELS: Final = ChannelStats()


_GETTERS: Final = {s: attrgetter(f"channels.{s}" if s in _CHANNELS else f"moments.{s}") for s in Statistic}


def value_of(stats: TensorStats, statistic: Statistic) -> float | None:
    """One statistic of a record; None if it does not exist (no finite element, or not measured for this tensor)."""
    value: float = _GETTERS[statistic](stats)
    # Moments are over the finite elements only: a NaN in them can only mean that there were none.
    return value if value == value else None


def values_of(stats: TensorStats, wanted: Sequence[Statistic] = ALL) -> dict[str, float | None]:
    """Statistics of a record by name, as `value_of` gives them."""
    return {statistic.value: value_of(stats, statistic) for statistic in wanted}
