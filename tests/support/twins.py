"""Slow and obvious twins of moments, in exact rational arithmetic. Twice the work, none of the code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from initscope.hooks.moments import ABSENT, Moments


def moments_of(values: Sequence[float]) -> Moments:
    """Moments of `values` by their definitions, rounded to float64 once, at the end."""
    finite = [Fraction(x) for x in values if math.isfinite(x)]
    mean = sum(finite, Fraction()) / len(finite) if finite else Fraction()

    def power_sum(power: int) -> float:
        return float(sum(((x - mean) ** power for x in finite), Fraction())) if finite else ABSENT

    return Moments(
        count=len(values),
        nan_count=sum(math.isnan(x) for x in values),
        posinf_count=sum(x == math.inf for x in values),
        neginf_count=sum(x == -math.inf for x in values),
        zero_count=sum(x == 0 for x in values),
        mean=float(mean) if finite else ABSENT,
        m2=power_sum(2),
        m3=power_sum(3),
        m4=power_sum(4),
        min=float(min(finite)) if finite else ABSENT,
        max=float(max(finite)) if finite else ABSENT,
    )
