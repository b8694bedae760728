"""Fresh or trained: what training leaves in a weight that no draw has. Pure.

The evidence is summed as log odds. What decides, from the strongest: draws of a bounded family never pass their bound,
orthogonal ones are so to the last digit, independent elements have no singular value beyond the Marchenko-Pastur edge
(√rows + √columns)·σ, their row and column norms differ by chance alone, their kurtosis is their family's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.moments import Moments, TensorStats
from initscope.hooks.schemes.family import Shape
from initscope.hooks.schemes.fit import std_error
from initscope.hooks.schemes.formulas import FIXED
from initscope.hooks.schemes.scheme import Family, Scheme
from initscope.hooks.vocabulary import Kind, Role
from initscope.hooks.wire import TensorInfo, Traits

_EDGE: Final = 1.15
"""Largest spectral ratio of a draw: 1.08 in 2,000 draws of 13 shapes; less for larger matrices."""
_CENTRED: Final = 5.0
"""Standard errors that the mean of a draw is off."""
_SHIFTED: Final = 0.3
"""|mean|/std from which a mean is no drift of training but a mistake or a choice."""
_UNEVEN: Final = 1.5
_UNEVEN_ERRORS: Final = 6.0
"""Row norms that spread more than by chance: as a ratio, and in standard errors of that ratio."""
_VECTORS: Final = 64
"""Rows that cosines are taken among, as in `Traits`."""
_CORRELATED: Final = 6.0
_STRUCTURES: Final = frozenset({
    Family.ZERO, Family.CONSTANT, Family.IDENTITY, Family.TWO_VALUED, Family.SPARSE, Family.BROKEN_TRUNCATION,
})  # fmt: skip
_DUPLICATES: Final = 0.9999
_HALF_TYPES: Final = frozenset({"bfloat16", "float16"})
_STRUCTURED: Final = -8.0
_STRONG: Final = 6.0
_SMALL: Final = 8
"""Elements from which a bias says something."""
_FEW: Final = 3
_NEGLIGIBLE: Final = 1e-4
_LARGE: Final = 0.5
"""Std of biases between which training is what has made them."""
_BIASES: Final = 4.0
_AROUND: Final = 4.0
"""The most that vectors say of a matrix: a head may be fresh where all else is trained."""
_GAINS: Final = 3.0
"""What norm gains that differ, or that are all equal, say of the matrices around them."""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What the vectors of a model say of its matrices, as log odds of being trained."""

    gains: float = 0.0
    biases: float = 0.0
    untouched: frozenset[str] = frozenset()
    """Modules whose own bias is constant, or PyTorch's default: what the others' biases say is not said of them."""


def neighbourhood(tensors: Mapping[int, TensorInfo], stats: Mapping[int, TensorStats]) -> Neighbourhood:
    """Reads norm gains and biases: equal, or drawn by one rule, in every fresh model; different after training."""
    vectors = [
        (t, s.moments)
        for t in tensors.values()
        if t.kind is Kind.WEIGHT and t.role in (Role.NORM_GAIN, Role.BIAS)
        if (s := stats.get(t.key)) is not None and s.moments.finite_count > 1
    ]
    gains = [m.std > 1e-3 * abs(m.mean) for t, m in vectors if t.role is Role.NORM_GAIN]
    share = sum(gains) / len(gains) if gains else 0.5
    from_gains = _GAINS if share > 0.5 else -_GAINS if share == 0.0 else 0.0
    inputs = {t.module_path: t.fan_in for t in tensors.values() if t.kind is Kind.WEIGHT and (t.fan_in or 0) > 0}
    known = [(t, m) for t, m in vectors if t.role is Role.BIAS and m.finite_count >= _SMALL]
    biases = [(m, inputs.get(t.module_path)) for t, m in known]
    untouched = frozenset(t.module_path for (t, _), (m, fan) in zip(known, biases, strict=True) if _is_made(m, fan))
    return Neighbourhood(from_gains, _BIASES if _are_trained(biases) else 0.0, untouched)


def _are_trained(biases: Sequence[tuple[Moments, float | None]]) -> bool:
    """Whether most biases spread by no rule: not constant, not PyTorch's ±1/√fan_in, not one usual std of all."""
    free = [m for m, fan in biases if not _is_made(m, fan)]
    if len(biases) < _FEW or 2 * len(free) <= len(biases):
        return False
    # Training moves biases by a fraction; a bias of 5 is somebody's choice, and so is one std for all.
    total = sum(m.finite_count for m in free)
    pooled = math.sqrt(sum(m.finite_count * m.std**2 for m in free) / total)
    is_one = all(abs(math.log(m.std / pooled)) < 3.0 * math.sqrt(0.5 / m.finite_count) for m in free)
    room = 2.0 * math.sqrt(0.5 / total)
    return pooled < _LARGE and not (is_one and any(abs(math.log(pooled / std)) < room for std in FIXED))


def _is_made(m: Moments, fan_in: float | None) -> bool:
    """Whether a bias is as a constructor leaves it: constant, or PyTorch's draw."""
    return m.std <= _NEGLIGIBLE or _is_default(m, fan_in)


def _is_default(m: Moments, fan_in: float | None) -> bool:
    if not fan_in:
        return False
    error = 0.45 / math.sqrt(m.finite_count)
    bound = 1.0 / math.sqrt(fan_in)
    return m.abs_max <= 1.001 * bound and abs(m.std * math.sqrt(3.0) / bound - 1.0) < 5.0 * error


