"""The family of one weight: which distribution or structure its moments and traits belong to.

The constants of distributions are those of 1, x², x⁴ integrated over them: kurtosis, n times the variance of its
estimate, and the largest |x| in units of the std. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from initscope.hooks.moments import Moments
from initscope.hooks.schemes.scheme import Family
from initscope.hooks.wire import Traits


@dataclass(frozen=True, slots=True)
class Distribution:
    """A symmetric distribution with mean 0; `bound` in units of its std, None for none."""

    family: Family
    kurtosis: float
    kurtosis_variance: float
    """n times the variance of the kurtosis of n draws."""
    bound: float | None = None
    cut: float | None = None
    """Where a truncated normal is cut, in units of the normal's own std."""
    shrink: float = 1.0
    """Std of the truncated normal in units of the normal's own."""
    prior: float = 1.0

    @property
    def std_error(self) -> float:
        """√n times the relative standard error of a std of n draws."""
        return math.sqrt((self.kurtosis - 1.0) / 4.0)


NORMAL: Final = Distribution(Family.NORMAL, 3.0, 24.0)
UNIFORM: Final = Distribution(Family.UNIFORM, 1.8, 1.317, bound=math.sqrt(3.0))
TRUNCATED: Final = Distribution(Family.TRUNCATED_NORMAL, 2.3655, 3.848, 2.2737, 2.0, 0.879626, 0.3)
_CONTINUOUS: Final = (
    NORMAL,
    UNIFORM,
    TRUNCATED,
    Distribution(Family.TRUNCATED_NORMAL, 2.8289, 10.63, 3.0408, 3.0, 0.986578, 0.05),
    Distribution(Family.TRUNCATED_NORMAL, 1.9409, 2.0, 1.8534, 1.0, 0.539560, 0.02),
)
_RANGE: Final = (1e-30, 1e30)
"""Largest element of a weight: fourth powers stay inside float64."""
_EXACT: Final = 1e-4
"""Relative room for float32 and for storage in half precision, where elements should be equal."""
_ORTHOGONAL_COSINE: Final = 0.2
_ORTHOGONAL_SPREAD: Final = 1e-2
_SPARSE: Final = 0.01
"""Zeros that no continuous draw has."""
_PADDING: Final = 0.1
"""Zeros of a table that are rows of padding."""
_OUTLIER: Final = 8.0
"""Largest |x|/std that no draw of a tensor that fits into memory reaches."""
_DEVIATIONS: Final = 5.0
_RIVAL: Final = 8.0
"""Log likelihood that a distribution may lack and still be the one that most of the model was drawn from."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A family with what fits: the distribution, the moments without structural zeros, how sure it is."""

    family: Family
    moments: Moments
    distribution: Distribution = NORMAL
    confidence: float = 1.0
    rivals: tuple[tuple[Distribution, float], ...] = ()
    """Distributions that are possible too, with their log likelihood in units of the chosen one's."""

    def as_drawn_by(self, distribution: Distribution) -> Shape:
        """The same weight, taken for a draw from one of its rivals."""
        return Shape(distribution.family, self.moments, distribution, self.confidence)


def family_of(m: Moments, traits: Traits | None, *, is_table: bool = False) -> Shape:
    """The family of a weight with two or more axes, from moments over all of its elements.

    Structure first (zero, constant, identity, two-valued, orthogonal, sparse), then the distribution that kurtosis and
    largest element are most likely under. `UNKNOWN` where none is within five standard errors. Rows of zeros in a
    table (padding) do not count.
    """
    if m.nonfinite_count or not m.finite_count:
        return Shape(Family.UNKNOWN, m, confidence=0.0)
    if m.zero_count == m.count:
        return Shape(Family.ZERO, m)
    if m.min == m.max:
        return Shape(Family.CONSTANT, m)
    if not _is_possible(m):
        return Shape(Family.UNKNOWN, m, confidence=0.0)
    if _is_two_valued(m):
        return Shape(Family.IDENTITY if _is_identity(m) else Family.TWO_VALUED, m)
    if is_outlying(m):
        return Shape(Family.BROKEN_TRUNCATION, m)
    if traits is not None and is_orthogonal(traits):
        return Shape(Family.ORTHOGONAL, m)
    if m.zero_fraction > _SPARSE:
        shape = _continuous(nonzero(m))
        is_sparse = shape.family is not Family.UNKNOWN and not (is_table and m.zero_fraction <= _PADDING)
        return Shape(Family.SPARSE, shape.moments, shape.distribution, shape.confidence) if is_sparse else shape
    return _continuous(nonzero(m) if is_table else m)


