"""Rules on units that cannot speak: dead rectifiers, flat activations; and on data that is too large for them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Final

from initscope.hooks.rules.blame import HOT_INPUT, blame_scale, first_layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.loss import loss_excess
from initscope.hooks.rules.remedy import listed, number, redraw_all
from initscope.hooks.rules.signals import input_rms, rms
from initscope.hooks.rules.updates import TINY, median_ratio
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import BOUNDED, RECTIFIERS, activation_name
from initscope.hooks.vocabulary import Cause, Kind, Severity
from initscope.hooks.wire import TensorInfo


def check_dead(window: Window, limits: Limits) -> Iterable[Finding]:
    """Layers whose rectified units are off for every sample seen so far."""
    dead: list[tuple[TensorInfo, float]] = []
    for tensor, stats in window.each(Kind.ACTIVATION):
        fraction = stats.channels.dead_fraction
        if activation_name(tensor.activation_after) in RECTIFIERS and fraction >= limits["warning"]:
            dead.append((tensor, fraction))
    if not dead:
        return
    first, fraction = next(((t, f) for t, f in dead if f >= limits["critical"] and not t.residual), dead[0])
    blocked = fraction >= limits["critical"] and not first.residual
    killed = not blocked and _is_being_killed(window, first, fraction, limits)
    layer = next((x for x in window.model.layers if x.path == first.module_path), None)
    bias = window.record(first.module_path, "bias", Kind.WEIGHT)
    shift = "" if bias is None or not math.isfinite(bias.moments.mean) else f" (mean bias {number(bias.moments.mean)})"
    end = ": no gradient passes, they stay off" if blocked else ""
    end = ", far more than at the start: steps that are too large kill them" if killed else end
    code = redraw_all([layer], biases=True) if layer is not None else "# draw the layer anew"
    yield Finding(
        rule=DEAD_UNITS.id,
        severity=Severity.CRITICAL if blocked or killed else Severity.WARNING,
        cause=Cause.LR_TOO_HIGH if killed and blame_scale(window) is None else Cause.DEAD_RELU,
        step=window.step,
        subject="run",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.ACTIVATION,
        diagnosis=f"{fraction:.0%} of the units of {first.module_path} were off for every sample so far{shift}{end}.",
        remedy=code,
        evidence={"dead_fraction": fraction, "layers": listed([t.module_path for t, _ in dead])},
    )


def _is_being_killed(window: Window, tensor: TensorInfo, fraction: float, limits: Limits) -> bool:
    """Whether units that were alive died by steps that are too large."""
    start = window.first(tensor)
    if start is None or not fraction - start.channels.dead_fraction >= limits["rise"]:
        return False
    ratios = [median_ratio(window, TINY, step) or 0.0 for step in window.steps]
    return max(ratios, default=0.0) >= limits["restless"]


def check_saturation(window: Window, limits: Limits) -> Iterable[Finding]:
    """Tanh and sigmoid layers that work in their flat part."""
    flat = [
        (t, s.channels.saturated_fraction)
        for t, s in window.each(Kind.ACTIVATION)
        if activation_name(t.activation_after) in BOUNDED and math.isfinite(s.channels.saturated_fraction)
    ]
    if not flat:
        return
    typical = median(f for _, f in flat)
    worst, most = max(flat, key=lambda pair: pair[1])
    if typical < limits["median"] and most < limits["one_layer"]:
        return
    wrong = [t.module_path for t, f in flat if f >= limits["median"]] if typical >= limits["median"] else []
    first = next((t for t, _ in flat if t.module_path in wrong), worst)
    layers = [x for x in window.model.layers if x.path in (wrong or [worst.module_path]) and x.is_plain]
    layer = next((x for x in layers if x.path == first.module_path), None)
    stats = window.stats(layer.weight) if layer is not None else None
    size = rms(window.stats(first)) or 0.0
    yield Finding(
        rule=SATURATION.id,
        severity=Severity.CRITICAL if typical >= limits["critical"] and _is_hot(window, limits) else Severity.WARNING,
        cause=Cause.SATURATED_ACTIVATIONS,
        step=window.step,
        subject="run",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.ACTIVATION,
        diagnosis=f"{typical:.0%} of the inputs of the median {first.activation_after} are in its flat part (most, "
        f"{most:.0%}, at {worst.module_path}; rms {number(size)} at {first.module_path}): gradients hardly pass.",
        remedy=redraw_all([layer, *(x for x in layers if x is not layer)], rms(stats))
        if layer is not None
        else f"# divide the layer's weights by {number(size)}",
        evidence={"median_fraction": typical, "largest_fraction": most, "largest_at": worst.module_path},
    )


def _is_hot(window: Window, limits: Limits) -> bool:
    """The second sign: a first loss far above a uniform guess, as only large weights make it."""
    known = loss_excess(window)
    return known is not None and known[0] > limits["loss_share"] * known[1]


def check_input(window: Window, limits: Limits) -> Iterable[Finding]:
    """Data whose rms is far above 1, seen through the first layer."""
    layer = first_layer(window)
    size = input_rms(window, layer) if layer is not None else None
    if layer is None or size is None or size <= limits["rms"]:
        return
    yield Finding(
        rule=UNSCALED_INPUT.id,
        severity=Severity.WARNING,
        cause=Cause.UNSCALED_INPUT,
        step=window.step,
        subject="input",
        module_path=layer.path,
        tensor_name=layer.output.name if layer.output else None,
        kind=Kind.ACTIVATION,
        diagnosis=f"The input of {layer.path} has rms {number(size)}: weights are drawn for an input of rms 1.",
        remedy=f"x = (x - mean) / std  # or nn.BatchNorm first; the input's rms is {number(size)}",
        evidence={"input_rms": size},
    )


DEAD_UNITS: Final = Rule(
    id="dead-units",
    family="units",
    check=check_dead,
    limits={"warning": 0.8, "critical": 0.995, "rise": 0.5, "restless": 0.02},
    patience=2,
    needs=(Kind.ACTIVATION,),
    explained_by=("zero-weights", "constant-weights", "norm-gain", "bias-init", "mean-shift", "update-ratio"),
    title="Dead rectifiers",
    statistic="dead_fraction: units in front of a ReLU that were never above zero. Warning from `warning`, critical "
    "from `critical` outside residual branches, or where it rose by `rise` since the start and the median update ratio "
    "reached `restless`.",
    harmless="Half of all elements of a healthy ReLU layer are zero, and a quarter of its units off for a batch.",
    remedy="Zero the biases and draw the layer anew; lower the learning rate where steps killed the units.",
    source="Lu et al. 2019 (born-dead networks): the slope of ReLU below zero is exactly zero.",
)
SATURATION: Final = Rule(
    id="saturation",
    family="units",
    check=check_saturation,
    limits={"median": 0.6, "one_layer": 0.9, "critical": 0.85, "loss_share": 3.0},
    patience=2,
    needs=(Kind.ACTIVATION,),
    explained_by=("weight-scale", "update-ratio", "unscaled-input"),
    title="Saturated activations",
    statistic="saturated_fraction: inputs of tanh beyond 2, of sigmoid beyond 4. Warning where the median layer has "
    "`median`, or one layer `one_layer`; critical where the median layer has `critical` and the first loss is more "
    "than `loss_share`·ln C above ln C.",
    harmless="Gates of LSTM and attention are functional and not judged. Tanh with gain 5/3 has about 0.1.",
    remedy="Divide the weights in front of the activation by the rms of its input.",
    source="Slope of tanh at 2: 0.07; of sigmoid at 4: 0.018.",
)
UNSCALED_INPUT: Final = Rule(
    id="unscaled-input",
    family="units",
    check=check_input,
    limits={"rms": HOT_INPUT},
    needs=(Kind.ACTIVATION, Kind.WEIGHT),
    baseline_only=True,
    title="Input that is not scaled",
    statistic="rms of the first layer's output ÷ (rms of its weights · √fan_in), the input's rms, above `rms`.",
    harmless="A norm in front of the first layer or right behind it; tables of tokens.",
    remedy="Standardise the data: `x = (x - mean) / std`.",
    source="He et al. 2015: the first layer's rule assumes E[x²] = 1.",
)
RULES: Final = (UNSCALED_INPUT, DEAD_UNITS, SATURATION)
