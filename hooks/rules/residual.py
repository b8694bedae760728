"""The rule on the scale of what residual branches add: missing in deep stacks, or given to the wrong matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import code_path, listed, number
from initscope.hooks.rules.signals import is_trained, is_zero, matrices, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity

_GATE: Final = re.compile(
    r"layer_?scale|\.(gamma|lambda)(_?\d)?$|skipinit|rezero|(resid|skip|branch)\w*\.?(scale|alpha)"
)


@dataclass(frozen=True)
class _Place:
    """The same matrix of every block: its path inside the block, and its size against its siblings'."""

    name: str
    layers: tuple[Layer, ...]
    plain: float
    """Median std ÷ the largest std of the block's other matrices that add to no stream."""
    by_fan: float
    """The same of std · √fan_in."""

    @property
    def is_residual(self) -> bool:
        return all(x.is_residual for x in self.layers)

    def is_like(self, factor: float, tolerance: float) -> bool:
        """Whether it is its siblings' size times a factor, for a fixed std or for one that follows fan_in."""
        return any(abs(math.log(r / factor)) <= tolerance for r in (self.plain, self.by_fan))


@dataclass(frozen=True)
class _Stack:
    """Blocks of one form, each of which adds to a residual stream."""

    places: tuple[_Place, ...]
    blocks: int

    @cached_property
    def residual(self) -> tuple[_Place, ...]:
        return tuple(p for p in self.places if p.is_residual)

    @property
    def sums(self) -> int:
        """Residual sums: what GPT-2's rule takes the root of."""
        return self.blocks * len(self.residual)

    def scaled(self, limits: Limits) -> list[_Place]:
        """Places of their siblings' size ÷ √(sums) or ÷ √(blocks), and by no measure of their size."""
        targets = (1 / math.sqrt(self.sums), 1 / math.sqrt(self.blocks))
        return [
            p
            for p in self.places
            if not p.is_like(1.0, limits["alike"]) and any(p.is_like(t, limits["alike"]) for t in targets)
        ]

    def unscaled(self, limits: Limits) -> list[_Place]:
        """Residual places of their siblings' size."""
        return [p for p in self.residual if p.is_like(1.0, limits["alike"])]


def check_residual(window: Window, limits: Limits) -> Iterable[Finding]:
    """Stacks whose branches add at full size, and stacks in which only some matrices were scaled, or the wrong ones."""
    if is_trained(window) or _is_gated(window):
        return
    stack = _stack(window)
    if stack is None or stack.blocks < limits["partial_blocks"] or not stack.residual:
        return
    scaled, unscaled = stack.scaled(limits), stack.unscaled(limits)
    if not unscaled:
        return
    if scaled:
        yield _partial(window, stack, scaled, unscaled)
    elif stack.blocks >= limits["blocks"] and len(unscaled) == len(stack.residual):
        yield _missing(window, stack, unscaled)


def _is_gated(window: Window) -> bool:
    """Whether the branches are scaled elsewhere: a factor that is learned, or a last matrix of zeros."""
    for tensor in window.model.by_kind[Kind.WEIGHT]:
        name = f"{tensor.module_type}.{tensor.module_path}.{tensor.name}".lower()
        if tensor.role is Role.OTHER and len(tensor.shape) <= 1 and _GATE.search(name):
            return True
    gains = [t for t in window.model.by_kind[Kind.WEIGHT] if t.role is Role.NORM_GAIN]
    if any(is_zero(window.stats(t)) for t in gains):
        return True
    return any(x.is_residual and is_zero(window.stats(x.weight)) for x in matrices(window))


def _stack(window: Window) -> _Stack | None:
    """The largest set of blocks that have the same matrices."""
    blocks: dict[str, dict[str, Layer]] = {}
    for layer in matrices(window):
        if layer.weight.block is not None and layer.is_plain and not layer.is_head:
            name = f"{layer.path.removeprefix(layer.weight.block).lstrip('.')}.{layer.weight.name}"
            blocks.setdefault(layer.weight.block, {})[name] = layer
    alike: dict[tuple[str, ...], list[dict[str, Layer]]] = {}
    for parts in blocks.values():
        alike.setdefault(tuple(sorted(parts)), []).append(parts)
    most = max(alike.values(), key=len, default=[])
    if not most:
        return None
    places = [_place(window, name, most) for name in most[0]]
    return _Stack(tuple(p for p in places if p is not None), len(most))


def _place(window: Window, name: str, blocks: Sequence[Mapping[str, Layer]]) -> _Place | None:
    plain, by_fan = [], []
    for parts in blocks:
        siblings = [x for other, x in parts.items() if other != name and not x.is_residual]
        own = _sizes(window, parts[name])
        known = [s for x in siblings if (s := _sizes(window, x)) is not None]
        if own is None or not known:
            return None
        plain.append(own[0] / max(s[0] for s in known))
        by_fan.append(own[1] / max(s[1] for s in known))
    return _Place(name, tuple(parts[name] for parts in blocks), median(plain), median(by_fan))


