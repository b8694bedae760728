"""The rule on recurrent matrices, which act at every position: their gain, and states that stand at their bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import code_path, listed, number
from initscope.hooks.rules.signals import is_trained, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity

HOT_GAIN: Final = 4.0
"""std · √(width) of a recurrent matrix from which its units are flat; orthogonal matrices have 1."""


def recurrent_gain(window: Window, layer: Layer) -> float | None:
    """Std · √(width) at the baseline of a matrix that maps a state to the next one; None for any other."""
    size = rms(window.first(layer.weight))
    if not layer.weight.name.startswith("weight_hh") or not layer.fan_in or size is None:
        return None
    return size * math.sqrt(layer.fan_in)


def hot_recurrence(window: Window, limit: float = HOT_GAIN) -> tuple[Layer, float] | None:
    """The first recurrent matrix of that gain or more."""
    gains = ((x, recurrent_gain(window, x)) for x in window.model.layers if x.weight.trainable)
    return next(((x, gain) for x, gain in gains if gain is not None and gain >= limit), None)


def redraw_recurrent(window: Window, layer: Layer) -> str:
    """Lines that draw the cell's matrices anew."""
    cell = code_path(layer.path)
    size = rms(window.first(layer.weight)) or math.nan
    return (
        f"for name, p in {cell}.named_parameters():\n"
        "    (nn.init.orthogonal_ if 'weight_hh' in name else nn.init.xavier_uniform_ if 'weight' in name "
        f"else nn.init.zeros_)(p)\n# std of {layer.weight.name} was {number(size)}, orthogonal gives "
        f"{number(1.0 / math.sqrt(layer.fan_in or 1.0))}"
    )


def check_recurrent(window: Window, limits: Limits) -> Iterable[Finding]:
    """Recurrent matrices that are far too large, and whether the states they make are flat."""
    hot = hot_recurrence(window, limits["gain"])
    if hot is None or is_trained(window):
        return
    layer, gain = hot
    output = rms(window.stats(layer.output))
    # Only a plain cell's output is its state; that of gated cells is closed by other gates as well.
    is_plain = layer.weight.module_type in ("RNN", "RNNCell")
    flat = is_plain and output is not None and limits["flat"] <= output <= 1.0
    others = [x.path for x in window.model.layers if (recurrent_gain(window, x) or 0.0) >= limits["gain"]]
    words = f"; its states have rms {number(output)} of at most 1: they are flat" if flat and output else ""
    yield Finding(
        rule=RECURRENT_SCALE.id,
        severity=Severity.CRITICAL if flat else Severity.WARNING,
        cause=Cause.SATURATED_ACTIVATIONS,
        step=window.step,
        subject="run",
        module_path=layer.path,
        tensor_name=layer.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{layer.path}.{layer.weight.name} multiplies the state by about {number(gain)} at every position "
        f"(std · √width; 0.5 to 1.2 is healthy), so units and gates work in their flat part{words}.",
        remedy=redraw_recurrent(window, layer),
        evidence={"gain": gain, "state_rms": math.nan if output is None else output, "layers": listed(others)},
    )


RECURRENT_SCALE: Final = Rule(
    id="recurrent-scale",
    family="recurrent",
    check=check_recurrent,
    limits={"gain": HOT_GAIN, "flat": 0.85},
    patience=2,
    needs=(Kind.WEIGHT, Kind.ACTIVATION),
    explained_by=("constant-weights", "uninitialized-weights"),
    title="Recurrent matrices that are too large",
    statistic="std · √width of a state-to-state matrix at the start reaches `gain`. Critical where also the rms of a "
    "plain tanh cell's states, of at most 1, is `flat` or more; a warning for gated cells.",
    harmless="Orthogonal matrices have gain 1, PyTorch's default 0.58, identity matrices 1. Trained cells are not "
    "judged.",
    remedy="Draw state-to-state matrices orthogonal, input matrices with Xavier's rule, biases zero.",
    source="Le et al. 2015 and Saxe et al. 2014 for orthogonal recurrence; a tanh unit of input 4 has slope 0.0013.",
)
RULES: Final = (RECURRENT_SCALE,)
