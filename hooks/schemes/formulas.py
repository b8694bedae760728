"""Formulas for the std of a weight that are in use, and what each gives for one weight of one model. Pure.

Sources: Glorot and Bengio 2010, LeCun et al. 1998, He et al. 2015; torch.nn's `reset_parameters`; Radford et al. 2019
(GPT-2); Nguyen and Salazar 2019 (small_init); Wang and Komatsuzaki 2021 (wang); Groeneveld et al. 2024 (OLMo,
mitchell); Wang et al. 2022 (DeepNorm, Sub-LN); Huang et al. 2020 (T-Fixup); Zhang et al. 2019 (Fixup); Yang et al. 2023
(spectral form of muP); Radford et al. 2021 (CLIP); Raffel et al. 2020 (T5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from initscope.hooks.schemes.context import Context, Place
from initscope.hooks.schemes.fans import Fans, fans_of, torch_fans
from initscope.hooks.schemes.scheme import Family
from initscope.hooks.vocabulary import Role
from initscope.hooks.wire import TensorInfo


@dataclass(frozen=True, slots=True)
class Candidate:
    """One formula with its number for one weight. `prior`: how usual it is, before the weights are looked at."""

    name: str
    formula: str
    std: float
    prior: float = 1.0
    is_effective_fan: bool = True
    is_compensated: bool | None = None

    @property
    def is_recipe(self) -> bool:
        """Whether it only makes sense beside others of its kind: it depends on where in the model a weight is."""
        return self.name.startswith(_RECIPES)

    @property
    def vote(self) -> str:
        """What weights of a model agree on: a formula, or one of the fixed numbers."""
        return self.formula if self.name.startswith("fixed_") else self.name


_RECIPES: Final = ("gpt2", "wang", "mitchell", "deepnorm", "subln", "tfixup", "fixup", "clip", "t5_query")
_SUFFIX: Final = {Family.NORMAL: "normal", Family.UNIFORM: "uniform", Family.TRUNCATED_NORMAL: "truncated_normal"}
FIXED: Final = (0.001, 0.005, 0.006, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
_USUAL: Final = frozenset({0.01, 0.02, 0.1, 1.0})
_BOUNDS: Final = (0.001, 0.01, 0.02, 0.05, 0.08, 0.1, 0.2, 0.5, 1.0)
"""Half-widths of uniform draws in use."""
_GAINS: Final = (
    ("tanh", "5/3", 5.0 / 3.0),
    ("selu", "3/4", 0.75),
    ("leaky_0.2", "√(2/1.04)", math.sqrt(2.0 / 1.04)),
)
_FOREIGN: Final = 0.3
"""What a formula with PyTorch's fans is worth beside the same with effective ones."""
_GATES: Final = {"lstm": 4, "gru": 3, "rnn": 1}


def candidates(
    info: TensorInfo, context: Context, family: Family, shrink: float = 1.0, fixed: float | None = None
) -> list[Candidate]:
    """Every formula that may have made a weight of that family.

    `shrink` is the std of a truncated normal in units of the one it was cut from: formulas without compensation are
    tried too. `fixed` is a std that many of the model's weights share.
    """
    found = [c for fans in fans_of(info) for c in _of_fans(fans, family)]
    found += _of_torch(info, family)
    place = context.place(info)
    if family is not Family.UNIFORM:
        found += _fixed_normal(family, fixed)
        found += _of_width(info, context, place)
    else:
        found += [Candidate("fixed_uniform", f"U(±{a:g})", a / math.sqrt(3.0), 0.2) for a in _BOUNDS]
    found += _of_residual(info, place, family, fixed)
    found += _of_depth(info, place, family)
    if family is Family.TRUNCATED_NORMAL:
        return [cut for c in found for cut in _cut(c, shrink)]
    return found


def _cut(c: Candidate, shrink: float) -> Iterator[Candidate]:
    for factor, is_compensated in ((1.0, True), (shrink, False)):
        yield Candidate(c.name, c.formula, c.std * factor, c.prior, c.is_effective_fan, is_compensated)


