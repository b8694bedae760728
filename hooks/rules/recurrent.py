"""The rule on recurrent matrices, which act at every position: their gain, and states that stand at their bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.loss import is_stuck
from initscope.hooks.rules.remedy import listed, number, redraw_recurrent
from initscope.hooks.rules.signals import HOT_GAIN, hot_recurrence, is_trained, recurrent_gain, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity


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
    is_lost = gain >= limits["lost"] and is_stuck(window, limits["wait"])
    others = [x.path for x in window.model.layers if (recurrent_gain(window, x) or 0.0) >= limits["gain"]]
    words = f"; its states have rms {number(output)} of at most 1: they are flat" if flat and output else ""
    yield Finding(
        rule=RECURRENT_SCALE.id,
        severity=Severity.CRITICAL if flat or is_lost else Severity.WARNING,
        cause=Cause.SATURATED_ACTIVATIONS,
        step=window.step,
        subject="run",
        module_path=layer.path,
        tensor_name=layer.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{layer.path}.{layer.weight.name} multiplies the state by about {number(gain)} at every position "
        f"(std · √width; 0.5 to 1.2 is healthy), so units and gates work in their flat part{words}.",
        remedy=redraw_recurrent(layer, rms(window.first(layer.weight))),
        evidence={"gain": gain, "state_rms": math.nan if output is None else output, "layers": listed(others)},
    )


RECURRENT_SCALE: Final = Rule(
    id="recurrent-scale",
    family="recurrent",
    check=check_recurrent,
    limits={"gain": HOT_GAIN, "flat": 0.85, "lost": 12.0, "wait": 10},
    patience=2,
    needs=(Kind.WEIGHT, Kind.ACTIVATION),
    explained_by=("constant-weights", "uninitialized-weights"),
    title="Recurrent matrices that are too large",
    statistic="std · √width of a state-to-state matrix at the start reaches `gain`. Critical where also the rms of a "
    "plain tanh cell's states, of at most 1, is `flat` or more; or where the gain reaches `lost` and after "
    "`wait` steps the loss is still that of knowing nothing. Else a warning.",
    harmless="Orthogonal matrices have gain 1, PyTorch's default 0.58, identity matrices 1. Trained cells are not "
    "judged.",
    remedy="Draw state-to-state matrices orthogonal, input matrices with Xavier's rule, biases zero.",
    source="Le et al. 2015 and Saxe et al. 2014 for orthogonal recurrence; a tanh unit of input 4 has slope 0.0013.",
)
RULES: Final = (RECURRENT_SCALE,)
