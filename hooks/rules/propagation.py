"""Rules on what happens to signal and gradient over depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import number, redraw_drift
from initscope.hooks.rules.signals import (
    Drift,
    backward_drift,
    forward_drift,
    is_adaptive,
    rms,
    saturation,
)
from initscope.hooks.rules.updates import blame_steps, hurried
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import BOUNDED, activation_name
from initscope.hooks.vocabulary import Cause, Kind, Severity


def check_forward(window: Window, limits: Limits) -> Iterable[Finding]:
    """Outputs that grow or shrink over a chain of layers without normalization."""
    for chain in window.model.chains:
        drift = forward_drift(window, chain)
        start = forward_drift(window, chain, window.baseline_step)
        if drift is None or not _is_early(window, limits, start):
            continue
        if not drift.reaches(limits["warning"]):
            continue
        backward = backward_drift(window, chain)
        critical = backward is not None and _is_certain(drift, backward, limits, is_adaptive(window))
        origin = _origin(drift, start, limits)
        yield _rushed(window, _forward_finding(window, drift, backward, critical, origin), limits, start, drift)


def _is_certain(forward: Drift, backward: Drift, limits: Limits, adaptive: bool) -> bool:
    """Whether signal and gradient both go the same way by far, in more than one layer.

    Adaptive optimizers make up for gradients that are small alike, up to a point; for large outputs they do not.
    """
    sign = 1.0 if forward.total > 0 else -1.0
    need = limits["critical_adaptive" if sign < 0 and adaptive else "critical"] + forward.tolerance
    return sign * forward.shared >= need and sign * backward.shared >= need


def _is_early(window: Window, limits: Limits, start: Drift | None) -> bool:
    """Whether a drift now still says something of the start: soon after it, or there from the start."""
    return window.step - window.baseline_step <= limits["early"] or _was_there(limits, start)


def _was_there(limits: Limits, start: Drift | None) -> bool:
    return start is not None and start.reaches(limits["warning"])


def _origin(drift: Drift, start: Drift | None, limits: Limits) -> Drift:
    """The drift to blame: that of the start, which no step has blurred yet, if it was there and went the same way."""
    if start is None or not _was_there(limits, start) or start.total * drift.total < 0:
        return drift
    return start


def _rushed(window: Window, finding: Finding, limits: Limits, start: Drift | None, drift: Drift) -> Finding:
    """The finding, with the learning rate as its cause where the start was fine and the steps were not."""
    if start is None or _was_there(limits, start):
        return finding
    new = drift.total > 0 and start.total < 0.5 * drift.total
    blame = blame_steps(window) if new else hurried(window)
    if blame is None:
        return finding
    words = f"{finding.diagnosis} It was not so at the start: {blame.why}."
    return replace(finding, cause=blame.cause, remedy=blame.remedy, diagnosis=words)


def _forward_finding(window: Window, drift: Drift, backward: Drift | None, critical: bool, origin: Drift) -> Finding:
    grows = drift.total > 0
    first, last = drift.layers[0], drift.layers[-1]
    a, b = rms(window.stats(first.output)) or 0.0, rms(window.stats(last.output)) or 0.0
    back = f", and its gradient {_changes(backward.total)} as much on the way back" if critical and backward else ""
    offender = origin.offender
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
        remedy=_remedy(window, origin),
        evidence=_evidence(drift, backward, window),
    )


def _changes(total: float) -> str:
    return "grows" if total > 0 else "fades"


def _share(drift: Drift) -> str:
    if not drift.is_local:
        return f", {drift.total / max(1, len(drift.steps) - 1):+.2f} a layer"
    return f", {drift.steps[drift.largest]:+.1f} of them at {drift.layers[drift.largest].path} alone"


def _cause(window: Window, drift: Drift, grows: bool) -> Cause:
    if not grows:
        return Cause.TOO_SMALL_VANISH
    return Cause.SATURATED_ACTIVATIONS if saturation(window, drift.layers) >= 0.5 else Cause.TOO_LARGE_EXPLODE


def _remedy(window: Window, drift: Drift) -> str:
    stats = window.first(drift.offender.weight) or window.stats(drift.offender.weight)
    now = stats.moments.std if stats is not None else None
    return redraw_drift(drift, now)


def _evidence(drift: Drift, other: Drift | None, window: Window) -> dict[str, float | str]:
    evidence: dict[str, float | str] = {
        "octaves": drift.total,
        "octaves_without_largest_step": drift.shared,
        "tolerance": drift.tolerance,
        "layer_count": float(len(drift.layers)),
        "largest_step": drift.steps[drift.largest],
        "largest_step_at": drift.layers[drift.largest].path,
        "saturated_fraction": saturation(window, drift.layers),
    }
    return evidence if other is None else {**evidence, "octaves_other_way": other.total}


def check_backward(window: Window, limits: Limits) -> Iterable[Finding]:
    """Gradients that grow or fade from the end of a chain to its start."""
    for chain in window.model.chains:
        drift = backward_drift(window, chain)
        start = backward_drift(window, chain, window.baseline_step)
        if drift is None or not _is_early(window, limits, start):
            continue
        if not drift.reaches(limits["warning"]) or _is_branch(window, chain, drift):
            continue
        flat = saturation(window, drift.layers)
        certain = drift.total >= limits["critical"] + drift.tolerance and flat >= limits["saturated"]
        origin = _origin(drift, start, limits)
        yield _rushed(window, _backward_finding(window, drift, flat, certain, origin), limits, start, drift)


def _is_branch(window: Window, chain: Sequence[Layer], drift: Drift) -> bool:
    """Whether a gradient that grows comes from elsewhere, as in a U-Net.

    The same weights carry signal and gradient: without bounded activations both grow, or neither.
    """
    if drift.total < 0 or any(activation_name(x.activation_after) in BOUNDED for x in chain):
        return False
    forward = forward_drift(window, chain)
    return forward is not None and forward.total < 0.5 * drift.total


def _backward_finding(window: Window, drift: Drift, flat: float, critical: bool, origin: Drift) -> Finding:
    first, last, offender = drift.layers[0], drift.layers[-1], origin.offender
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
        remedy=_remedy(window, origin),
        evidence=_evidence(drift, None, window),
    )


FORWARD_DRIFT: Final = Rule(
    id="forward-drift",
    family="propagation",
    check=check_forward,
    limits={"warning": 3.0, "critical": 6.0, "critical_adaptive": 10.0, "early": 20},
    needs=(Kind.ACTIVATION,),
    explained_by=(
        "zero-weights",
        "constant-weights",
        "uninitialized-weights",
        "norm-gain",
        "mean-shift",
        "wrong-fan",
        "variance-as-std",
        "embedding-scale",
        "weight-scale",
    ),
    title="The signal grows or fades with depth",
    statistic="Octaves (log2 rms) between the first and the last output of a run of layers without normalization or "
    "residual sum. Warning from `warning`. Critical where forward and backward drift both reach `critical` without "
    "their largest step (`critical_adaptive` where they fade and the optimizer is adaptive). Two standard deviations "
    "of the luck of finite width, 3.2·√Σ1/fan_in octaves, are added to all.",
    harmless="One layer that is too small heals: its gradient is as large as ever, so its step is left out where the "
    "signal fades. Normalization and residual sums end a run of layers.",
    remedy="Draw the named layers with gain(activation)/√fan_in.",
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
        "norm-gain",
        "bias-init",
        "mean-shift",
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
    remedy="Draw the named layers with gain(activation)/√fan_in, or add normalization.",
    source="Glorot and Bengio 2010, eq. 6; Yang et al. 2019 for batch normalization.",
)
RULES: Final = (FORWARD_DRIFT, BACKWARD_DRIFT)
