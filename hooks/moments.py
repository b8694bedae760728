"""Moments that merge exactly over calls, micro-batches, shards and ranks.

Merge formulas: Chan, Golub and LeVeque (1979) for the second central moment, Pébay (2008) for the third and fourth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

ABSENT = math.nan
"""A moment that does not exist, because no element was finite. Never an element's value: those are finite."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of a set of numbers.

    `count` is the number of all elements, non-finite ones included; `mean`, `m2`, `m3`, `m4` (sums of powers of the
    deviation from the mean), `min` and `max` are over the finite elements and `ABSENT` when there is none.
    """

    count: int = 0
    nan_count: int = 0
    posinf_count: int = 0
    neginf_count: int = 0
    zero_count: int = 0
    mean: float = ABSENT
    m2: float = ABSENT
    m3: float = ABSENT
    m4: float = ABSENT
    min: float = ABSENT
    max: float = ABSENT

    @property
    def nonfinite_count(self) -> int:
        """NaN and infinite elements."""
        return self.nan_count + self.posinf_count + self.neginf_count

    @property
    def finite_count(self) -> int:
        """Elements that the moments are over."""
        return self.count - self.nonfinite_count

    @property
    def mean_square(self) -> float:
        """Mean of x² over the finite elements, exactly mean² + m2/n."""
        n = self.finite_count
        return self.mean * self.mean + self.m2 / n if n else ABSENT

    @property
    def rms(self) -> float:
        """Root of the mean square."""
        return math.sqrt(self.mean_square)

    @property
    def std(self) -> float:
        """Population standard deviation."""
        n = self.finite_count
        return math.sqrt(self.m2 / n) if n else ABSENT

    @property
    def norm(self) -> float:
        """Euclidean norm of the finite elements."""
        n = self.finite_count
        return math.sqrt(n) * self.rms if n else ABSENT

    @property
    def abs_max(self) -> float:
        """Largest absolute value of the finite elements."""
        return max(abs(self.min), abs(self.max)) if self.finite_count else ABSENT

    @property
    def zero_fraction(self) -> float:
        """Zeros among all elements."""
        return self.zero_count / self.count if self.count else ABSENT

    @property
    def skewness(self) -> float:
        """m3/n ÷ std³; 0 for a constant."""
        return self._standardized(self.m3, 3)

    @property
    def kurtosis(self) -> float:
        """m4/n ÷ std⁴ (3 for a normal distribution); 0 for a constant."""
        return self._standardized(self.m4, 4)

    def _standardized(self, power_sum: float, power: int) -> float:
        n = self.finite_count
        if not n:
            return ABSENT
        std = self.std
        if std == 0.0:
            return 0.0
        # Divide step by step: std**4 underflows for gradients that are still well inside float64.
        value = power_sum / n
        for _ in range(power):
            value /= std
        return value

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets together; exact up to float64 rounding, in any order."""
        return Moments(
            self.count + other.count,
            self.nan_count + other.nan_count,
            self.posinf_count + other.posinf_count,
            self.neginf_count + other.neginf_count,
            self.zero_count + other.zero_count,
            *_merge_finite(self, other),
        )


def _merge_finite(a: Moments, b: Moments) -> tuple[float, float, float, float, float, float]:
    na, nb = a.finite_count, b.finite_count
    if not nb:
        return a.mean, a.m2, a.m3, a.m4, a.min, a.max
    if not na:
        return b.mean, b.m2, b.m3, b.m4, b.min, b.max
    n = na + nb
    d = b.mean - a.mean
    d2 = d * d
    m2 = a.m2 + b.m2 + d2 * na * nb / n
    m3 = a.m3 + b.m3 + d * d2 * na * nb * (na - nb) / n / n + 3.0 * d * (na * b.m2 - nb * a.m2) / n
    m4 = (
        a.m4
        + b.m4
        + d2 * d2 * na * nb * (na * na - na * nb + nb * nb) / n / n / n
        + 6.0 * d2 * (na * na * b.m2 + nb * nb * a.m2) / n / n
        + 4.0 * d * (na * b.m3 - nb * a.m3) / n
    )
    return a.mean + d * nb / n, m2, m3, m4, min(a.min, b.min), max(a.max, b.max)


def merge_all(parts: Iterable[Moments]) -> Moments:
    """Moments of all parts together; `Moments()` for none."""
    return reduce(Moments.merge, parts, Moments())


def from_standardized(
    *,
    count: int,
    nan_count: int,
    posinf_count: int,
    neginf_count: int,
    zero_count: int,
    mean: float,
    std: float,
    skewness: float,
    kurtosis: float,
    min: float,
    max: float,
) -> Moments:
    """The inverse of the standardized form that travels (`std`, `skewness`, `kurtosis` instead of m2, m3, m4).

    The standardized form keeps float32 on the wire honest: m4 of a gradient of rms 1e-12 is 1e-48 and would arrive as
    zero, while its kurtosis is 3.
    """
    n = count - nan_count - posinf_count - neginf_count
    return Moments(
        count,
        nan_count,
        posinf_count,
        neginf_count,
        zero_count,
        mean,
        n * std * std,
        n * skewness * std * std * std,
        n * kurtosis * std * std * std * std,
        min,
        max,
    )


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """What a layer's units do over a batch; every field `ABSENT` where it does not apply.

    `signal_fraction`: mean over channels of the variance across samples ÷ mean square, of activations averaged over
    positions; 0 means that the output does not depend on the input. `dead_fraction`: channels never above zero over
    the batches so far. `saturated_fraction`: elements in the flat part of a tanh or sigmoid. `row_similarity`: largest
    |cosine| among at most 64 evenly spaced rows of a weight.
    """

    signal_fraction: float = ABSENT
    dead_fraction: float = ABSENT
    saturated_fraction: float = ABSENT
    row_similarity: float = ABSENT

    def merge(self, other: ChannelStats, weight: int, other_weight: int) -> ChannelStats:
        """Across ranks: count-weighted means, approximate; dead channels take the minimum, similarity the maximum."""
        return ChannelStats(
            _weighted(self.signal_fraction, other.signal_fraction, weight, other_weight),
            _pick(self.dead_fraction, other.dead_fraction, min),
            _weighted(self.saturated_fraction, other.saturated_fraction, weight, other_weight),
            _pick(self.row_similarity, other.row_similarity, max),
        )


def _weighted(a: float, b: float, weight_a: int, weight_b: int) -> float:
    if math.isnan(a) or math.isnan(b) or weight_a + weight_b == 0:
        return b if math.isnan(a) else a
    return (a * weight_a + b * weight_b) / (weight_a + weight_b)


def _pick(a: float, b: float, choose: Callable[[float, float], float]) -> float:
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return choose(a, b)


@dataclass(frozen=True, slots=True)
class TensorStats:
    """Everything recorded of one tensor at one step: a record."""

    moments: Moments
    channels: ChannelStats = ChannelStats()

    def merge(self, other: TensorStats) -> TensorStats:
        """The record of both parts together (exact for moments, approximate for channels)."""
        channels = self.channels.merge(other.channels, self.moments.count, other.moments.count)
        return TensorStats(self.moments.merge(other.moments), channels)
