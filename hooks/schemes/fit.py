"""From the scale of weights to formulas: which fit each, and which the model as a whole agrees on. Pure.

A weight that several formulas explain (He with fan_in and fan_out are one for a square matrix) is settled by the
others: the name that explains most of the weights comes first, then the one that explains most of the rest, and so on,
and each weight takes the formula that is most probable given how many its name explains.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from initscope.hooks.schemes.context import Context
from initscope.hooks.schemes.family import Distribution, Shape
from initscope.hooks.schemes.formulas import Candidate, candidates
from initscope.hooks.schemes.scheme import Family, Scheme
from initscope.hooks.wire import TensorInfo

_ACCEPTED: Final = 3.5
"""Standard errors that a formula may be off. Of a thousand right ones one is off by 3.3."""
_BOUNDED: Final = 5.0
"""The same where the largest element tells the scale anyway."""
_OTHER: Final = 1.0 / 12.0
"""Density, per e-fold of std, of a scale that no formula of ours made."""
_NEIGHBOURS: Final = 3
"""Weights that must share a std, over two fan_ins at least, before it counts as a fixed one."""
_HALF_TYPES: Final = {"bfloat16": 2.0**-9, "float16": 2.0**-12}


@dataclass(frozen=True, slots=True)
class Fitted:
    """A weight with the formulas that explain its std: (formula, likelihood as a density over log std)."""

    info: TensorInfo
    shape: Shape
    options: tuple[tuple[Candidate, float], ...] = ()

    @property
    def std(self) -> float:
        """Measured, structural zeros left out."""
        return self.shape.moments.std

    @property
    def room(self) -> float:
        """Standard error of log std."""
        return std_error(self.shape)


def std_error(shape: Shape) -> float:
    """Standard error of the log of a std: √((κ - 1)/(4n)); at least that of float32 sums."""
    return max(shape.distribution.std_error / math.sqrt(max(1, shape.moments.finite_count)), 3e-4)


def settle_families(shapes: Mapping[int, Shape]) -> dict[int, Shape]:
    """Shapes with the distribution that is most probable given those of the other weights."""
    shares: dict[Distribution, float] = defaultdict(float)
    for shape in shapes.values():
        if shape.rivals:
            shares[shape.distribution] += shape.confidence
    settled = dict(shapes)
    for key, shape in shapes.items():
        if len(shape.rivals) > 1:
            # Without its own vote: a single weight must not outvote the model with it.
            others = {**shares, shape.distribution: shares[shape.distribution] - shape.confidence}
            own = max(shape.rivals, key=lambda rival: rival[1] + _log_share(others, rival[0]))[0]
            settled[key] = shape if own is shape.distribution else shape.as_drawn_by(own)
    return settled


def _log_share(shares: Mapping[Distribution, float], distribution: Distribution) -> float:
    return math.log(max(0.0, shares.get(distribution, 0.0)) + distribution.prior)


def fit_all(weights: Iterable[tuple[TensorInfo, Shape]], context: Context) -> list[Fitted]:
    """Every weight that was drawn, with the formulas that explain it."""
    drawn = [(info, shape) for info, shape in weights if shape.family.is_drawn and shape.moments.std > 0.0]
    fixed = shared_std([pair for pair in drawn if pair[1].family is not Family.ORTHOGONAL])
    known: dict[object, list[Candidate]] = {}
    fitted = []
    for info, shape in drawn:
        if shape.family is Family.ORTHOGONAL:
            continue
        key = _case(info, shape, context)
        if key not in known:
            known[key] = candidates(info, context, shape.family, shape.distribution.shrink, fixed)
        fitted.append(_fit(info, shape, known[key]))
    return fitted


def _case(info: TensorInfo, shape: Shape, context: Context) -> object:
    """Equal for weights whose formulas give the same numbers."""
    place = context.place(info)
    where = (place.counts, place.is_residual, place.indices if place.is_residual else ())
    kind = (info.module_type, info.name, info.role, info.module_path.rpartition(".")[2])
    return tuple(info.shape), info.fan_in, info.fan_out, shape.distribution, kind, where


def _fit(info: TensorInfo, shape: Shape, options: Sequence[Candidate]) -> Fitted:
    error, size = std_error(shape), shape.moments.std
    room = 1.0 + (_BOUNDED if shape.family is Family.UNIFORM else _ACCEPTED) * error
    low, high = size / room, size * room
    near = [c for c in options if low <= c.std <= high]
    found = [(c, _density(info, shape, c, error)) for c in near]
    return Fitted(info, shape, tuple((c, density) for c, density in found if density > 0.0))


def _density(info: TensorInfo, shape: Shape, c: Candidate, error: float) -> float:
    deviation = math.log(shape.moments.std / c.std) / error
    density = math.exp(-0.5 * deviation * deviation) / (math.sqrt(2.0 * math.pi) * error)
    if shape.family is not Family.UNIFORM:
        return density
    # The largest of n uniform draws tells their bound n times better than the std does.
    m = shape.moments
    gap = 1.0 - m.abs_max / (math.sqrt(3.0) * c.std)
    if gap < -(1e-4 + _HALF_TYPES.get(info.dtype, 0.0)):
        return density * 1e-4
    return density * max(math.exp(-m.finite_count * max(0.0, gap - _HALF_TYPES.get(info.dtype, 0.0))), 1e-5)


def shared_std(drawn: Sequence[tuple[TensorInfo, Shape]]) -> float | None:
    """The std that most weights share whatever their fan_in, None for none: at least three, and a third of all."""
    ordered = sorted((shape.moments.std, std_error(shape), info.fan_in) for info, shape in drawn)
    best: Sequence[tuple[float, float, float | None]] = ()
    start = 0
    for end, (std, error, _) in enumerate(ordered):
        while std > ordered[start][0] * (1.0 + _ACCEPTED * (error + ordered[start][1])):
            start += 1
        if end + 1 - start > len(best):
            best = ordered[start : end + 1]
    if len(best) < max(_NEIGHBOURS, len(ordered) / 3) or len({fan for _, _, fan in best}) < 2:
        return None
    weights = [1.0 / (error * error) for _, error, _ in best]
    return sum(w * std for w, (std, _, _) in zip(weights, best, strict=True)) / sum(weights)


def shares_of(fitted: Sequence[Fitted]) -> dict[str, float]:
    """How many weights each name explains that those before it do not; fractions where one fits less well."""
    priors: dict[str, float] = {}
    recipes = {c.vote for f in fitted for c, _ in f.options if c.is_recipe}
    open_weights: list[list[tuple[str, float]]] = []
    for f in fitted:
        top = max((density for _, density in f.options), default=0.0)
        best: dict[str, float] = {}
        for c, density in f.options:
            best[c.vote] = max(best.get(c.vote, 0.0), density / top)
            priors[c.vote] = max(priors.get(c.vote, 0.0), c.prior)
        open_weights.append(list(best.items()))
    shares: dict[str, float] = {}
    left = [1.0] * len(open_weights)
    while len(shares) < len(priors):
        gains = dict.fromkeys(priors.keys() - shares.keys(), 0.0)
        for weight, options in zip(left, open_weights, strict=True):
            for name, fit in options:
                if name in gains:
                    gains[name] += weight * fit
        # How usual a formula is decides between those that explain as much.
        name = max(gains, key=lambda n: (gains[n] + 0.5 * min(1.0, gains[n]) * math.log2(priors[n]), n))
        # An unusual formula that one weight alone seems to follow is likely chance, a recipe surely.
        is_alone = gains[name] < _COMPANY
        weight = (name not in recipes) * priors[name] if is_alone else 1.0
        shares[name] = weight * (_UNSEEN + gains[name])
        for i, options in enumerate(open_weights):
            if left[i] and dict(options).get(name, 0.0) > _EXPLAINED:
                left[i] = 0.0
    return shares


_EXPLAINED: Final = 0.01
"""Likelihood, in units of the best formula's, from which a formula counts as one that explains a weight."""
_COMPANY: Final = 1.5
"""Weights from which a formula is no chance."""
_UNSEEN: Final = 0.2
"""What a usual name counts before any weight has voted for it."""


def choose(f: Fitted, shares: Mapping[str, float]) -> Scheme:
    """The scheme of a drawn weight, given what the model agrees on."""
    shape = f.shape
    plain = Scheme(
        family=shape.family,
        name=shape.family.value,
        std=f.std,
        confidence=0.0,
        is_compensated=None,
    )
    scored: dict[str, tuple[float, Candidate]] = {}
    total = _OTHER
    for c, density in f.options:
        score = density * shares[c.vote]
        if not score:
            continue
        total += score
        before = scored.get(c.name)
        scored[c.name] = (score + (before[0] if before else 0.0), c if not before or density > before[0] else before[1])
    if not scored:
        return plain
    ranked = sorted(scored.values(), key=lambda pair: -pair[0])
    score, best = ranked[0]
    return replace(
        plain,
        name=best.name,
        formula=best.formula,
        expected_std=best.std,
        confidence=round(shape.confidence * score / total, 4),
        alternatives=tuple(c.name for _, c in ranked[1:6]),
        is_effective_fan=best.is_effective_fan,
        is_compensated=best.is_compensated,
    )