def _of_fans(fans: Fans, family: Family) -> Iterator[Candidate]:
    n, m, suffix = fans.fan_in, fans.fan_out, _SUFFIX[family]
    words = "" if fans.is_effective else " of PyTorch's fans"
    table = [
        ("he", "√(2/fan_in)", math.sqrt(2.0 / n), 1.0),
        ("lecun", "1/√fan_in", math.sqrt(1.0 / n), 1.0),
        ("xavier", "√(2/(fan_in + fan_out))", math.sqrt(2.0 / (n + m)), 1.0),
        ("he_fan_out", "√(2/fan_out)", math.sqrt(2.0 / m), 0.5),
        ("lecun_fan_out", "1/√fan_out", math.sqrt(1.0 / m), 0.05),
        ("xavier_relu", "√2·√(2/(fan_in + fan_out))", math.sqrt(4.0 / (n + m)), 0.15),
    ]
    for name, text, gain in _GAINS:
        table.append((f"he_{name}", f"{text}/√fan_in", gain / math.sqrt(n), 0.1))
        table.append((f"xavier_{name}", f"{text}·√(2/(fan_in + fan_out))", gain * math.sqrt(2.0 / (n + m)), 0.1))
    weight = 1.0 if fans.is_effective else _FOREIGN
    for name, text, std, prior in table:
        yield Candidate(f"{name}_{suffix}", text + words, std, prior * weight, fans.is_effective)
    if family is Family.UNIFORM:
        yield Candidate("fan_out_uniform", f"U(±1/√fan_out){words}", 1 / math.sqrt(3 * m), 0.1, fans.is_effective)
    else:
        mup = min(1.0, math.sqrt(m / n)) / math.sqrt(n)
        yield Candidate("mup", f"min(1, √(fan_out/fan_in))/√fan_in{words}", mup, 0.05 * weight, fans.is_effective)