def trained_probability(
    info: TensorInfo, stats: TensorStats, shape: Shape, scheme: Scheme | None, around: Neighbourhood
) -> float:
    """Probability that a matrix was trained before; `scheme` is its scheme where it was drawn."""
    if shape.family in _STRUCTURES or stats.channels.row_similarity >= _DUPLICATES:
        return _sigmoid(_STRUCTURED)
    if shape.moments.nonfinite_count or shape.moments.finite_count < 2:
        return 0.5
    biases = 0.0 if info.module_path in around.untouched else around.biases
    odds = _marks(info, shape, scheme) + min(_AROUND, around.gains + biases)
    return _sigmoid(max(-12.0, min(12.0, odds - 1.0)))


def _marks(info: TensorInfo, shape: Shape, scheme: Scheme | None) -> float:
    m, traits = shape.moments, info.traits
    if shape.family is Family.ORTHOGONAL:
        return _STRUCTURED if traits is None or _is_exact(info, traits) else _STRONG
    shift = abs(m.mean) / m.std if m.std > 0.0 else 0.0
    is_shifted = shift > _SHIFTED
    odds = 0.0
    if traits is not None:
        odds += _spectral(info, traits, m if is_shifted else None)
        odds += 0.0 if is_shifted else _unevenness(info, traits, shape) + _correlation(info, traits)
    if not is_shifted and shift * math.sqrt(m.finite_count) > _CENTRED:
        odds += 5.0
    odds += _distribution(shape)
    if scheme is not None and scheme.expected_std is not None:
        odds += _scale(info, shape, scheme)
    return odds


def _is_exact(info: TensorInfo, traits: Traits) -> bool:
    room = 0.05 if info.dtype in _HALF_TYPES else 2e-3
    pairs = ((traits.row_cosine, traits.row_spread), (traits.column_cosine, traits.column_spread))
    return any(c is not None and s is not None and c < room and s < room for c, s in pairs)


def _spectral(info: TensorInfo, traits: Traits, shifted: Moments | None) -> float:
    ratio = traits.spectral_ratio
    if ratio is None:
        return 0.0
    edge = _EDGE
    if shifted is not None:
        # A mean alone makes a singular value of |mean|·√(rows·columns).
        rows, columns = min(256, info.shape[0]), min(512, math.prod(info.shape[1:]))
        size = math.sqrt(rows * columns) / (math.sqrt(rows) + math.sqrt(columns))
        edge *= max(1.0, math.hypot(1.0, size * abs(shifted.mean) / shifted.rms))
    return 0.0 if ratio <= edge else min(2 * _STRONG, 3.0 + 30.0 * (ratio / edge - 1.0))


def _unevenness(info: TensorInfo, traits: Traits, shape: Shape) -> float:
    """Norms of rows and of columns against what independent elements give: CV √((κ - 1)/(4·length)), √(2·number)."""
    rows, columns = info.shape[0], math.prod(info.shape[1:])
    spread = (max(1.2, shape.moments.kurtosis) - 1.0) / 4.0
    odds = 0.0
    for found, number, length in ((traits.row_spread, rows, columns), (traits.column_spread, columns, rows)):
        if found is None or number < 8:
            continue
        padding = 1.0 / number if info.role is Role.EMBEDDING else 0.0
        ratio = found / math.sqrt(spread / length + padding)
        if ratio > _UNEVEN and (ratio - 1.0) * math.sqrt(2.0 * number) > _UNEVEN_ERRORS:
            odds += 2.5
    return odds


def _correlation(info: TensorInfo, traits: Traits) -> float:
    """Cosines of rows, and of columns, that are larger or smaller than those of independent ones: 1 ± 1/√(2·pairs).

    Smaller ones are what is left of an orthogonal start.
    """
    odds = 0.0
    for found, number in ((traits.row_cosine, info.shape[0]), (traits.column_cosine, math.prod(info.shape[1:]))):
        vectors = min(_VECTORS, number)
        if found is None or vectors < 8:
            continue
        deviations = (found - 1.0) * math.sqrt(vectors * (vectors - 1.0))
        odds += _STRONG if deviations < -_CORRELATED else 3.0 if deviations > _CORRELATED else 0.0
    return odds


def _distribution(shape: Shape) -> float:
    """Whether the elements are distributed as a draw's; many of them say more."""
    weight = min(1.0, shape.moments.finite_count / 2000.0)
    if shape.family is Family.UNKNOWN:
        return weight * (4.0 + (2.0 if shape.moments.kurtosis > 4.0 else 0.0))
    return -2.0 * weight


def _scale(info: TensorInfo, shape: Shape, scheme: Scheme) -> float:
    """A known formula fits: fresh, unless a bounded draw has passed its bound."""
    bound, expected = shape.distribution.bound, scheme.expected_std
    if bound is None or expected is None:
        return -2.0 * scheme.confidence
    room = 1e-2 if info.dtype in _HALF_TYPES else 1e-3
    # Another formula's bound is passed by chance where the std does not tell the two apart.
    is_passed = shape.moments.abs_max > bound * expected * (1.0 + room) and std_error(shape) < 0.05
    return _STRONG * scheme.confidence if is_passed else -_STRONG * scheme.confidence


def _sigmoid(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-odds))
