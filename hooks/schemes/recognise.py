"""Recognition of a model: the scheme of each weight, what the model agrees on, and what was trained before. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from initscope.hooks.moments import TensorStats
from initscope.hooks.schemes.context import context_of
from initscope.hooks.schemes.family import Shape, family_of
from initscope.hooks.schemes.fit import choose, fit_all, settle_families, shares_of
from initscope.hooks.schemes.provenance import Neighbourhood, neighbourhood, trained_probability
from initscope.hooks.schemes.scheme import Family, Recognition, Scheme
from initscope.hooks.schemes.structure import structural
from initscope.hooks.vocabulary import Kind, Role
from initscope.hooks.wire import RunDescription, TensorInfo

_VECTORS: Final = frozenset({Role.BIAS, Role.NORM_BIAS, Role.NORM_GAIN})
_TABLES: Final = frozenset({Role.EMBEDDING, Role.POSITION})
_MAJORITY: Final = 0.5
_LEAST: Final = 256
"""Elements from which a weight has a vote on the model."""


def recognise(
    tensors: Mapping[int, TensorInfo], stats: Mapping[int, TensorStats], description: RunDescription | None = None
) -> Recognition:
    """Recognises the schemes of all weights with two or more axes from the records of the first step.

    `description.pretrained`, where it was given, decides `is_trained`; so do a first step after 0, and norm gains that
    differ.
    """
    weights = {
        t.key: t
        for t in tensors.values()
        if t.kind is Kind.WEIGHT and len(t.shape) > 1 and t.role not in _VECTORS and t.key in stats
    }
    shapes = settle_families({key: _shape(t, stats[key]) for key, t in weights.items()})
    fitted = fit_all([(t, shapes[key]) for key, t in weights.items()], context_of(weights.values()))
    shares = shares_of(fitted)
    drawn = _as_gpt2({f.info.key: choose(f, shares) for f in fitted})
    around = neighbourhood(tensors, stats)
    trained = {
        key: trained_probability(t, stats[key], shapes[key], drawn.get(key), around) for key, t in weights.items()
    }
    by_key = {key: _scheme(t, shapes[key], drawn.get(key), trained[key]) for key, t in weights.items()}
    share = _share(weights, trained)
    return Recognition(
        by_key=by_key,
        scheme=_vote(weights, by_key),
        trained=trained,
        trained_share=share,
        is_trained=_is_trained(description, share, around),
    )


def _shape(info: TensorInfo, stats: TensorStats) -> Shape:
    return family_of(stats.moments, info.traits, is_table=info.role in _TABLES)


def _scheme(info: TensorInfo, shape: Shape, drawn: Scheme | None, trained: float) -> Scheme:
    if trained > _MAJORITY:
        m = shape.moments
        return Scheme(family=Family.TRAINED, name=Family.TRAINED.value, std=m.std, confidence=round(trained, 4))
    return drawn if drawn is not None else structural(info, shape)


def _as_gpt2(drawn: dict[int, Scheme]) -> dict[int, Scheme]:
    """A fixed std is GPT-2's where the model's residual outputs have the same one, scaled by depth."""
    if not any(s.name.startswith("gpt2_residual") for s in drawn.values()):
        return drawn
    fixed = Counter(s.expected_std for s in drawn.values() if s.name in _FIXED)
    usual = fixed.most_common(1)[0][0] if fixed else None
    return {
        key: replace(s, name="gpt2") if s.name in _FIXED and s.expected_std == usual else s for key, s in drawn.items()
    }


_FIXED: Final = frozenset({"fixed_normal", "fixed_truncated_normal"})


def _share(weights: Mapping[int, TensorInfo], trained: Mapping[int, float]) -> float:
    """Share of the parameters of matrices that look trained; tied ones count once."""
    total = counted = 0
    for key, t in weights.items():
        if t.tied_with is not None and t.module_path > t.tied_with:
            continue
        size = math.prod(t.shape)
        total += size
        counted += size if trained[key] > _MAJORITY else 0
    return counted / total if total else 0.0


def _is_trained(description: RunDescription | None, share: float, around: Neighbourhood) -> bool:
    if description is not None and description.pretrained is not None:
        return description.pretrained
    if description is not None and description.first_step > 0:
        return True
    return share > _MAJORITY or around.gains > 0.0


def _vote(weights: Mapping[int, TensorInfo], by_key: Mapping[int, Scheme]) -> str | None:
    """The name that more than half of the matrices have, those of a recipe counted as one; tables do not vote."""
    votes: dict[str, float] = defaultdict(float)
    counts = Counter(s.name for s in by_key.values())
    names = {name for name, count in counts.items() if count >= max(2, 0.1 * len(by_key))}
    total = 0.0
    for key, t in weights.items():
        if t.role in _TABLES or math.prod(t.shape) < _LEAST:
            continue
        scheme = by_key[key]
        total += 1.0
        votes[_recipe(scheme, names)] += 1.0 if scheme.expected_std is not None else 0.5
    if not votes:
        return None
    name, count = max(votes.items(), key=lambda pair: pair[1])
    return name if count > _MAJORITY * total or (count == total) else None


def _recipe(scheme: Scheme, names: set[str]) -> str:
    """The recipe that a weight's formula is a part of, where the model has its other parts too."""
    name = scheme.name
    if name.startswith("pytorch_"):
        return "pytorch_default"
    if name.startswith("gpt2"):
        return "gpt2"
    for recipe, parts in _RECIPES.items():
        if recipe in names and (name == recipe or name.startswith(parts)):
            return recipe
    return name


_RECIPES: Final[Mapping[str, tuple[str, ...]]] = {
    "mitchell": ("lecun_",),
    "deepnorm": ("xavier_",),
    "subln": ("xavier_",),
    "tfixup": ("xavier_",),
    "fixup": ("he_", "zero"),
    "wang": ("small_init",),
}
"""What stands beside the formula that a recipe is known by."""
