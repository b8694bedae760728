"""Rules on what happens to signal and gradient over depth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import number, redraw, redraw_all
from initscope.hooks.rules.signals import (
    Drift,
    at_step,
    backward_drift,
    forward_drift,
    is_zero,
    rms,
    signal_fraction,
)
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import BOUNDED, activation, activation_name
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity


def check_forward(window: Window, limits: Limits) -> Iterable[Finding]:
    """Outputs that grow or shrink over a chain of layers without normalization."""
    for chain in window.model.chains:
        drift = forward_drift(window, chain)
        if drift is None or not _is_early(window, limits, forward_drift(window, chain, window.baseline_step)):
            continue
        size = _harm(drift)
        if size < limits["warning"] + drift.tolerance:
            continue
        backward = backward_drift(window, chain)
        critical = backward is not None and _is_certain(drift, backward, limits)
        yield _forward_finding(window, drift, backward, critical)


def _harm(drift: Drift) -> float:
    """Octaves of growth, or of a loss that several layers share: a single layer that is too small heals."""
    return drift.total if drift.total > 0 else max(0.0, -drift.shared)


def _is_certain(forward: Drift, backward: Drift, limits: Limits) -> bool:
    """Whether signal and gradient both go the same way by far, in more than one layer."""
    sign = 1.0 if forward.total > 0 else -1.0
    need = limits["critical"] + forward.tolerance
    return sign * forward.shared >= need and sign * backward.shared >= need


def _is_early(window: Window, limits: Limits, start: Drift | None) -> bool:
    """Whether a drift now still says something of the start: soon after it, or there from the start."""
    if window.step - window.baseline_step <= limits["early"]:
        return True
    return start is not None and _harm(start) >= limits["warning"] + start.tolerance


def _forward_finding(window: Window, drift: Drift, backward: Drift | None, critical: bool) -> Finding:
    grows = drift.total > 0
    first, last = drift.layers[0], drift.layers[-1]
    a, b = rms(window.stats(first.output)) or 0.0, rms(window.stats(last.output)) or 0.0
    back = f", and its gradient {_changes(backward.total)} as much on the way back" if critical and backward else ""
    offender = drift.offender
    return Finding(
        rule=FORWARD_DRIFT.id,
        severity=Severity.CRITICAL if critical else Severity.WARNING,
        cause=_cause(window, drift, grows),
        step=window.step,
        subject=first.path,
        module_path=offender.path,
        tensor_name=offender.output.name if offender.output else None,
        kind=Kind.ACTIVATION,
        diagnosis=f"The signal {_changes(drift.total)} from rms {number(a)} at {first.path} to {number(b)} at "
        f"{last.path}: {abs(drift.total):.1f} octaves over {len(drift.layers)} layers{_share(drift)}{back}.",
        remedy=_remedy(window, drift),
        evidence=_evidence(drift, backward, window),
    )


def _changes(total: float) -> str:
    return "grows" if total > 0 else "fades"


def _share(drift: Drift) -> str:
    if not drift.is_local:
        return f", {drift.total / max(1, len(drift.steps) - 1):+.2f} a layer"
    return f", {drift.steps[drift.largest]:+.1f} of them at {drift.offender.path} alone"


def _cause(window: Window, drift: Drift, grows: bool) -> Cause:
    if not grows:
        return Cause.TOO_SMALL_VANISH
    return Cause.SATURATED_ACTIVATIONS if _saturation(window, drift.layers) >= 0.5 else Cause.TOO_LARGE_EXPLODE


def _saturation(window: Window, layers: Sequence[Layer]) -> float:
    """Median saturated fraction of the bounded activations; 0 for none."""
    records = [window.stats(x.output) for x in layers if activation_name(x.activation_after) in BOUNDED]
    values = sorted(
        s.channels.saturated_fraction for s in records if s is not None and math.isfinite(s.channels.saturated_fraction)
    )
    return values[len(values) // 2] if values else 0.0


def _remedy(window: Window, drift: Drift) -> str:
    offender = drift.offender
    stats = window.stats(offender.weight)
    now = stats.moments.std if stats is not None else None
    if drift.is_local:
        return redraw(offender, now)
    return redraw_all([offender, *(x for x in drift.layers if x is not offender)], now)


def _evidence(drift: Drift, other: Drift | None, window: Window) -> dict[str, float | str]:
    evidence: dict[str, float | str] = {
        "octaves": drift.total,
        "octaves_without_largest_step": drift.shared,
        "tolerance": drift.tolerance,
        "layer_count": float(len(drift.layers)),
        "largest_step": drift.steps[drift.largest],
        "largest_step_at": drift.layers[drift.largest].path,
        "saturated_fraction": _saturation(window, drift.layers),
    }
    return evidence if other is None else {**evidence, "octaves_other_way": other.total}


def check_backward(window: Window, limits: Limits) -> Iterable[Finding]:
    """Gradients that grow or fade from the end of a chain to its start."""
    for chain in window.model.chains:
        drift = backward_drift(window, chain)
        if drift is None or not _is_early(window, limits, backward_drift(window, chain, window.baseline_step)):
            continue
        if _harm(drift) < limits["warning"] + drift.tolerance:
            continue
        flat = _saturation(window, drift.layers)
        certain = drift.total >= limits["critical"] + drift.tolerance and flat >= limits["saturated"]
        yield _backward_finding(window, drift, flat, certain)


def _backward_finding(window: Window, drift: Drift, flat: float, critical: bool) -> Finding:
    first, last, offender = drift.layers[0], drift.layers[-1], drift.offender
    how = "grows" if drift.total > 0 else "fades"
    flatness = f"; {flat:.0%} of the activations are saturated" if flat >= 0.5 else ""
    return Finding(
        rule=BACKWARD_DRIFT.id,
        severity=Severity.CRITICAL if critical else Severity.WARNING,
        cause=_cause(window, drift, drift.total > 0),
        step=window.step,
        subject=first.path,
        module_path=offender.path,
        tensor_name=offender.output_gradient.name if offender.output_gradient else None,
        kind=Kind.ACTIVATION_GRADIENT,
        diagnosis=f"The gradient {how} by {abs(drift.total):.1f} octaves on its way back from {last.path} to "
        f"{first.path}{_share(drift)}{flatness}.",
        remedy=_remedy(window, drift),
        evidence=_evidence(drift, None, window),
    )


@dataclass(frozen=True, slots=True)
class _Collapse:
    layer: Layer
    fraction: float
    reference: float
    last: Layer


def check_collapse(window: Window, limits: Limits) -> Iterable[Finding]:
    """Outputs that no longer depend on the input, from some layer to the last hidden one."""
    batch = window.model.description.batch_size
    if batch is not None and batch < limits["batch"]:
        return
    collapse = _collapse(window, limits)
    if collapse is None or not (_is_plain_net(window) or _collapse(window, limits, window.baseline_step)):
        return
    source, cause, why, remedy = _origin(window, collapse)
    yield Finding(
        rule=SIGNAL_COLLAPSE.id,
        severity=Severity.CRITICAL,
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
            "reference": collapse.reference,
            "limit": limits["fraction"],
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
        if x.depth is not None and not x.is_head and (s := signal_fraction(at_step(window, x.output, step))) is not None
    ]
    limit = limits["fraction"] * (1.0 if all(_is_centred(x) for x, _ in known) else limits["uncentred"])
    reference, found = 0.0, None
    for layer, fraction in known:
        zero = is_zero(at_step(window, layer.weight, step))
        if fraction < limit * reference and not zero:
            found = found or _Collapse(layer, fraction, reference, known[-1][0])
        elif not (layer.is_residual and zero):
            found = None
        reference = max(reference, fraction)
    return found


def _is_centred(layer: Layer) -> bool:
    constants = activation(layer.activation_before)
    return constants is None or constants.is_scalable


def _origin(window: Window, collapse: _Collapse) -> tuple[Layer, Cause, str, str]:
    """Which layer to blame, why, and what to do."""
    layers = window.model.layers
    before = [x for x in layers[: layers.index(collapse.layer)] if x.depth is not None]
    dead = next((x for x in [*before, collapse.layer] if _dead(window, x) >= 0.99), None)
    if dead is not None:
        bias = window.stats(dead.bias)
        level = "" if bias is None else f" (mean bias {number(bias.moments.mean)})"
        return dead, Cause.DEAD_RELU, f"because no unit of {dead.path} is ever on{level}", _wake(dead)
    table = _drowned(window)
    if table is not None:
        std = rms(window.stats(table.weight))
        return table, Cause.BAD_EMBEDDING_SCALE, f"because {table.path} drowns the tokens", redraw(table, std)
    large = _saturation(window, [*before, collapse.layer]) >= 0.5
    cause = Cause.SATURATED_ACTIVATIONS if large else Cause.TOO_SMALL_VANISH
    stats = window.stats(collapse.layer.weight)
    fix = redraw_all(
        [collapse.layer, *(x for x in layers if x.is_plain and not x.is_head and x is not collapse.layer)],
        stats.moments.std if stats else None,
    )
    return collapse.layer, cause, "the rest is the same for all: biases outweigh the weights", f"{fix}; zero the biases"


def _dead(window: Window, layer: Layer) -> float:
    outputs = [t for t in window.model.by_kind[Kind.ACTIVATION] if t.module_path == layer.path]
    norms = [
        t for t in window.model.by_kind[Kind.ACTIVATION] if t.depth is not None and _follows(t.depth, layer, window)
    ]
    values = [s.channels.dead_fraction for t in [*outputs, *norms] if (s := window.stats(t)) is not None]
    return max((v for v in values if math.isfinite(v)), default=0.0)


def _follows(depth: int, layer: Layer, window: Window) -> bool:
    """Whether a module at that depth runs after the layer and before the next one (its norm, its activation)."""
    later = [
        x.depth
        for x in window.model.layers
        if x.depth is not None and layer.depth is not None and x.depth > layer.depth
    ]
    return layer.depth is not None and layer.depth < depth < min(later, default=depth + 1)


def _wake(layer: Layer) -> str:
    return f"{redraw(layer)}; and zero what shifts it: its bias, or the bias of the norm behind it"


def _drowned(window: Window) -> Layer | None:
    """A position table that is far larger than the token table."""
    tables = [x for x in window.model.layers if x.is_table]
    tokens = [v for x in tables if x.weight.role is not Role.POSITION and (v := rms(window.stats(x.weight)))]
    for table in tables:
        size = rms(window.stats(table.weight))
        if table.weight.role is Role.POSITION and size and tokens and size > 4 * max(tokens):
            return table
    return None


FORWARD_DRIFT: Final = Rule(
    id="forward-drift",
    family="propagation",
    check=check_forward,
    limits={"warning": 3.0, "critical": 6.0, "early": 20},
    needs=(Kind.ACTIVATION,),
    explained_by=("zero-weights", "constant-weights", "uninitialized-weights", "embedding-scale", "weight-scale"),
    title="The signal grows or fades with depth",
    statistic="Octaves (log2 rms) between the first and the last output of a run of layers without normalization or "
    "residual sum. Warning from `warning`, critical where forward and backward drift both reach `critical` without "
    "their largest step; two standard deviations of finite-width luck, 3.2·√Σ1/fan_in octaves, are added to both.",
    harmless="One layer that is too small heals: its gradient is as large as ever, so its step is left out where the "
    "signal fades. Normalization and residual sums end a run of layers.",
    source="Glorot and Bengio 2010; He et al. 2015; Hanin and Rolnick 2018 for the tolerance.",
)
BACKWARD_DRIFT: Final = Rule(
    id="backward-drift",
    family="propagation",
    check=check_backward,
    limits={"warning": 3.0, "critical": 6.0, "saturated": 0.5, "early": 20},
    needs=(Kind.ACTIVATION_GRADIENT,),
    explained_by=(
        "zero-weights",
        "constant-weights",
        "forward-drift",
        "signal-collapse",
        "dead-units",
        "saturation",
        "weight-scale",
    ),
    title="The gradient grows or fades on its way back",
    statistic="Octaves between the norms of the gradient at the last and the first output of a run of layers without "
    "normalization. Warning from `warning`; critical from `critical` where it grows and at least `saturated` of the "
    "bounded activations are flat. Tolerance as in forward-drift.",
    harmless="Batch normalization grows gradients by 0.276 octaves a layer by itself; it ends a run of layers.",
    source="Glorot and Bengio 2010, eq. 6; Yang et al. 2019 for batch normalization.",
)
SIGNAL_COLLAPSE: Final = Rule(
    id="signal-collapse",
    family="propagation",
    check=check_collapse,
    limits={"fraction": 0.03, "uncentred": 0.1, "batch": 8},
    patience=2,
    needs=(Kind.ACTIVATION,),
    explained_by=("zero-weights", "constant-weights", "nonfinite", "embedding-scale", "dead-units"),
    title="The output no longer depends on the input",
    statistic="signal_fraction (variance across samples ÷ mean square) under `fraction` times the largest of the "
    "layers before, from some layer to the last hidden one, in batches of at least `batch`.",
    harmless="Zero-initialised residual branches and heads; a branch that collapses while the stream goes on.",
    source="Schoenholz et al. 2017: in the ordered phase all inputs become one.",
)
RULES: Final = (SIGNAL_COLLAPSE, FORWARD_DRIFT, BACKWARD_DRIFT)
