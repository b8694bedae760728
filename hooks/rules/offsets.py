"""Rules on what does not average out: weights with a mean of their own, biases that outweigh the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import code_path, listed, number, redraw_all, zero_biases
from initscope.hooks.rules.signals import is_trained, matrices, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import RECTIFIERS, activation_name
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity
from initscope.hooks.wire import TensorInfo

# -- weights that do not average out -----------------------------------------------------------------------------------


def check_mean(window: Window, limits: Limits) -> Iterable[Finding]:
    """Matrices whose mean is large against their spread: every unit sums its inputs in the same way."""
    if is_trained(window):
        return
    hidden = [x for x in matrices(window) if x.is_plain and not x.is_head]
    shifted = [x for x in hidden if _is_shifted(window, x, limits)]
    if not shifted:
        return
    plain = not any(x.is_residual for x in window.model.layers)
    several = len(shifted) > 1 and len(shifted) >= limits["share"] * len(hidden)
    severity = Severity.WARNING if plain and several else Severity.INFO
    lost = max((_lost(window, chain, shifted) for chain in window.model.chains), default=0.0)
    if severity is Severity.WARNING and lost >= limits["lost"]:
        severity = Severity.CRITICAL
    yield _mean_finding(window, shifted, severity, lost)


def _is_shifted(window: Window, layer: Layer, limits: Limits) -> bool:
    stats = window.stats(layer.weight)
    if stats is None or stats.moments.finite_count < limits["elements"] or not stats.moments.std > 0.0:
        return False
    ratio = abs(stats.moments.mean) / stats.moments.std
    # A mean that adds up to less than one unit's own spread over all inputs does not matter.
    felt = ratio * math.sqrt(layer.fan_in or 1.0) > 1.0
    return felt and ratio > limits["ratio"] and ratio * math.sqrt(stats.moments.finite_count) > limits["deviations"]


def _lost(window: Window, chain: Sequence[Layer], shifted: Sequence[Layer]) -> float:
    """Octaves by which everything but the inputs' sum fades against it; 0 where a layer of the chain keeps it.

    A layer adds mean · Σx, of size |mean|·n·E[x], to a random part of size std·√n·rms(x). E[x] ÷ rms(x) is 0.8 for
    rectified normal inputs.
    """
    total = 0.0
    for layer in chain:
        stats = window.stats(layer.weight)
        if layer not in shifted or stats is None:
            return 0.0
        total += math.log2(0.8 * abs(stats.moments.mean) / stats.moments.std * math.sqrt(layer.fan_in or 1.0))
    return total


def _mean_finding(window: Window, shifted: Sequence[Layer], severity: Severity, lost: float) -> Finding:
    first = shifted[0]
    stats = window.stats(first.weight)
    mean, std = (stats.moments.mean, stats.moments.std) if stats is not None else (math.nan, math.nan)
    more = "" if len(shifted) == 1 else f", and {len(shifted) - 1} more layers are like it"
    end = f"; behind them nothing but that sum is left, by {lost:.0f} octaves" if severity is Severity.CRITICAL else ""
    return Finding(
        rule=MEAN_SHIFT.id,
        severity=severity,
        cause=Cause.CONSTANT_SYMMETRIC if severity is not Severity.INFO else Cause.NONE,
        step=window.step,
        subject="weights",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"The weights of {first.path} have mean {number(mean)} and std {number(std)}{more}: all units sum "
        f"their inputs in the same way, and differ little{end}.",
        remedy=redraw_all(shifted, std),
        evidence={
            "mean": mean,
            "std": std,
            "shifted_layers": float(len(shifted)),
            "lost_octaves": lost,
            "layers": listed([x.path for x in shifted]),
        },
    )


# -- biases ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Loud:
    layer: Layer
    bias: float
    made: float
    """Rms of what the weights make of the input."""


def check_bias(window: Window, limits: Limits) -> Iterable[Finding]:
    """Biases that outweigh what the weights make of the input, and biases that switch all units off."""
    if is_trained(window):
        return
    off = [x for x in _layers(window) if _is_off(window, x.bias, _made(window, x), x.activation_after, limits)]
    norms = [t for t in window.model.by_kind[Kind.WEIGHT] if _is_norm_off(window, t, limits)]
    if off or norms:
        yield _off_finding(window, off, norms, limits)
    loud = [x for x in _loud(window, limits) if x.layer not in off]
    if loud:
        yield _loud_finding(window, loud)


def _layers(window: Window) -> list[Layer]:
    """Hidden layers whose bias counts: no norm takes its mean away, and it is no time constant of a state space."""
    plain = [x for x in matrices(window) if x.is_plain and not x.is_head and x.bias is not None and not x.norm_after]
    return [x for x in plain if "dt_" not in x.path]


def _made(window: Window, layer: Layer) -> float:
    """Rms of the output without the bias, where it was measured; at least 1, as a healthy one has."""
    bias, output = rms(window.stats(layer.bias)), rms(window.stats(layer.output))
    if bias is None or output is None:
        return 1.0
    return math.sqrt(max(1.0, output * output - bias * bias))


def _loud(window: Window, limits: Limits) -> list[_Loud]:
    found = [
        _Loud(x, size, _made(window, x)) for x in _layers(window) if (size := rms(window.stats(x.bias))) is not None
    ]
    return [x for x in found if x.bias > limits["ratio"] * x.made]


def _is_off(window: Window, bias: TensorInfo | None, made: float, activation_after: str | None, limits: Limits) -> bool:
    """Whether every unit's bias lies so far below zero that its rectifier stays off for all inputs."""
    stats = window.stats(bias)
    if stats is None or bias is None or not bias.trainable or activation_name(activation_after) not in RECTIFIERS:
        return False
    return stats.moments.finite_count > 0 and stats.moments.max < -limits["off"] * made