def _sizes(window: Window, layer: Layer) -> tuple[float, float] | None:
    """(std, std · √fan_in) of its weights."""
    size = rms(window.stats(layer.weight))
    return (size, size * math.sqrt(layer.fan_in)) if size and layer.fan_in else None


def _std(window: Window, place: _Place) -> float:
    return median(rms(window.stats(x.weight)) or 0.0 for x in place.layers)


def _missing(window: Window, stack: _Stack, unscaled: Sequence[_Place]) -> Finding:
    names = [p.name for p in unscaled]
    return _finding(
        window,
        stack,
        unscaled,
        Severity.INFO,
        f"{listed(names)} of {stack.blocks} blocks are as large as their siblings: {stack.sums} sums of full size make "
        "the stream grow with depth. GPT-2 divides them by "
        f"√{stack.sums} = {number(math.sqrt(stack.sums))}; the first loss does not show it",
    )


def _partial(window: Window, stack: _Stack, scaled: Sequence[_Place], unscaled: Sequence[_Place]) -> Finding:
    wrong = [p for p in scaled if not p.is_residual]
    right = [p for p in scaled if p.is_residual]
    what = [f"{listed([p.name for p in right])} was scaled for depth"] if right else []
    if wrong:
        what.append(f"{listed([p.name for p in wrong])} was scaled, which adds to no stream")
    return _finding(
        window,
        stack,
        unscaled,
        Severity.WARNING,
        f"In {stack.blocks} blocks {' and '.join(what)}, but {listed([p.name for p in unscaled])} was not, which adds "
        f"to the stream at full size (std {number(_std(window, unscaled[0]))}): the wrong matrices were picked",
        wrong,
    )


def _finding(
    window: Window,
    stack: _Stack,
    unscaled: Sequence[_Place],
    severity: Severity,
    diagnosis: str,
    wrong: Sequence[_Place] = (),
) -> Finding:
    first = unscaled[0].layers[0]
    return Finding(
        rule=RESIDUAL_SCALE.id,
        severity=severity,
        cause=Cause.MISSING_RESIDUAL_SCALING,
        step=window.step,
        subject="branches",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{diagnosis}.",
        remedy="\n".join(
            [
                *(_draw(window, p, math.sqrt(stack.sums)) for p in unscaled),
                *(_draw(window, p, 1 / math.sqrt(stack.sums)) for p in wrong),
            ]
        ),
        evidence={
            "blocks": float(stack.blocks),
            "residual_sums": float(stack.sums),
            "std": _std(window, unscaled[0]),
            "ratio": unscaled[0].plain,
            "ratio_by_fan": unscaled[0].by_fan,
            "layers": listed([x.path for p in unscaled for x in p.layers]),
        },
    )


def _draw(window: Window, place: _Place, divisor: float) -> str:
    """One line that draws the matrix anew in every block."""
    std = _std(window, place)
    block = place.layers[0].weight.block or ""
    stem, _, index = block.rpartition(".")
    why = f"{number(std)}/√{divisor * divisor:.0f}" if divisor > 1 else f"{number(std)}·√{1 / divisor**2:.0f}"
    if not index.isdigit():
        code = code_path(place.layers[0].path, place.layers[0].weight.name)
        return f"nn.init.normal_({code}, std={number(std / divisor)})  # {why}, in every block"
    inside = code_path(place.name).removeprefix("model")
    loop = f"for block in {code_path(stem)}: " if stem else "for block in model: "
    return f"{loop}nn.init.normal_(block{inside}, std={number(std / divisor)})  # {why}"


RESIDUAL_SCALE: Final = Rule(
    id="residual-scale",
    family="residual",
    check=check_residual,
    limits={"blocks": 8, "partial_blocks": 4, "alike": 0.1},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    explained_by=("zero-weights", "constant-weights"),
    title="Residual branches that are not scaled for depth",
    statistic="std of the matrices that add to the residual stream ÷ the largest of their block's others, as it is and "
    "times √fan_in, the median over at least `partial_blocks` equal blocks. Equal (within `alike`, in logarithms) for "
    "all of them in at least `blocks` blocks: info. Equal for some while others, or matrices that add to no stream, "
    "are smaller by √(sums) or √(blocks): warning, as the wrong ones were picked.",
    harmless="Learned factors (layer scale, ReZero, skip-init), branches that start at zero; DeepNorm and T-Fixup "
    "scale otherwise. Many healthy transformers do without: a stream that grows is normalized before it is read.",
    remedy="`nn.init.normal_(w, std=0.02 / math.sqrt(2 * n_layer))` for every matrix that adds to the stream.",
    source="Radford et al. 2019 (GPT-2): the weights of residual layers ÷ √N, N the number of residual layers.",
)
RULES: Final = (RESIDUAL_SCALE,)
