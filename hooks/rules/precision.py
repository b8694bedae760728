"""Rules on what a number format can hold: float16 near its end, gradients and updates that it rounds to nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from initscope.hooks.moments import Moments, TensorStats
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, number
from initscope.hooks.rules.signals import is_trained
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity
from initscope.hooks.wire import TensorInfo

_LARGEST: Final = 65504.0
"""The largest number of float16 (IEEE 754 binary16)."""
_SMALLEST: Final = 2.0**-24
"""The smallest positive number of float16."""
_HALF: Final = ("float16", "half")
_SHORT: Final = ("float16", "half", "bfloat16")


def check_range(window: Window, limits: Limits) -> Iterable[Finding]:
    """Outputs near the end of float16, gradients near its beginning, updates that the weight's format cannot show."""
    yield from _overflow(window, limits)
    yield from _flushed(window, limits)
    yield from _lost(window, limits)


def _overflow(window: Window, limits: Limits) -> Iterable[Finding]:
    limit = _LARGEST * limits["headroom"]
    near = [(t, s.moments.abs_max) for t, s in window.each(Kind.ACTIVATION) if t.dtype in _HALF]
    near = [(t, largest) for t, largest in near if largest >= limit]
    if not near:
        return
    first, largest = near[0]
    yield Finding(
        rule=NUMERIC_RANGE.id,
        severity=Severity.INFO if is_trained(window) else Severity.WARNING,
        cause=Cause.NUMERIC_RANGE,
        step=window.step,
        subject="overflow",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.ACTIVATION,
        diagnosis=f"The output of {first.module_path} reaches {number(largest)} in float16, which ends at "
        f"{number(_LARGEST)}{_more(len(near))}: a little growth and it is Inf.",
        remedy="torch.autocast(device_type, dtype=torch.bfloat16)  # the range of float32; "
        f"or scale {first.module_path} by {number(1.0 / largest)}",
        evidence={"abs_max": largest, "limit": _LARGEST, "layers": listed([t.module_path for t, _ in near])},
    )


def _flushed(window: Window, limits: Limits) -> Iterable[Finding]:
    measured = [(t, s.moments) for t, s in window.each(Kind.GRADIENT) if t.dtype in _HALF and len(t.shape) > 1]
    flushed = [(t, m) for t, m in measured if _is_flushed(m, limits)]
    if not flushed or len(flushed) < limits["share"] * len(measured):
        return
    first, m = flushed[0]
    size = _size_of_nonzero(m)
    yield Finding(
        rule=NUMERIC_RANGE.id,
        severity=Severity.WARNING,
        cause=Cause.NUMERIC_RANGE,
        step=window.step,
        subject="underflow",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.GRADIENT,
        diagnosis=f"{m.zero_fraction:.0%} of the gradient of {_name(first)} are zero and the rest has rms "
        f"{number(size)}, where float16 has nothing below {number(_SMALLEST)}: it is rounded away"
        f"{_more(len(flushed))}.",
        remedy="scaler = torch.amp.GradScaler()  # with float32 weights under autocast, or use bfloat16",
        evidence={"zero_fraction": m.zero_fraction, "rms_of_nonzero": size, "smallest": _SMALLEST},
    )


def _is_flushed(m: Moments, limits: Limits) -> bool:
    return limits["flushed"] <= m.zero_fraction < 1.0 and _size_of_nonzero(m) <= limits["grain"] * _SMALLEST


def _size_of_nonzero(m: Moments) -> float:
    """Rms of the elements that are not zero."""
    count = m.finite_count - m.zero_count
    return m.norm / math.sqrt(count) if count > 0 else math.nan


def _lost(window: Window, limits: Limits) -> Iterable[Finding]:
    """Weights of a short format that most steps leave as they were."""
    matrices = [x for x in window.model.layers if x.weight.dtype in _SHORT and x.weight.trainable and not x.is_table]
    lost = [x for x in matrices if _is_lost(window.stats(x.update), window.stats(x.gradient), limits)]
    if not lost or len(lost) < limits["share"] * len(matrices):
        return
    first = lost[0].weight
    stats = window.stats(lost[0].update)
    share = stats.moments.zero_fraction if stats is not None else math.nan
    yield Finding(
        rule=NUMERIC_RANGE.id,
        severity=Severity.INFO,
        cause=Cause.NUMERIC_RANGE,
        step=window.step,
        subject="rounding",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.UPDATE,
        diagnosis=f"The step left {share:.0%} of {_name(first)} as they were: it is smaller than what {first.dtype} "
        f"can add to them{_more(len(lost))}.",
        remedy="model.float()  # keep the weights in float32, compute under autocast",
        evidence={"unchanged": share, "layers": listed([x.path for x in lost])},
    )


def _is_lost(update: TensorStats | None, gradient: TensorStats | None, limits: Limits) -> bool:
    if update is None or gradient is None:
        return False
    return update.moments.zero_fraction - gradient.moments.zero_fraction >= limits["unchanged"]


def _name(tensor: TensorInfo) -> str:
    return f"{tensor.module_path}.{tensor.name}" if tensor.module_path else tensor.name


def _more(count: int) -> str:
    return "" if count < 2 else f"; so it is in {count - 1} more"


NUMERIC_RANGE: Final = Rule(
    id="numeric-range",
    family="numerics",
    check=check_range,
    limits={"headroom": 0.1, "flushed": 0.2, "grain": 8.0, "share": 0.25, "unchanged": 0.8},
    patience=3,
    needs=(Kind.ACTIVATION,),
    explained_by=(
        "uninitialized-weights",
        "forward-drift",
        "residual-stream",
        "embedding-scale",
        "weight-scale",
        "unscaled-input",
        "update-ratio",
    ),
    title="Numbers at the end of their format",
    statistic="Largest |output| in float16 from `headroom` · 65504 on: a warning. At least `flushed` of a float16 "
    "gradient are zero and the rest has an rms of at most `grain` · 2⁻²⁴, in `share` of the matrices: a warning. A "
    "step that leaves `unchanged` of a float16 or bfloat16 matrix as it was, beyond what has no gradient: an info.",
    harmless="Rectifiers make zeros in gradients too, but what is left is large. Trained networks have outliers: an "
    "info. bfloat16 has the range of float32 and is judged for lost updates only.",
    remedy="Compute in bfloat16, or keep the weights in float32 under autocast with a GradScaler.",
    source="IEEE 754 binary16: 65504 and 2⁻²⁴; bfloat16 keeps 8 bits: steps under 2⁻⁹ of a weight are lost.",
)
RULES: Final = (NUMERIC_RANGE,)