def _is_possible(m: Moments) -> bool:
    """Whether numbers of a size that weights have can have these moments: another client may send what it likes."""
    room = 1.0 + _EXACT
    is_weight = _RANGE[0] < m.abs_max < _RANGE[1] and 0.0 < m.std < math.inf
    return (
        is_weight
        and m.min <= m.mean <= m.max
        and m.mean_square <= room * m.abs_max * m.abs_max
        and m.m2 * m.m2 <= room * m.finite_count * m.m4
        and m.m4 <= room * m.finite_count * (m.max - m.min) ** 4
        and abs(m.m3) <= room * m.finite_count * (m.max - m.min) ** 3
    )


def nonzero(m: Moments) -> Moments:
    """Moments of the elements that are not zero; those of a tensor without zeros as they are."""
    n, k = m.finite_count, m.finite_count - m.zero_count
    if k == n or k < 2:
        return m
    mean = m.mean
    second = m.mean_square * n
    third = m.m3 + 3.0 * mean * m.m2 + n * mean**3
    fourth = m.m4 + 4.0 * mean * m.m3 + 6.0 * mean * mean * m.m2 + n * mean**4
    c = mean * n / k
    m2 = max(0.0, second - k * c * c)  # rounding: nearly all of it may be the mean
    m3 = third - 3.0 * c * second + 2.0 * k * c**3
    m4 = max(0.0, fourth - 4.0 * c * third + 6.0 * c * c * second - 3.0 * k * c**4)
    return Moments(k, mean=c, m2=m2, m3=m3, m4=m4, min=m.min, max=m.max)


def _is_two_valued(m: Moments) -> bool:
    """Whether all elements that are not zero have one absolute value: Σx² = k·max²."""
    k = m.finite_count - m.zero_count
    largest = m.abs_max
    return abs(m.mean_square * m.finite_count - k * largest * largest) < 10 * _EXACT * k * largest * largest


def _is_identity(m: Moments) -> bool:
    """Few elements of one value and sign, all others zero: at most one in eight, as in eye_ and dirac_ of size 8."""
    k = m.finite_count - m.zero_count
    one_sign = abs(abs(m.mean) * m.finite_count - k * m.abs_max) < 10 * _EXACT * k * m.abs_max
    return one_sign and m.zero_count > 0 and 2 * k <= m.finite_count


def is_outlying(m: Moments) -> bool:
    """Whether a few elements sit exactly at one bound and make nearly all of the fourth moment.

    With k₊ and k₋ elements at ±a, m4 ≈ (k₊ + k₋)·a⁴ and m3 ≈ (k₊ − k₋)·a³: one-sided they agree, and few of them are
    whole numbers, once what the normal rest adds is taken off. The heavy tail of a trained weight is neither.
    """
    if not (m.kurtosis > 10.0 and m.abs_max > _OUTLIER * m.std > 0.0):
        return False
    a = m.abs_max
    fourth, third = m.m4 / a**4, m.m3 / a**3
    fourth -= _fourth_of_rest(m, fourth)
    if fourth > 2.0 and abs(abs(third) / fourth - 1.0) < 0.02:
        return True
    is_whole = abs(fourth - round(fourth)) < 0.02 and abs(third - round(third)) < 0.02
    return is_whole and (round(fourth) > 1 or math.isclose(a, round(a), rel_tol=1e-6))


def _fourth_of_rest(m: Moments, outliers: float) -> float:
    """Σx⁴ ÷ max⁴ of the elements without so many outliers at the largest, as of a normal draw: 3·n·σ⁴."""
    rest = m.finite_count - outliers
    variance = max(0.0, m.m2 / m.abs_max**2 - outliers) / rest if rest > 0.0 else 0.0
    return 3.0 * rest * variance**2


