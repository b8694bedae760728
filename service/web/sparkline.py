"""A loss curve as points of a small SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 96, 24
_MARGIN = 2.0


def is_finite(value: float) -> bool:
    """Whether a loss can be drawn."""
    return math.isfinite(value)


def points(steps: Sequence[int], values: Sequence[float]) -> str:
    """`points` of a polyline in a box of 96 × 24, larger values higher; ends before the first non-finite value."""
    pairs = []
    for step, value in zip(steps, values, strict=True):
        if not math.isfinite(value):
            break
        pairs.append((step, value))
    if len(pairs) < 2:
        return ""
    low, high = min(value for _, value in pairs), max(value for _, value in pairs)
    first, last = pairs[0][0], pairs[-1][0]
    across = (WIDTH - 2 * _MARGIN) / max(last - first, 1)
    up = (HEIGHT - 2 * _MARGIN) / (high - low) if high > low else 0.0
    return " ".join(
        f"{_MARGIN + (step - first) * across:.1f},{HEIGHT - _MARGIN - (value - low) * up:.1f}" for step, value in pairs
    )
