"""The rule on the scale of weights: measured std against the std that keeps this layer's signal alive."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, number, redraw, redraw_all
from initscope.hooks.rules.signals import is_adaptive, is_trained, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import expected_std, growth, width_tolerance
from initscope.hooks.vocabulary import Cause, Kind, Severity


@dataclass(frozen=True, slots=True)
class _Scaled:
    layer: Layer
    size: float
    expected: float

    @property
    def octaves(self) -> float:
        return math.log2(self.size / self.expected)


def check_scale(window: Window, limits: Limits) -> Iterable[Finding]:
    """Chains whose weights are off together, and single layers that are off alone."""
    if is_trained(window):
        return
    for chain in window.model.chains:
        scaled = [s for x in chain[1:] if (s := _scaled(window, x)) is not None]
        if scaled:
            yield from _judge(window, chain[0], scaled, limits)


def _scaled(window: Window, layer: Layer) -> _Scaled | None:
    size = rms(window.stats(layer.weight))
    expected = expected_std(layer.fan_in, layer.activation_before) if layer.fan_in else None
    if not size or expected is None or not layer.weight.trainable or "lora" in layer.path.lower():
        return None
    return _Scaled(layer, size, expected)


def _judge(window: Window, first: Layer, scaled: Sequence[_Scaled], limits: Limits) -> Iterable[Finding]:
    typical = median(s.octaves for s in scaled)
    odd = [s for s in scaled if abs(s.octaves - typical) >= limits["one_layer"]]
    # Outliers are few; where widths alternate, layers that are off in turns make up for each other.
    odd = odd if len(odd) <= max(1, len(scaled) // 4) else []
    # What stands out is judged on its own: it counts as healthy here.
    stages = [
        ((s.expected if s in odd else s.size) * math.sqrt(s.layer.fan_in or 1.0), s.layer.activation_before)
        for s in scaled
    ]
    forward, backward = growth(stages, rms(window.stats(first.output)) or 1.0)
    drift, what = (backward, "gradient") if abs(backward) > abs(forward) + _CLEAR else (forward, "signal")
    tolerance = 2 * width_tolerance(s.layer.fan_in for s in scaled if s.layer.fan_in)
    scheme = _scheme(scaled)
    enough = len(scaled) + 1 >= limits["default_layers"] if scheme is _DEFAULT else len(scaled) > 1
    heals = drift < 0.0 and is_adaptive(window)
    if abs(drift) >= limits["drift_adaptive" if heals else "drift"] + tolerance and enough:
        yield _chain_finding(window, first, scaled, (drift, what), scheme)
    if odd:
        yield _layer_finding(window, odd[0], odd, typical)


_CLEAR: Final = 0.5
"""Octaves by which the gradient must change more than the signal to be named instead of it."""
_DEFAULT: Final = "PyTorch's default, kaiming_uniform_(a=√5), which is 1/√(3·fan_in)"


def _scheme(scaled: Sequence[_Scaled]) -> str:
    """The rule that these weights seem to follow, in words."""
    ratios = [s.size * math.sqrt(3 * (s.layer.fan_in or 1)) for s in scaled]
    # Not of all layers: PyTorch takes another fan for transposed convolutions.
    if 2 * sum(abs(r - 1) < 0.03 for r in ratios) >= len(ratios):
        return _DEFAULT
    sizes = [s.size for s in scaled]
    if max(sizes) < 1.05 * min(sizes):
        return f"a fixed std of {number(median(sizes))}, whatever the fan_in"
    return f"{number(2 ** median(s.octaves for s in scaled))} times the std that keeps the signal"


def _chain_finding(
    window: Window, first: Layer, scaled: Sequence[_Scaled], predicted: tuple[float, str], scheme: str
) -> Finding:
    drift, what = predicted
    sign = 1.0 if drift > 0 else -1.0
    total = sum(s.octaves for s in scaled)
    worst = next((s for s in scaled if sign * s.octaves >= 0.5 * abs(total) / len(scaled)), scaled[0])
    how = "grow" if drift > 0 else "fade"
    return Finding(
        rule=WEIGHT_SCALE.id,
        severity=Severity.WARNING,
        cause=Cause.TOO_LARGE_EXPLODE if drift > 0 else Cause.TOO_SMALL_VANISH,
        step=window.step,
        subject=first.path,
        module_path=worst.layer.path,
        tensor_name=worst.layer.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"The weights follow {scheme}: {worst.layer.path} has std {number(worst.size)}, expected "
        f"{number(worst.expected)}. Over {len(scaled)} layers they make the {what} {how} by {abs(drift):.1f} octaves.",
        remedy=redraw_all([worst.layer, *(s.layer for s in scaled if s is not worst)], worst.size),
        evidence={
            "std": worst.size,
            "expected_std": worst.expected,
            "predicted_octaves": drift,
            "layer_count": float(len(scaled)),
            "scheme": scheme,
        },
    )


def _layer_finding(window: Window, worst: _Scaled, odd: Sequence[_Scaled], typical: float) -> Finding:
    large = worst.octaves > typical
    return Finding(
        rule=WEIGHT_SCALE.id,
        severity=Severity.WARNING if large else Severity.INFO,
        cause=Cause.TOO_LARGE_EXPLODE if large else Cause.TOO_SMALL_VANISH,
        step=window.step,
        module_path=worst.layer.path,
        tensor_name=worst.layer.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{worst.layer.path} has std {number(worst.size)}, {number(2 ** abs(worst.octaves))} times too "
        f"{'large' if large else 'small'} for its {worst.layer.fan_in:.0f} inputs; its neighbours are not.",
        remedy=redraw(worst.layer, worst.size),
        evidence={
            "std": worst.size,
            "expected_std": worst.expected,
            "octaves": worst.octaves,
            "layers": listed([s.layer.path for s in odd]),
        },
    )


WEIGHT_SCALE: Final = Rule(
    id="weight-scale",
    family="scale",
    check=check_scale,
    limits={"drift": 3.0, "drift_adaptive": 8.0, "one_layer": 3.0, "default_layers": 6},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    explained_by=(
        "constant-weights",
        "uninitialized-weights",
        "mean-shift",
        "wrong-fan",
        "variance-as-std",
        "forward-drift",
        "signal-collapse",
    ),
    title="Weights of the wrong scale",
    statistic="Octaves by which the std of the weights alone, without biases, lets signal or gradient grow or fade "
    "over a run of layers without normalization: q → σ²·fan_in·E[φ(√q z)²]. Warning from `drift` (`drift_adaptive` "
    "where they fade and the optimizer is adaptive) and the tolerance of finite width (PyTorch's default: from "
    "`default_layers` layers), or where one layer's std ÷ (gain(activation) ÷ √fan_in) is `one_layer` octaves above "
    "its neighbours'; info where it is below them.",
    harmless="In front of a norm the scale does not matter; a single layer that is too small heals; trained weights, "
    "heads, adapters, residual outputs and sigmoid stacks follow no such rule and are not judged.",
    remedy="Draw the named layers with gain(activation)/√fan_in; the finding has a line a group of layers.",
    source="He et al. 2015, with 1/√E[φ²] as the gain of other activations.",
)
RULES: Final = (WEIGHT_SCALE,)
