"""The rule on the gains of normalizations and on layer scales: a zero in the wrong place, or a number far from 1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from initscope.hooks.moments import TensorStats
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import code_path, listed, number
from initscope.hooks.rules.signals import is_trained, is_zero, matrices
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import RECTIFIERS, activation_name
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity
from initscope.hooks.wire import TensorInfo

_LAYER_SCALE: Final = re.compile(r"layer_?scale|\.(gamma|lambda)(_?\d)?$", re.IGNORECASE)


def check_gains(window: Window, limits: Limits) -> Iterable[Finding]:
    """Zero gains that block learning, zero gains that wake up, gains far from 1, layer scales that were left out."""
    known = [
        (t, s)
        for t, s in window.each(Kind.WEIGHT)
        if t.role is Role.NORM_GAIN and t.trainable and s.moments.finite_count == s.moments.count > 1
    ]
    zero = [t for t, s in known if is_zero(s) and _is_silent(window, t)]
    blocked = [t for t in zero if _is_blocked(window, t)]
    if blocked:
        yield _blocked_finding(window, blocked)
    waking = [t for t in zero if t not in blocked]
    if waking and window.is_baseline:
        yield _waking_finding(window, waking)
    if not is_trained(window):
        # By the start's own numbers at every step: a start that was wrong is not mended by training.
        at_start = [(t, first) for t, _ in known if (first := window.first(t)) is not None]
        yield from _odd(window, [(t, s) for t, s in at_start if not is_zero(s)], limits)
        yield from _layer_scales(window)


def _is_silent(window: Window, gain: TensorInfo) -> bool:
    """Whether nothing of the input passes. A gain that is stored as its distance from 1 is zero, and passes all."""
    output = window.stats(_output(window, gain))
    if output is None:
        return gain.module_type.startswith(("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "SyncBatchNorm"))
    fraction = output.channels.signal_fraction
    return is_zero(output) or fraction < 1e-9 or (output.moments.finite_count > 0 and output.moments.std == 0.0)


def _output(window: Window, gain: TensorInfo) -> TensorInfo | None:
    return window.model.find(gain.module_path, "output", Kind.ACTIVATION)


def _is_blocked(window: Window, gain: TensorInfo) -> bool:
    """Whether it stays zero: no gradient reaches it, and that is not only because a head starts at zero.

    At the start that needs a rectifier behind it, whose slope at zero is zero. A step later it needs no reason.
    """
    output = _output(window, gain)
    if (output is not None and output.residual) or any(
        x.is_head and is_zero(window.stats(x.weight)) for x in matrices(window)
    ):
        return False
    gradient = window.record(gain.module_path, gain.name, Kind.GRADIENT)
    if not window.is_baseline:
        return is_zero(gradient)
    behind = activation_name(output.activation_after if output is not None else gain.activation_after)
    if behind not in RECTIFIERS or (gradient is not None and not is_zero(gradient)):
        return False
    shift = window.record(gain.module_path, "bias", Kind.WEIGHT)
    return shift is None or not shift.moments.max > 0.0


def _blocked_finding(window: Window, blocked: Sequence[TensorInfo]) -> Finding:
    first = blocked[0]
    return Finding(
        rule=NORM_GAIN.id,
        severity=Severity.CRITICAL,
        cause=Cause.NORM_GAIN,
        step=window.step,
        subject="zero",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.WEIGHT,
        diagnosis=f"All {first.shape[0] if first.shape else 1} gains of {first.module_path} are zero and get no "
        f"gradient{_more(blocked)}: its output says nothing of the input, and stays so.",
        remedy=_ones(blocked),
        evidence={"zero_gains": float(len(blocked)), "layers": listed([t.module_path for t in blocked])},
    )


def _waking_finding(window: Window, waking: Sequence[TensorInfo]) -> Finding:
    first = waking[0]
    output = _output(window, first)
    where = "the last norm of a residual branch may start so" if output is not None and output.residual else ""
    return Finding(
        rule=NORM_GAIN.id,
        severity=Severity.INFO,
        cause=Cause.NONE if where else Cause.NORM_GAIN,
        step=window.step,
        subject="waking",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.WEIGHT,
        diagnosis=f"All gains of {first.module_path} are zero{_more(waking)}: "
        f"{where or 'they get a gradient and wake up, while nothing in front of them learns in the first steps'}.",
        remedy="# nothing to do while it wakes up within some steps" if where else _ones(waking),
        evidence={"zero_gains": float(len(waking)), "layers": listed([t.module_path for t in waking])},
    )


def _odd(window: Window, known: Sequence[tuple[TensorInfo, TensorStats]], limits: Limits) -> Iterator[Finding]:
    """Gains whose mean is far from 1. Near zero they may be stored as distances from 1."""
    odd = [
        (t, s.moments.mean)
        for t, s in known
        if not limits["smallest"] <= abs(s.moments.mean) <= limits["largest"]
        and abs(s.moments.mean) > s.moments.std
        and (output := _output(window, t)) is not None
        and not output.residual
    ]
    if not odd:
        return
    first, mean = odd[0]
    yield Finding(
        rule=NORM_GAIN.id,
        severity=Severity.INFO,
        cause=Cause.NORM_GAIN,
        step=window.step,
        subject="scale",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.WEIGHT,
        diagnosis=f"The gains of {first.module_path} have mean {number(mean)}, where 1 is usual"
        f"{_more([t for t, _ in odd])}.",
        remedy=_ones([t for t, _ in odd]),
        evidence={"mean": mean, "layers": listed([t.module_path for t, _ in odd])},
    )


def _layer_scales(window: Window) -> Iterator[Finding]:
    """Layer scales that are zero while others of the same kind are not: a reset left them out."""
    scales = [
        (t, s)
        for t in window.model.by_kind[Kind.WEIGHT]
        if (s := window.first(t)) is not None
        and t.role is Role.OTHER and len(t.shape) == 1 and t.trainable and s.moments.count > 1
        and _LAYER_SCALE.search(f"{t.module_type}.{t.module_path}.{t.name}")
    ]  # fmt: skip
    zero = [t for t, s in scales if is_zero(s)]
    if not zero:
        return
    usual = next((s.moments.mean for _, s in scales if not is_zero(s)), None)
    first = zero[0]
    others = "as ReZero's; layer scale itself starts at 1e-5 or more" if usual is None else "the others are not"
    yield Finding(
        rule=NORM_GAIN.id,
        severity=Severity.INFO if usual is None else Severity.WARNING,
        cause=Cause.NORM_GAIN,
        step=window.step,
        subject="layer-scale",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{len(zero)} of {len(scales)} layer scales are zero, {first.module_path} first; {others}.",
        remedy="\n".join(
            f"nn.init.constant_({code_path(t.module_path, t.name)}, {number(usual or 1e-5)})" for t in zero[:_LINES]
        ),
        evidence={"zero_scales": float(len(zero)), "layer_scales": float(len(scales))},
    )


_LINES: Final = 6


def _ones(gains: Sequence[TensorInfo]) -> str:
    lines = [f"nn.init.ones_({code_path(t.module_path, t.name)})" for t in gains[:_LINES]]
    rest = len(gains) - _LINES
    return "\n".join([*lines, *([f"# and {rest} more norms in the same way"] if rest > 0 else [])])


def _more(gains: Sequence[TensorInfo]) -> str:
    return "" if len(gains) == 1 else f"; so it is in {len(gains) - 1} more"


NORM_GAIN: Final = Rule(
    id="norm-gain",
    family="gains",
    check=check_gains,
    limits={"smallest": 0.5, "largest": 2.0},
    needs=(Kind.WEIGHT,),
    explained_by=("zero-weights",),
    title="Gain of a normalization that is zero or far from 1",
    statistic="All gains of a norm are zero and nothing of its input passes: critical where they get no gradient (a "
    "ReLU right behind them, or no gradient a step later), else info. Info for a mean gain outside `smallest` to "
    "`largest`. Layer scales that are exactly zero: warning where others are not, else info.",
    harmless="The last norm of a residual branch starts at zero on purpose, and so may a layer scale (ReZero). A gain "
    "that is stored as its distance from 1 is zero and passes everything. Frozen gains are not judged, of trained ones "
    "only zeros.",
    remedy="`nn.init.ones_(norm.weight)`; layer scales `1e-5`.",
    source="The slope of ReLU at zero is zero: γ = β = 0 in front of it gets no gradient.",
)
RULES: Final = (NORM_GAIN,)
