"""Rules on formulas with a slip in them: the wrong number in the place of fan_in, a variance in the place of a std."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, number, weight_code
from initscope.hooks.rules.signals import is_trained
from initscope.hooks.rules.window import Window
from initscope.hooks.schemes import Mistake, Slip, find_mistakes
from initscope.hooks.vocabulary import Cause, Kind, Severity

_POWERS: Final = frozenset({Slip.VARIANCE_AS_STD, Slip.STD_AS_VARIANCE})
_CHOICES: Final = frozenset({Slip.FAN_OUT, Slip.SWAPPED})
"""What keeps the gradient: fan_out, which a transposed convolution has where others have fan_in."""
_LINES: Final = 6


@dataclass(frozen=True, slots=True)
class _Case:
    """One slip in one formula, and the layers that have it, in forward order."""

    slip: Slip
    mistakes: Mapping[Layer, Mistake]

    def octaves(self, layer: Layer) -> float:
        """What the slip does to the layer's std."""
        mistake = self.mistakes.get(layer)
        return math.log2(mistake.std / mistake.expected_std) if mistake is not None else 0.0

    @property
    def layers(self) -> list[Layer]:
        return list(self.mistakes)


def check_fan(window: Window, limits: Limits) -> Iterable[Finding]:
    """Formulas that fit with a mistaken fan only."""
    for case in _cases(window, limits):
        if case.slip not in _POWERS:
            yield _finding(window, case, WRONG_FAN, Cause.WRONG_FAN_MODE, _severity(window, case, limits))


def check_power(window: Window, limits: Limits) -> Iterable[Finding]:
    """Formulas whose square, or root, was drawn with."""
    for case in _cases(window, limits):
        if case.slip in _POWERS:
            small = case.octaves(case.layers[0]) < 0
            cause = Cause.TOO_SMALL_VANISH if small else Cause.TOO_LARGE_EXPLODE
            yield _finding(window, case, VARIANCE_AS_STD, cause, _severity(window, case, limits))


def _cases(window: Window, limits: Limits) -> list[_Case]:
    """Slips that enough weights agree on, over stds that differ: one number alone may be chance."""
    if is_trained(window):
        return []
    found = find_mistakes(window.model.tensors, window.baseline, window.recognition)
    groups: dict[tuple[Slip, str], dict[Layer, Mistake]] = defaultdict(dict)
    for layer in window.model.layers:
        mistake = found.get(layer.weight.key)
        if mistake is None or layer.is_head or not layer.weight.trainable:
            continue
        if mistake.slip in _POWERS and _is_explained(window, layer):
            continue
        many = mistake.distinct >= limits["distinct"] or _is_usual(window, layer, mistake)
        if mistake.agreeing >= limits["agreeing"] and many:
            groups[mistake.slip, mistake.name][layer] = mistake
    return [_Case(slip, group) for (slip, _), group in groups.items()]


def _is_usual(window: Window, layer: Layer, mistake: Mistake) -> bool:
    """Whether most of the model's matrices have the std of the very formula, without the slip."""
    plain = [x for x in window.model.layers if x.is_plain]
    return 2 * sum(_follows(window, x, layer, mistake) for x in plain) > len(plain)


def _follows(window: Window, other: Layer, layer: Layer, mistake: Mistake) -> bool:
    scheme, stats = window.recognition.by_key.get(other.weight.key), window.first(other.weight)
    if scheme is None or stats is None or not (other.fan_in and layer.fan_in):
        return False
    if scheme.formula == mistake.formula:
        return scheme.is_effective_fan
    if not scheme.name.startswith("fixed_") or "fan_out" in mistake.formula:
        return False
    # Formulas of fan_in alone. One std for all is such a formula, too, where all fans but the mistaken one are equal.
    expected = mistake.expected_std * math.sqrt(layer.fan_in / other.fan_in)
    return abs(math.log(scheme.std / expected)) < 3.0 / math.sqrt(2.0 * stats.moments.count)


def _is_explained(window: Window, layer: Layer) -> bool:
    """Whether a formula of fans gives this very std: that some other formula's square does too is chance."""
    scheme = window.recognition.by_key.get(layer.weight.key)
    return scheme is not None and scheme.expected_std is not None and not scheme.name.startswith("fixed_")


