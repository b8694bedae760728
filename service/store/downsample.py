"""Thinning a curve for a screen without hiding what matters: extremes, the ends, and non-finite values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MIN_POINTS = 8


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of a curve in step order. `nonfinite[i]` counts everything since the point before; None is absent."""

    steps: list[int]
    values: list[float | None]
    nonfinite: list[int]
    total_points: int
    """Points before thinning."""


def thin(steps: Sequence[int], values: Sequence[float | None], nonfinite: Sequence[int], max_points: int) -> Curve:
    """At most `max_points` (at least 8) points.

    Kept are the first and the last point, and of each bucket of neighbours the smallest, the largest, the last and
    the first with anything non-finite. Counts of left-out points are added to the next kept one, so their sum stays.
    """
    total = len(steps)
    budget = max(max_points, MIN_POINTS)
    kept = list(range(total)) if total <= budget else _keep(values, nonfinite, budget)
    return Curve(
        [steps[i] for i in kept],
        [values[i] for i in kept],
        [sum(nonfinite[before + 1 : i + 1]) for before, i in zip([-1, *kept], kept, strict=False)],
        total,
    )


def _keep(values: Sequence[float | None], nonfinite: Sequence[int], budget: int) -> list[int]:
    total = len(values)
    buckets = (budget - 1) // 4
    kept = {0}
    for k in range(buckets):
        kept.update(_pick(range(k * total // buckets, (k + 1) * total // buckets), values, nonfinite))
    return sorted(kept)


def _pick(bucket: range, values: Sequence[float | None], nonfinite: Sequence[int]) -> Iterator[int]:
    yield bucket[-1]
    present = [(value, i) for i in bucket if (value := values[i]) is not None]
    if present:
        yield min(present)[1]
        yield max(present)[1]
    first = next((i for i in bucket if nonfinite[i]), None)
    if first is not None:
        yield first
