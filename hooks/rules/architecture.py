"""The rule on shapes that no initialization can make up for: remarks, as they are meant for the next model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, number
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import RECTIFIERS, activation_name
from initscope.hooks.vocabulary import Cause, Kind, Severity


def check_architecture(window: Window, limits: Limits) -> Iterable[Finding]:
    """Stacks of sigmoids, deep narrow nets of rectifiers, nets that are too deep for their width."""
    for chain in window.model.chains:
        layers = [x for x in chain if x.weight.trainable]
        if len(layers) < 2:
            continue
        yield from _sigmoids(window, layers, limits)
        yield from _narrow(window, layers, limits)
        yield from _deep(window, layers, limits)


def _sigmoids(window: Window, layers: Sequence[Layer], limits: Limits) -> Iterable[Finding]:
    flat = [x for x in layers if activation_name(x.activation_after) == "sigmoid"]
    if len(flat) < limits["sigmoids"]:
        return
    yield _remark(
        window,
        "sigmoids",
        flat,
        Cause.TOO_SMALL_VANISH,
        f"{len(flat)} sigmoid layers in a row, {flat[0].path} first, without normalization: whatever the weights, the "
        "gradient fades by 1.5 to 2.8 octaves a layer",
        "# nn.Tanh() or nn.ReLU() instead of nn.Sigmoid() in hidden layers, or a norm in front of each",
        {"sigmoid_layers": float(len(flat))},
    )


def _narrow(window: Window, layers: Sequence[Layer], limits: Limits) -> Iterable[Finding]:
    off = [x for x in layers if activation_name(x.activation_after) in RECTIFIERS]
    widths = [_units(x) for x in off]
    if len(off) < limits["narrow_layers"] or max(widths, default=0) >= limits["narrow"]:
        return
    alive = math.prod(1.0 - 2.0**-n for n in widths)
    yield _remark(
        window,
        "narrow",
        off,
        Cause.DEAD_RELU,
        f"{len(off)} ReLU layers of at most {max(widths)} units: with chance {1 - alive:.0%} all units of one of them "
        "are off for an input, and the rest of the net sees nothing of it",
        "# wider layers, nn.LeakyReLU(), or residual sums",
        {"layer_count": float(len(off)), "largest_width": float(max(widths)), "chance_dead": 1 - alive},
    )


def _deep(window: Window, layers: Sequence[Layer], limits: Limits) -> Iterable[Finding]:
    luck = sum(1.0 / x.fan_in for x in layers[1:] if x.fan_in)
    if luck <= limits["luck"]:
        return
    yield _remark(
        window,
        "deep",
        layers,
        Cause.NONE,
        f"{len(layers)} layers without normalization have Σ1/fan_in = {number(luck)}: by chance alone the signal's "
        f"size varies by {1.61 * math.sqrt(luck):.1f} octaves from seed to seed, with any initialization",
        "# wider layers, residual sums or normalization; of several seeds some may fail",
        {"sum_of_inverse_widths": luck, "octaves": 1.61 * math.sqrt(luck)},
    )


def _units(layer: Layer) -> int:
    return layer.weight.shape[0]


def _remark(
    window: Window,
    what: str,
    layers: Sequence[Layer],
    cause: Cause,
    diagnosis: str,
    remedy: str,
    evidence: dict[str, float | str],
) -> Finding:
    return Finding(
        rule=ARCHITECTURE.id,
        severity=Severity.INFO,
        cause=cause,
        step=window.step,
        subject=f"{what} {layers[0].path}",
        module_path=layers[0].path,
        tensor_name=layers[0].weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{diagnosis}.",
        remedy=remedy,
        evidence={**evidence, "layers": listed([x.path for x in layers])},
    )


ARCHITECTURE: Final = Rule(
    id="architecture",
    family="architecture",
    check=check_architecture,
    limits={"sigmoids": 4, "narrow": 8, "narrow_layers": 6, "luck": 1.0},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    title="A shape that is hard to start",
    statistic="In a run of layers without normalization or residual sum: at least `sigmoids` sigmoid layers; at least "
    "`narrow_layers` ReLU layers that all have fewer than `narrow` units; Σ1/fan_in above `luck`. Info: rules that "
    "measure signals say whether it harms.",
    harmless="Normalization and residual sums end a run of layers; wide nets may be deep.",
    remedy="Other activations, wider layers, residual sums or normalization.",
    source="Schoenholz et al. 2017 (no critical point for sigmoids); Lu et al. 2019 (a ReLU layer of n units is off "
    "with chance 2⁻ⁿ); Hanin and Rolnick 2018 (Σ1/n).",
)
RULES: Final = (ARCHITECTURE,)