def is_orthogonal(traits: Traits) -> bool:
    """Whether the rows, or the columns, of the matrix are orthogonal and equally long."""
    pairs = ((traits.row_cosine, traits.row_spread), (traits.column_cosine, traits.column_spread))
    return any(
        cosine is not None and spread is not None and cosine < _ORTHOGONAL_COSINE and spread < _ORTHOGONAL_SPREAD
        for cosine, spread in pairs
    )


def _continuous(m: Moments) -> Shape:
    n, std = m.finite_count, m.std
    if n < 2 or not std > 0.0:
        return Shape(Family.UNKNOWN, m, confidence=0.0)
    # Half of the range says more of a bound than the largest |x - mean|, which has the mean's error in it.
    extent = max(m.max - m.mean, m.mean - m.min) / std, 0.5 * (m.max - m.min) / std
    reach = {d: extent[d.bound is not None] for d in _CONTINUOUS}
    scored = [(math.log(d.prior) + _likelihood(d, n, m.kurtosis, reach[d]), d) for d in _CONTINUOUS]
    top, best = max(scored, key=lambda pair: pair[0])
    deviation = (m.kurtosis - best.kurtosis) / math.sqrt(best.kurtosis_variance / n)
    # The kurtosis of few draws has a long tail upwards; 0.02: rounding in half precision.
    room = _DEVIATIONS * (1.0 + 10.0 / math.sqrt(n)) + 0.02 / math.sqrt(best.kurtosis_variance / n)
    if abs(deviation) > room or not _is_inside(best, n, reach[best]):
        return Shape(Family.UNKNOWN, m, best, 0.0)
    others = sum(math.exp(score - top) for score, d in scored if d.family is not best.family)
    bare = top - math.log(best.prior)
    rivals = tuple((d, score - math.log(d.prior) - bare) for score, d in scored if score > top - _RIVAL)
    return Shape(best.family, m, best, 1.0 / (1.0 + others), rivals)


def _is_inside(d: Distribution, n: int, largest: float) -> bool:
    if d.bound is not None:
        return largest <= d.bound * (1.0 + _DEVIATIONS * d.std_error / math.sqrt(n)) + 0.02
    # Of n normal draws one is beyond this only in one tensor of e¹⁵.
    return largest <= math.sqrt(2.0 * math.log(2.0 * n) + 30.0)


def _likelihood(d: Distribution, n: int, kurtosis: float, largest: float) -> float:
    """Log density of the kurtosis and of the largest |x|/std of n draws, taken as independent."""
    spread = math.sqrt(d.kurtosis_variance / n) + 0.002
    fits = -0.5 * ((kurtosis - d.kurtosis) / spread) ** 2 - math.log(spread)
    return max(fits, -200.0) + max(_largest(d, n, largest), -200.0)


def _largest(d: Distribution, n: int, largest: float) -> float:
    if d.bound is None:
        inside = math.erf(largest / math.sqrt(2.0))
        if inside <= 0.0:
            return -math.inf
        density = math.sqrt(2.0 / math.pi) * math.exp(-0.5 * largest * largest)
        return math.log(n) + math.log(max(density, 1e-300)) + (n - 1) * math.log(inside)
    # The std is known to its standard error only, and the largest draw stays short of the bound by this gap.
    edge = 1.0 / d.bound if d.cut is None else _edge(d.cut, d.shrink)
    gap = 1.0 / (n * edge * d.bound)
    error = math.hypot(d.std_error / math.sqrt(n), gap) + 0.001
    deviation = (largest / d.bound - 1.0 + gap) / error
    return -0.5 * deviation * deviation - math.log(error * d.bound)


def _edge(cut: float, shrink: float) -> float:
    """Density of |x|/std at the bound of a truncated normal."""
    return math.sqrt(2.0 / math.pi) * math.exp(-0.5 * cut * cut) * shrink / math.erf(cut / math.sqrt(2.0))
