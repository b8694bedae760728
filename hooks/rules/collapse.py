"""The rule on outputs that no longer depend on the input."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import number, redraw, redraw_all, zero_biases
from initscope.hooks.rules.signals import (
    Drift,
    at_step,
    backward_drift,
    bias_share,
    forward_drift,
    is_adaptive,
    is_zero,
    rms,
    saturation,
    signal_fraction,
)
from initscope.hooks.rules.updates import hurried
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import activation
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity

FADED: Final = 3.0
"""Octaves lost along a chain from which its weights are what is too small."""
_NEVER_ON: Final = 0.99
"""Share of units that are never on from which a layer counts as dead."""


@dataclass(frozen=True, slots=True)
class _Collapse:
    layer: Layer
    fraction: float
    reference: float
    last: Layer
    end: float


def check_collapse(window: Window, limits: Limits) -> Iterable[Finding]:
    """Outputs that no longer depend on the input, from some layer to the last hidden one."""
    batch = window.model.description.batch_size
    if batch is not None and batch < limits["batch"]:
        return
    collapse = _collapse(window, limits)
    start = _collapse(window, limits, window.baseline_step)
    if collapse is None or not (start or _is_plain_net(window)):
        return
    source, cause, why, remedy = _origin(window, collapse)
    rate = hurried(window) if start is None else None
    if rate is not None:
        cause, why, remedy = rate.cause, f"which was not so at the start: {rate.why}", rate.remedy
    # What collapses later learns its biases first, and may come back; so may all with an adaptive optimizer.
    limit = limits["critical_adaptive" if start is None or is_adaptive(window) else "critical"]
    certain = collapse.end < limit * collapse.reference or cause is Cause.BAD_EMBEDDING_SCALE
    yield Finding(
        rule=SIGNAL_COLLAPSE.id,
        severity=Severity.CRITICAL if certain else Severity.WARNING,
        cause=cause,
        step=window.step,
        subject="run",
        module_path=source.path,
        tensor_name=source.output.name if source.output else None,
        kind=Kind.ACTIVATION,
        diagnosis=f"From {collapse.layer.path} on the output hardly depends on the input: {collapse.fraction:.2%} of "
        f"its mean square differs between samples (at most {collapse.reference:.0%} before), {why}.",
        remedy=remedy,
        evidence={
            "signal_fraction": collapse.fraction,
            "last_signal_fraction": collapse.end,
            "reference": collapse.reference,
            "last_layer": collapse.last.path,
        },
    )


def _is_plain_net(window: Window) -> bool:
    """Whether all hidden layers are one chain.

    Normalized and residual nets learn a direction that all samples share within steps, and live well with it.
    """
    hidden = [x for x in window.model.layers if x.depth is not None and x.output is not None and not x.is_head]
    return any(len(chain) == len(hidden) for chain in window.model.chains)


def _collapse(window: Window, limits: Limits, step: int | None = None) -> _Collapse | None:
    """The first layer of a collapse that lasts to the last hidden layer, at a step (default: the one judged)."""
    known = [
        (x, s)
        for x in window.model.layers
        # What a branch adds may depend on nothing while the stream goes on; who reads the stream shows that.
        if x.depth is not None
        and not (x.is_head or x.is_residual)
        and (s := signal_fraction(at_step(window, x.output, step))) is not None
    ]
    limit = _limit(window, limits)
    reference, found = 0.0, None
    for layer, fraction in known:
        if fraction < limit * reference and not is_zero(at_step(window, layer.weight, step)):
            found = found or _Collapse(layer, fraction, reference, *known[-1])
        else:
            found = None
        reference = max(reference, fraction)
    return found


def _limit(window: Window, limits: Limits) -> float:
    """Share of the largest signal fraction under which an output says nothing of its input."""
    if _drowned(window) is not None:
        return limits["fraction"]
    # What collapses only so far, an adaptive optimizer spreads again within some steps.
    limit = limits["fraction_adaptive" if is_adaptive(window) else "fraction"]
    return limit * (limits["uncentred"] if _has_common_mean(window) else 1.0)


def _has_common_mean(window: Window) -> bool:
    """Whether a healthy net's outputs share a large mean by design.

    Sigmoids are never negative; a residual stream of rectified branches adds up their means; and where the output has
    positions (an image), what differs between samples is where, not how much: the mean over positions hides it.
    """
    layers = window.model.layers
    is_dense = any(x.is_head and x.output is not None and len(x.output.shape) > 3 for x in layers)
    return is_dense or any(x.is_residual or not _is_centred(x) for x in layers if x.output is not None)


def _is_centred(layer: Layer) -> bool:
    constants = activation(layer.activation_before)
    return constants is None or constants.is_scalable


def _origin(window: Window, collapse: _Collapse) -> tuple[Layer, Cause, str, str]:
    """Which layer to blame, why, and what to do."""
    layers = window.model.layers
    before = [x for x in layers[: layers.index(collapse.layer)] if x.depth is not None]
    dead = _dead(window, [*before, collapse.layer])
    if dead is not None:
        bias = window.stats(dead.bias)
        level = "" if bias is None else f" (mean bias {number(bias.moments.mean)})"
        return dead, Cause.DEAD_RELU, f"because no unit of {dead.path} is ever on{level}", _wake(dead)
    table = _drowned(window)
    if table is not None:
        std = rms(window.stats(table.weight))
        return table, Cause.BAD_EMBEDDING_SCALE, f"because {table.path} drowns the tokens", redraw(table, std)
    shifted = [x for x in [*before, collapse.layer] if bias_share(window.stats(x.bias), window.stats(x.output)) > 0.9]
    if shifted:
        why = f"because the biases of {shifted[0].path} outweigh what its weights make of the input"
        return shifted[0], Cause.BAD_BIAS, why, zero_biases(shifted)
    large = saturation(window, [*before, collapse.layer]) >= 0.5
    cause = Cause.SATURATED_ACTIVATIONS if large else Cause.TOO_SMALL_VANISH
    same = "the rest is the same for all: biases outweigh the weights"
    drift = _fading(window, collapse.layer)
    if drift is None or large:
        others = [x for x in layers if x.is_plain and not x.is_head and x is not collapse.layer]
        return collapse.layer, cause, same, _redraw(window, [collapse.layer, *others])
    weak = drift.offender
    others = [] if drift.is_local else [x for x in drift.layers if x is not weak]
    why = (
        f"{same}, which are too small {'at' if drift.is_local else 'from'} {weak.path}{'' if drift.is_local else ' on'}"
    )
    return weak, cause, why, _redraw(window, [weak, *others])


def _fading(window: Window, layer: Layer) -> Drift | None:
    """What the chain of a layer lost at the start, of the signal or else of the gradient that the same weights carry.

    It names the layer where the fault begins, not the one where biases have taken over.
    """
    chain = next((c for c in window.model.chains if layer in c), ())
    step = window.baseline_step
    drifts = (forward_drift(window, chain, step), backward_drift(window, chain, step))
    return next((d for d in drifts if d is not None and d.total < 0 and d.reaches(FADED)), None)


def _redraw(window: Window, layers: list[Layer]) -> str:
    stats = window.first(layers[0].weight) or window.stats(layers[0].weight)
    return redraw_all(layers, stats.moments.std if stats else None, biases=True)


def _dead(window: Window, layers: Sequence[Layer]) -> Layer | None:
    """The first layer of which no unit is ever on: in its output, or in what runs before the next layer (its norm)."""
    at = sorted({x.depth for x in window.model.layers if x.depth is not None})
    by_path: dict[str, float] = {}
    by_depth: dict[int, float] = {}
    for tensor, stats in window.each(Kind.ACTIVATION):
        value = stats.channels.dead_fraction
        if not math.isfinite(value):
            continue
        by_path[tensor.module_path] = max(value, by_path.get(tensor.module_path, 0.0))
        next_ = len(at) if tensor.depth is None else bisect_left(at, tensor.depth)
        if tensor.depth is not None and next_ > 0 and tensor.depth not in at[next_ : next_ + 1]:
            by_depth[at[next_ - 1]] = max(value, by_depth.get(at[next_ - 1], 0.0))
    for layer in layers:
        behind = 0.0 if layer.depth is None else by_depth.get(layer.depth, 0.0)
        if max(by_path.get(layer.path, 0.0), behind) >= _NEVER_ON:
            return layer
    return None


def _wake(layer: Layer) -> str:
    return f"{redraw_all([layer], biases=True)}\n# and zero the bias of the norm behind it, if there is one"


def _drowned(window: Window) -> Layer | None:
    """A position table that is far larger than the token table."""
    tables = [x for x in window.model.layers if x.is_table]
    tokens = [v for x in tables if x.weight.role is not Role.POSITION and (v := rms(window.stats(x.weight)))]
    for table in tables:
        size = rms(window.stats(table.weight))
        if table.weight.role is Role.POSITION and size and tokens and size > 4 * max(tokens):
            return table
    return None


SIGNAL_COLLAPSE: Final = Rule(
    id="signal-collapse",
    family="collapse",
    check=check_collapse,
    limits={
        "fraction": 0.03,
        "fraction_adaptive": 1e-3,
        "uncentred": 0.1,
        "critical": 0.008,
        "critical_adaptive": 1e-5,
        "batch": 8,
    },
    patience=2,
    needs=(Kind.ACTIVATION,),
    explained_by=(
        "zero-weights",
        "constant-weights",
        "nonfinite",
        "embedding-scale",
        "dead-units",
        "residual-stream",
        "norm-gain",
        "mean-shift",
        "bias-init",
    ),
    title="The output no longer depends on the input",
    statistic="signal_fraction (variance across samples ÷ mean square) under `fraction` (with an adaptive optimizer "
    "`fraction_adaptive`) times the largest of the layers before, from some layer to the last hidden one, in batches "
    "of at least `batch` (times `uncentred` with sigmoids, residual sums and outputs that have positions: a mean that "
    "all samples share shrinks it there). With normalization or residual sums: only if it was so at the start. "
    "Critical where the last hidden layer is under `critical` times the largest (`critical_adaptive` where the "
    "optimizer is adaptive or the start was better), or where positions drown the tokens (`fraction` for all).",
    harmless="Zero-initialised residual branches and heads; a branch that collapses while the stream goes on.",
    remedy="Draw the layers from the named one on with their gain, and zero their biases; or add normalization.",
    source="Schoenholz et al. 2017: in the ordered phase all inputs become one.",
)
RULES: Final = (SIGNAL_COLLAPSE,)
