"""The rule on matrices that should have been drawn one by one and are copies of each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.moments import Moments, TensorStats
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, redraw_all
from initscope.hooks.rules.signals import is_trained, matrices
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity

_EXPERT: Final = re.compile(r"expert", re.IGNORECASE)
_ALIKE: Final = 1e-6
"""Relative difference of sums over equal numbers in another order."""


@dataclass(frozen=True, slots=True)
class _Copies:
    """Layers of one content, in forward order."""

    layers: tuple[Layer, ...]

    @property
    def are_experts(self) -> bool:
        """Whether they lie beside each other and share the work."""
        return all(_EXPERT.search(x.path) for x in self.layers)

    @property
    def one_block(self) -> bool:
        """Whether two of them are different parts of one block, as no copy of a block makes them."""
        parts = [(x.weight.block, _place(x)) for x in self.layers if x.weight.block is not None]
        return any(a[0] == b[0] and a[1] != b[1] for i, a in enumerate(parts) for b in parts[:i])


def check_copies(window: Window, limits: Limits) -> Iterable[Finding]:
    """Groups of equal matrices: those that never part, those that are a bug, those that may be meant."""
    groups = [_Copies(tuple(x)) for x in _groups(window, limits) if len(x) > 1]
    trained = is_trained(window)
    stuck = [g for g in groups if _stay_equal(window, g)]
    wrong = [g for g in groups if g not in stuck and not trained and (g.are_experts or g.one_block)]
    meant = [g for g in groups if g not in stuck and g not in wrong]
    if any(g.one_block for g in wrong):
        # What set the random state back for these did it for the rest.
        wrong, meant = [*wrong, *meant], []
    if stuck:
        why = "they get the same gradient too, so that they never part and do the work of one"
        yield _finding(window, stuck, Severity.CRITICAL, why)
    if wrong:
        yield _finding(window, wrong, Severity.WARNING, _why_wrong(wrong))
    if meant:
        why = "layers that see other inputs part by themselves, and targets and averages are copies on purpose"
        yield _finding(window, meant, Severity.INFO, why)


def _why_wrong(wrong: Sequence[_Copies]) -> str:
    if wrong[0].are_experts:
        return "experts that are all the same leave the router nothing to choose from until they have parted"
    return "parts of one block were drawn with the same random state"


def _groups(window: Window, limits: Limits) -> Iterable[list[Layer]]:
    groups: dict[tuple[str, tuple[int, ...]], list[Layer]] = {}
    for layer in matrices(window):
        traits, stats = layer.weight.traits, window.stats(layer.weight)
        if traits is None or traits.digest is None or layer.weight.tied_with or layer.weight.role is Role.POSITION:
            continue
        if stats is not None and _is_drawn(stats.moments, limits):
            groups.setdefault((traits.digest, tuple(layer.weight.shape)), []).append(layer)
    return groups.values()


def _is_drawn(m: Moments, limits: Limits) -> bool:
    """Whether chance made it: not constant, no identity or other pattern of few values."""
    few = m.zero_count > 0.5 * m.count or not m.m2 > 0.0
    two_values = abs(m.kurtosis - 1.0) < 1e-3
    return m.count >= limits["elements"] and not few and not two_values


def _stay_equal(window: Window, group: _Copies) -> bool:
    """Whether all of them get the same gradient, and one at all."""
    gradients = [window.stats(x.gradient) for x in group.layers]
    first = gradients[0]
    return first is not None and first.moments.m2 > 0.0 and all(_is_same(first, other) for other in gradients[1:])


def _is_same(a: TensorStats, b: TensorStats | None) -> bool:
    if b is None:
        return False
    x, y = a.moments, b.moments
    pairs = ((x.m2, y.m2), (x.m4, y.m4), (x.min, y.min), (x.max, y.max))
    return all(abs(p - q) <= _ALIKE * max(abs(p), abs(q)) for p, q in pairs)


def _place(layer: Layer) -> str:
    """The path inside its block without numbers, and the parameter's name."""
    return re.sub(r"\d+", "", f"{layer.path.removeprefix(layer.weight.block or '')}.{layer.weight.name}")


def _finding(window: Window, groups: Sequence[_Copies], severity: Severity, why: str) -> Finding:
    first = groups[0].layers
    names = [f"{x.path}.{x.weight.name}" for x in first]
    more = "" if len(groups) == 1 else f", and so are {len(groups) - 1} more groups of matrices"
    stats = window.stats(first[0].weight)
    again = [x for group in groups for x in group.layers[1:]]
    info = severity is Severity.INFO
    return Finding(
        rule=COPIED_TENSORS.id,
        severity=severity,
        cause=Cause.NONE if info else Cause.DUPLICATED_TENSORS,
        step=window.step,
        subject=severity.value,
        module_path=first[0].path,
        tensor_name=first[0].weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{listed(names)} hold the same numbers{more}: {why}.",
        remedy="# nothing to do where the copies are meant; else draw them anew:\n" * info
        + redraw_all(again, stats.moments.std if stats else None)
        + "\n# one random state for all of them, and no reset of the seed in between",
        evidence={
            "copies": float(sum(len(g.layers) for g in groups)),
            "groups": float(len(groups)),
            "layers": listed([x.path for g in groups for x in g.layers]),
        },
    )


COPIED_TENSORS: Final = Rule(
    id="copied-tensors",
    family="copies",
    check=check_copies,
    limits={"elements": 64},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    explained_by=("constant-weights", "zero-weights"),
    title="Matrices that are copies of each other",
    statistic="Equal content (a digest of at most 4,096 elements) of trainable matrices of one shape, of at least "
    "`elements` elements. Critical where their gradients are equal too: they never part. Warning for experts, and for "
    "different parts of one block (a random state that was set back). Info for the rest.",
    harmless="Tied weights, zeros, identities and other patterns, frozen targets and averages are not judged. "
    "`nn.TransformerEncoder` copies its layer: equal layers in a row see other inputs, part at once and learn as "
    "well as others (nets of up to 12 layers, measured), hence info. Trained weights are copied on purpose.",
    remedy="Draw the copies anew, with one random state for all; a seed per shard and per expert.",
    source="Equal weights with equal inputs and gradients are one unit; two draws of 64 normal numbers never agree.",
)
RULES: Final = (COPIED_TENSORS,)