def _severity(window: Window, case: _Case, limits: Limits) -> Severity:
    """Warning where it is felt: over a run of layers without normalization, that the signal passes one by one."""
    if case.slip in _CHOICES:
        return Severity.INFO
    for chain in window.model.chains:
        done = [case.octaves(x) for x in chain[1:]]
        wrong = [x for x in done if x]
        if len(wrong) > 1 and (abs(sum(done)) >= limits["total"] or abs(sum(wrong)) >= limits["layer"] * len(wrong)):
            return Severity.WARNING
    return Severity.INFO


def _finding(window: Window, case: _Case, rule: Rule, cause: Cause, severity: Severity) -> Finding:
    first = case.layers[0]
    mistake = case.mistakes[first]
    more = f", and so have {len(case.layers) - 1} more layers" if len(case.layers) > 1 else ""
    factor = number(mistake.std / mistake.expected_std)
    why = "; it is right for the gradient, not for the signal" if case.slip in _CHOICES else ""
    return Finding(
        rule=rule.id,
        severity=severity,
        cause=cause,
        step=window.step,
        subject=f"{case.slip} {mistake.name}",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{first.path} has the std {number(mistake.std)}{more}: {mistake.formula} with {mistake.wrong}, "
        f"{factor} times the {number(mistake.expected_std)} of the formula itself{why}.",
        remedy=_remedy(case),
        evidence={
            "std": mistake.std,
            "expected_std": mistake.expected_std,
            "octaves": case.octaves(first),
            "slip": str(case.slip),
            "formula": mistake.name,
            "layers": listed([x.path for x in case.layers]),
        },
    )


def _remedy(case: _Case) -> str:
    """The same draws, at the size that the formula gives without the slip."""
    lines = [
        f"{weight_code(x)}.data.mul_({number(m.expected_std / m.std)})  # std {number(m.expected_std)}: {m.formula}"
        for x, m in list(case.mistakes.items())[:_LINES]
    ]
    rest = len(case.layers) - _LINES
    return "\n".join([*lines, *([f"# and {rest} more layers by their own factor"] if rest > 0 else [])])


def _limits() -> dict[str, float]:
    return {"agreeing": 2, "distinct": 2, "layer": 1.0, "total": 3.0}


_FELT: Final = (
    "Of at least `agreeing` weights with `distinct` different stds, or in a model that follows the formula elsewhere. "
    "Warning where it moves the signal by `layer` octaves a layer or `total` octaves together, over a run of layers "
    "without normalization; else info."
)
WRONG_FAN: Final = Rule(
    id="wrong-fan",
    family="fans",
    check=check_fan,
    limits=_limits(),
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    explained_by=("mean-shift",),
    title="A formula with the wrong fan",
    statistic="A known formula (He, LeCun, Xavier, PyTorch's default) fits within 3 standard errors with a mistaken "
    f"fan, and no formula with the right one: {', '.join(str(s).replace('_', ' ') for s in Slip if s not in _POWERS)}. "
    f"{_FELT} fan_out, and swapped, is always info.",
    harmless="fan_out in the place of fan_in is He's choice for the gradient. In front of a norm the scale does not "
    "matter. Square matrices are the same either way; the other weights decide.",
    remedy="Scale each weight to the std of its own fan_in; the finding has the factors.",
    source="He et al. 2015; PyTorch takes fans from the shape alone, which is wrong for depthwise and transposed "
    "convolutions and fused projections.",
)
VARIANCE_AS_STD: Final = Rule(
    id="variance-as-std",
    family="fans",
    check=check_power,
    limits=_limits(),
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    explained_by=("mean-shift",),
    title="A variance in the place of a std",
    statistic="The square, or the root, of a known formula's std fits within 3 standard errors, and no formula itself. "
    f"{_FELT}",
    harmless="In front of a norm the scale does not matter.",
    remedy="Scale each weight to the std that the formula gives; `normal_` takes a std, not a variance.",
    source="torch.nn.init.normal_(tensor, mean, std).",
)
RULES: Final = (WRONG_FAN, VARIANCE_AS_STD)
