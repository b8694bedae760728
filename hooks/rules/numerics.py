"""Rules about numbers that are none: NaN, Inf, memory that was never initialized."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from initscope.hooks.moments import Moments
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import code_path, listed, number, redraw_all
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity
from initscope.hooks.wire import TensorInfo

_FATAL: Final = (Kind.WEIGHT, Kind.ACTIVATION, Kind.UPDATE)
_GRADIENTS: Final = (Kind.ACTIVATION_GRADIENT, Kind.GRADIENT)
_LINES: Final = 6
_RESET: Final = "# after `to_empty` or a meta device call reset_parameters() of every module"


def check_nonfinite(window: Window, _limits: Limits) -> Iterable[Finding]:
    """The first tensor on the way (weights, outputs, gradients, updates) that holds a NaN or an Inf."""
    first = next(_offenders(window), None)
    if first is not None:
        tensor, moments = first
        yield _nonfinite_finding(window, tensor, moments)
        return
    loss = window.scalar("loss", window.step)
    if loss is not None and not math.isfinite(loss):
        yield Finding(
            rule=NONFINITE.id,
            severity=Severity.CRITICAL,
            cause=Cause.NONFINITE,
            step=window.step,
            subject="run",
            diagnosis=f"The loss of step {window.step} is {loss}, while every recorded tensor is finite.",
            remedy="# look at what the loss does after the model's output: a log of zero, a division, an empty batch",
            evidence={"loss": str(loss)},
        )


def _offenders(window: Window) -> Iterator[tuple[TensorInfo, Moments]]:
    for kind in (Kind.WEIGHT, Kind.ACTIVATION):
        yield from _bad(window, kind)
    for kind in _GRADIENTS:
        # The backward pass starts at the end.
        yield from reversed(list(_bad(window, kind)))
    yield from _bad(window, Kind.UPDATE)


def _bad(window: Window, kind: Kind) -> Iterator[tuple[TensorInfo, Moments]]:
    for tensor, stats in window.each(kind):
        if stats.moments.nonfinite_count > 0:
            yield tensor, stats.moments


def _nonfinite_finding(window: Window, tensor: TensorInfo, m: Moments) -> Finding:
    fatal = tensor.kind in _FATAL or next(_bad(window, Kind.UPDATE), None) is not None
    what = tensor.kind.value.replace("_", " ")
    others = [t.module_path for t, _ in _offenders(window)]
    evidence: dict[str, float | str] = {
        "nan_count": float(m.nan_count),
        "posinf_count": float(m.posinf_count),
        "neginf_count": float(m.neginf_count),
        "count": float(m.count),
        "layers": listed(list(dict.fromkeys(others))),
    }
    return Finding(
        rule=NONFINITE.id,
        severity=Severity.CRITICAL if fatal else Severity.WARNING,
        cause=Cause.NONFINITE,
        step=window.step,
        subject="run",
        module_path=tensor.module_path,
        tensor_name=tensor.name,
        kind=tensor.kind,
        diagnosis=f"{tensor.module_path}: {m.nonfinite_count} of {m.count} elements of its {what} are NaN or Inf at "
        f"step {window.step}; it is the first on the way through the model.",
        remedy=_nonfinite_remedy(window, tensor),
        evidence=evidence,
    )


def _nonfinite_remedy(window: Window, tensor: TensorInfo) -> str:
    if tensor.kind is Kind.WEIGHT and window.is_baseline:
        return _write_anew(window, [t for t, _ in _bad(window, Kind.WEIGHT)])
    if tensor.kind in _GRADIENTS:
        return "torch.autograd.set_detect_anomaly(True)  # names the operation; a GradScaler skips such steps by design"
    return (
        "torch.autograd.set_detect_anomaly(True)  # names the operation\n"
        "# look at the findings of the steps before; lower the learning rate or add a warm-up"
    )


def _write_anew(window: Window, tensors: Sequence[TensorInfo]) -> str:
    """Lines that give every one of these parameters the value that its kind starts with."""
    keys = {t.key for t in tensors}
    layers = [x for x in window.model.layers if x.weight.key in keys]
    others = [t for t in tensors if t.key not in {x.weight.key for x in layers}]
    lines = [redraw_all(layers)] if layers else []
    for tensor in others[:_LINES]:
        call = "ones_" if tensor.role is Role.NORM_GAIN else "zeros_"
        lines.append(f"nn.init.{call}({code_path(tensor.module_path, tensor.name)})  # was never given a value")
    rest = len(others) - _LINES
    return "\n".join([*lines, *([f"# and {rest} more in the same way"] if rest > 0 else []), _RESET])


def check_uninitialized(window: Window, limits: Limits) -> Iterable[Finding]:
    """Weights so large that they are memory, not numbers."""
    wild = [t for t, s in window.each(Kind.WEIGHT) if s.moments.abs_max > limits["largest"]]
    if not wild:
        return
    first, stats = wild[0], window.stats(wild[0])
    largest = stats.moments.abs_max if stats is not None else math.nan
    name = f"{first.module_path}.{first.name}".lstrip(".")
    more = "" if len(wild) == 1 else f", and so do {len(wild) - 1} more tensors"
    yield Finding(
        rule=UNINITIALIZED.id,
        severity=Severity.CRITICAL,
        cause=Cause.NONFINITE,
        step=window.step,
        subject="weights",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{name} holds {number(largest)}{more}: memory that was never initialized.",
        remedy=_write_anew(window, wild),
        evidence={
            "abs_max": largest,
            "largest": limits["largest"],
            "layers": listed([t.module_path for t in wild]),
        },
    )


NONFINITE: Final = Rule(
    id="nonfinite",
    family="numerics",
    check=check_nonfinite,
    explained_by=(
        "uninitialized-weights",
        "update-ratio",
        "embedding-scale",
        "forward-drift",
        "residual-stream",
        "attention-logits",
        "unscaled-input",
        "initial-loss",
        "numeric-range",
        "loss-jump",
        "activation-runaway",
    ),
    title="NaN or Inf",
    statistic="Any NaN or Inf among the elements of a weight, output, gradient or update, or in the logged loss. "
    "Critical in weights, outputs, updates and the loss; a gradient alone is a warning, as the step may be skipped.",
    harmless="A GradScaler's first steps overflow by design and are skipped: gradients only, so a warning.",
    remedy="For weights at the start: call every module's `reset_parameters()`. Later: follow the findings of the "
    "steps before.",
    source="IEEE 754; the first tensor in the order of computation is the origin.",
)
UNINITIALIZED: Final = Rule(
    id="uninitialized-weights",
    family="numerics",
    check=check_uninitialized,
    limits={"largest": 1e6},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    title="Weights that were never initialized",
    statistic="A weight above `largest` in absolute value at the start.",
    harmless="No scheme draws such numbers. Buffers are not weights.",
    remedy="Call `reset_parameters()` of every module after `to_empty()`, then load or draw the weights.",
    source="Uninitialized memory read as floats spans the whole range of exponents.",
)
RULES: Final = (UNINITIALIZED, NONFINITE)