def _of_torch(info: TensorInfo, family: Family) -> Iterator[Candidate]:
    """What the constructors of torch.nn leave behind."""
    own, kind = torch_fans(tuple(info.shape)), info.module_type.lower()
    if own is None:
        return
    recurrent = next((word for word in _GATES if word in kind), None)
    if family is Family.NORMAL and "embedding" in kind:
        yield Candidate("pytorch_embedding", "N(0, 1)", 1.0, 2.0)
    if family is not Family.UNIFORM:
        return
    usual, special = 2.0, 0.0
    if recurrent:
        hidden, usual = max(1, info.shape[0] // _GATES[recurrent]), 0.2
        special = 1.0 / math.sqrt(3.0 * hidden)
        yield Candidate(f"pytorch_{recurrent}", "U(±1/√hidden)", special, 2.0)
    elif "bilinear" in kind:
        yield Candidate("pytorch_default", "U(±1/√in1)", 1.0 / math.sqrt(3.0 * info.shape[1]), 2.0)
    elif "multihead" in kind and info.name == "in_proj_weight":
        special, usual = math.sqrt(2.0 / (own.fan_in + own.fan_out)), 0.2
        yield Candidate("pytorch_attention", "√(2/(d + 3d)) of the stacked matrix", special, 2.0, False)
    is_same = info.fan_in is None or own.fan_in == info.fan_in
    words = "1/√(3·fan_in)" if is_same else "1/√(3·fan_in) of PyTorch's fans"
    plain = 1.0 / math.sqrt(3.0 * own.fan_in)
    if plain != special:
        yield Candidate("pytorch_default", words, plain, usual, is_same)


def _fixed_normal(family: Family, fixed: float | None) -> Iterator[Candidate]:
    name = f"fixed_{_SUFFIX[family]}"
    for std in FIXED:
        yield Candidate(name, f"{std:g}, whatever the fans", std, 0.5 if std in _USUAL else 0.15)
    if fixed is not None:
        yield Candidate(name, f"{fixed:.3g}, whatever the fans", fixed, 0.05)


def _of_width(info: TensorInfo, context: Context, place: Place) -> Iterator[Candidate]:
    d = context.width
    if d:
        yield Candidate("small_init", "√(2/(5·width))", math.sqrt(2.0 / (5.0 * d)), 0.2)
    if info.module_path.rpartition(".")[2] in ("q", "query", "q_proj") and info.fan_in:
        for head in (32, 64, 128):
            yield Candidate("t5_query", "1/√(fan_in·head)", 1.0 / math.sqrt(info.fan_in * head), 0.05)
    if not (d and place.counts):
        return
    yield Candidate("clip", "1/√(2·width)", 1.0 / math.sqrt(2.0 * d), 0.03)
    for blocks in place.counts:
        yield Candidate("wang", "2/(L·√width)", 2.0 / (blocks * math.sqrt(d)), 0.2)
        yield Candidate("clip", "1/√(2L·width)", 1.0 / math.sqrt(2.0 * blocks * d), 0.03)


def _of_residual(info: TensorInfo, place: Place, family: Family, fixed: float | None) -> Iterator[Candidate]:
    """Outputs of residual branches, made smaller with the number of branches."""
    if not place.is_residual:
        return
    suffix = _SUFFIX[family]
    for blocks in place.counts:
        for divisor, words, name in ((2.0 * blocks, "√(2L)", ""), (float(blocks), "√L", "_root_l")):
            scale = 1.0 / math.sqrt(divisor)
            if family is not Family.UNIFORM:
                for std in dict.fromkeys([0.02, *([fixed] if fixed else []), 0.01, 0.006]):
                    usual = 1.0 if std in (0.02, fixed) else 0.1
                    yield Candidate(
                        f"gpt2_residual{name}", f"{std:.3g}/{words}", std * scale, usual * (0.2 if name else 1.0)
                    )
            for fans in fans_of(info)[:1]:
                n, m = fans.fan_in, fans.fan_out
                for base, text, std in (
                    ("lecun", "1/√fan_in", math.sqrt(1.0 / n)),
                    ("he", "√(2/fan_in)", math.sqrt(2.0 / n)),
                    ("xavier", "√(2/(fan_in + fan_out))", math.sqrt(2.0 / (n + m))),
                ):
                    yield Candidate(f"{base}_{suffix}_residual{name}", f"{text}/{words}", std * scale, 0.05)
                if family is Family.UNIFORM:
                    yield Candidate(
                        f"pytorch_default_residual{name}", f"1/√(3·fan_in)/{words}", scale / math.sqrt(3 * n), 0.1
                    )
    if family is not Family.UNIFORM and info.fan_in:
        for index in place.indices:
            std = 1.0 / math.sqrt(2.0 * info.fan_in * (index + 1))
            yield Candidate("mitchell", "1/√(2·fan_in·(block + 1))", std, 0.3)


def _of_depth(info: TensorInfo, place: Place, family: Family) -> Iterator[Candidate]:
    """Branches whose every matrix is smaller with depth."""
    fans = fans_of(info)[:1]
    if not fans or info.role is Role.OUTPUT:
        return
    n, m = fans[0].fan_in, fans[0].fan_out
    he, he_out, xavier = math.sqrt(2.0 / n), math.sqrt(2.0 / m), math.sqrt(2.0 / (n + m))
    for blocks in place.counts:
        yield Candidate("deepnorm", "(8L)^(-1/4)·√(2/(fan_in + fan_out))", xavier * (8.0 * blocks) ** -0.25, 0.15)
        yield Candidate("deepnorm", "(12L)^(-1/4)·√(2/(fan_in + fan_out))", xavier * (12.0 * blocks) ** -0.25, 0.05)
        yield Candidate("subln", "√ln(2L)·√(2/(fan_in + fan_out))", xavier * math.sqrt(math.log(2.0 * blocks)), 0.05)
        for gain, words in ((1.0, ""), (math.sqrt(2.0), "√2·")):
            for power, depth in ((0.67 * blocks**-0.25, "0.67·L^(-1/4)"), ((9.0 * blocks) ** -0.25, "(9L)^(-1/4)")):
                text = f"{depth}·{words}√(2/(fan_in + fan_out))"
                yield Candidate("tfixup", text, xavier * gain * power, 0.1 if gain == 1.0 else 0.03)
        if family is not Family.UNIFORM:
            for power, words in ((-0.5, "L^(-1/2)"), (-0.25, "L^(-1/4)")):
                yield Candidate("fixup", f"{words}·√(2/fan_in)", he * blocks**power, 0.1)
                yield Candidate("fixup", f"{words}·√(2/fan_out)", he_out * blocks**power, 0.1)