def _is_norm_off(window: Window, bias: TensorInfo, limits: Limits) -> bool:
    """The same for the shift of a normalization, whose output has the rms of its gain."""
    if bias.role is not Role.NORM_BIAS:
        return False
    output = window.model.find(bias.module_path, "output", Kind.ACTIVATION)
    if output is None or output.residual:
        return False
    gain = rms(window.record(bias.module_path, "weight", Kind.WEIGHT))
    return _is_off(window, bias, 1.0 if gain is None else gain, output.activation_after, limits)


def _off_finding(window: Window, off: Sequence[Layer], norms: Sequence[TensorInfo], limits: Limits) -> Finding:
    biases = [x.bias for x in off if x.bias is not None] + list(norms)
    first = biases[0]
    stats, output = window.stats(first), window.record(first.module_path, "output", Kind.ACTIVATION)
    largest = stats.moments.max if stats is not None else math.nan
    dead = output is not None and output.channels.dead_fraction >= limits["dead"]
    seen = f"; {output.channels.dead_fraction:.0%} of them were off for every sample" if dead and output else ""
    return Finding(
        rule=BIAS_INIT.id,
        severity=Severity.CRITICAL if dead else Severity.WARNING,
        cause=Cause.BAD_BIAS,
        step=window.step,
        subject="off",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.WEIGHT,
        diagnosis=f"Every bias of {first.module_path} is {number(largest)} or less, in front of a rectifier: its units "
        f"are off and get no gradient{seen}.",
        remedy="\n".join(f"nn.init.zeros_({code_path(t.module_path, t.name)})" for t in biases[:_LINES]),
        evidence={"largest_bias": largest, "layers": listed([t.module_path for t in biases])},
    )


_LINES: Final = 6


def _loud_finding(window: Window, loud: Sequence[_Loud]) -> Finding:
    first = loud[0]
    more = "" if len(loud) == 1 else f", and so do those of {len(loud) - 1} more layers"
    bias = first.layer.bias
    return Finding(
        rule=BIAS_INIT.id,
        severity=Severity.INFO,
        cause=Cause.BAD_BIAS,
        step=window.step,
        subject="loud",
        module_path=first.layer.path,
        tensor_name=bias.name if bias is not None else None,
        kind=Kind.WEIGHT,
        diagnosis=f"The biases of {first.layer.path} have rms {number(first.bias)} and outweigh what its weights make "
        f"of the input, about {number(first.made)}{more}.",
        remedy=zero_biases([x.layer for x in loud]),
        evidence={"bias_rms": first.bias, "made_rms": first.made, "layers": listed([x.layer.path for x in loud])},
    )


MEAN_SHIFT: Final = Rule(
    id="mean-shift",
    family="offsets",
    check=check_mean,
    limits={"ratio": 0.3, "deviations": 6.0, "share": 0.25, "elements": 256, "lost": 9.0},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    explained_by=("constant-weights", "uninitialized-weights"),
    title="Weights with a mean of their own",
    statistic="|mean| ÷ std of a matrix of at least `elements` elements is above `ratio` and |mean|·√n ÷ std above "
    "`deviations`. Warning where that holds for at least two, and `share`, of the hidden matrices of a net without "
    "residual sums; critical where every layer of a run without normalization is so, and all that is not the inputs' "
    "common sum fades by `lost` octaves: Σ log2(0.8·|mean|÷std·√fan_in). Else info.",
    harmless="Residual nets learn all the same: info. Gates, rates and scales are no matrices. Trained weights and "
    "single layers are not alarmed of.",
    remedy="Draw around zero: `uniform_(w, -a, a)` instead of `uniform_(w, 0, a)`.",
    source="A common mean m adds m·Σx to every unit: a matrix of rank one that grows with fan_in, not with its root. "
    "Measured with ReLU: U(0, 2/n) in 3 layers learns nothing, and with batch norm little; "
    "in one layer of 8 it is harmless.",
)
BIAS_INIT: Final = Rule(
    id="bias-init",
    family="offsets",
    check=check_bias,
    limits={"ratio": 3.0, "off": 4.0, "dead": 0.995},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    explained_by=("uninitialized-weights",),
    title="Biases that outweigh the weights",
    statistic="rms of the biases above `ratio` times what the weights make of the input (measured, at least 1): info. "
    "Every bias in front of a rectifier below −`off` times that: warning, and critical where at least `dead` of the "
    "units were off for the whole first batch. Shifts of normalizations count by their gain.",
    harmless="The prior of a head, forget gates, biases in front of a norm are not judged; a positive bias is info.",
    remedy="`nn.init.zeros_(layer.bias)`.",
    source="P(z > 4σ) of a normal z is 3·10⁻⁵; below zero the slope of ReLU is zero.",
)
RULES: Final = (MEAN_SHIFT, BIAS_INIT)
