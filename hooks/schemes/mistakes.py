"""Formulas with a slip in them: the wrong fan, or a variance in the place of a std. Pure.

A slip counts where the std that a weight has is that of a known formula with the slip, and no formula without one
explains it. Formulas that are a choice elsewhere (fan_out is He's for the gradient) are left to the reader.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from initscope.hooks.moments import TensorStats
from initscope.hooks.schemes.family import Shape, family_of
from initscope.hooks.schemes.fans import wrong_fans
from initscope.hooks.schemes.fit import std_error
from initscope.hooks.schemes.formulas import FIXED
from initscope.hooks.schemes.scheme import Family, Mistake, Recognition, Scheme, Slip
from initscope.hooks.vocabulary import Role
from initscope.hooks.wire import TensorInfo

_ACCEPTED: Final = 3.0
"""Standard errors that the formula with the slip may be off."""
_APART: Final = 6.0
"""Standard errors that the right formula must be off."""
_TABLES: Final = frozenset({Role.EMBEDDING, Role.POSITION})
_FIXED: Final = (0.01, 0.02, 0.05, 0.1, 0.4)
_WORDS: Final = {
    Slip.FAN_OUT: "fan_out in the place of fan_in",
    Slip.NO_KERNEL: "channels without the positions of the kernel",
    Slip.NO_GROUPS: "all channels, where a group sees a part of them",
    Slip.SWAPPED: "inputs and outputs swapped",
    Slip.STRIDE: "the whole kernel, where its stride leaves a part of it",
    Slip.FUSED: "all outputs of the fused projection",
    Slip.ALL_ELEMENTS: "the number of elements",
    Slip.VARIANCE_AS_STD: "the variance in the place of the std",
    Slip.STD_AS_VARIANCE: "the std in the place of the variance",
}


@dataclass(frozen=True, slots=True)
class _Formula:
    name: str
    formula: str
    right: float


def find_mistakes(
    tensors: Mapping[int, TensorInfo], stats: Mapping[int, TensorStats], recognition: Recognition
) -> dict[int, Mistake]:
    """The most agreed slip of each weight, by tensor key, that has a formula with one and none without.

    `stats` are the records that `recognition` was made from. Trained, structured and tabular weights are not judged.
    """
    options = {
        key: list(_options(tensors[key], family_of(stats[key].moments, tensors[key].traits)))
        for key, scheme in recognition.by_key.items()
        if _is_unexplained(tensors[key], scheme) and key in stats
    }
    agreed: dict[tuple[Slip, str], list[float]] = defaultdict(list)
    for found in options.values():
        for mistake, used in found:
            agreed[mistake.slip, mistake.name].append(used)
    counts = {case: (len(stds), len({round(math.log(std), 2) for std in stds})) for case, stds in agreed.items()}
    chosen: dict[int, Mistake] = {}
    for key, found in options.items():
        if found:
            best = max((m for m, _ in found), key=lambda m: counts[m.slip, m.name][::-1])
            agreeing, distinct = counts[best.slip, best.name]
            chosen[key] = replace(best, agreeing=agreeing, distinct=distinct)
    return chosen


def _is_unexplained(info: TensorInfo, scheme: Scheme) -> bool:
    if info.role in _TABLES or not scheme.family.is_drawn or scheme.family is Family.ORTHOGONAL or not info.fan_in:
        return False
    if scheme.name.startswith("pytorch_"):
        return False
    if scheme.name.startswith("fixed_"):
        return scheme.expected_std not in FIXED and scheme.family is not Family.UNIFORM
    # One that fits with PyTorch's fans only is right for torch.nn.init and wrong for the signal.
    return scheme.expected_std is None or not scheme.is_effective_fan or "fan_out" in scheme.name


def _options(info: TensorInfo, shape: Shape) -> Iterator[tuple[Mistake, float]]:
    """Mistakes that the weight's std fits, each with the std that the slip gives."""
    size, error = shape.moments.std, std_error(shape)
    for slip, formula, used in _slips(info, shape.family):
        is_near = abs(math.log(size / used)) < _ACCEPTED * error
        if is_near and abs(math.log(size / formula.right)) > max(_APART * error, 0.05):
            mistake = Mistake(
                slip=slip,
                name=formula.name,
                formula=formula.formula,
                wrong=_WORDS[slip],
                std=size,
                expected_std=formula.right,
            )
            yield mistake, used


def _slips(info: TensorInfo, family: Family) -> Iterator[tuple[Slip, _Formula, float]]:
    """(slip, right formula, std with the slip) of every formula that can have one."""
    n, m = info.fan_in or 1.0, info.fan_out or info.fan_in or 1.0
    suffix = family.value
    of_fan_in = [
        _Formula(f"he_{suffix}", "√(2/fan_in)", math.sqrt(2.0 / n)),
        _Formula(f"lecun_{suffix}", "1/√fan_in", math.sqrt(1.0 / n)),
    ]
    if family is Family.UNIFORM:
        of_fan_in.append(_Formula("pytorch_default", "1/√(3·fan_in)", math.sqrt(1.0 / (3.0 * n))))
    for slip, fan in wrong_fans(info).items():
        for formula in of_fan_in:
            yield slip, formula, formula.right * math.sqrt(n / fan)
    xavier = _Formula(f"xavier_{suffix}", "√(2/(fan_in + fan_out))", math.sqrt(2.0 / (n + m)))
    for slip, total in _wrong_sums(info, n, m):
        yield slip, xavier, math.sqrt(2.0 / total)
    fixed = [_Formula(f"fixed_{suffix}", f"{std:g}", std) for std in _FIXED]
    for formula in (*of_fan_in, xavier, *fixed):
        yield Slip.VARIANCE_AS_STD, formula, formula.right**2
        yield Slip.STD_AS_VARIANCE, formula, math.sqrt(formula.right)


def _wrong_sums(info: TensorInfo, n: float, m: float) -> Iterator[tuple[Slip, float]]:
    kernel, rows, columns = math.prod(info.shape[2:]), info.shape[0], info.shape[1]
    if kernel > 1:
        yield Slip.NO_KERNEL, (n + m) / kernel
        if rows * kernel > m and "transpose" not in info.module_type.lower():
            yield Slip.NO_GROUPS, n + rows * kernel
    elif rows > m and columns == n:
        yield Slip.FUSED, n + rows
