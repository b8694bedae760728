"""The rule on layers that cannot learn and have nothing to give: frozen as they were drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.moments import Moments
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import code_path, listed
from initscope.hooks.rules.signals import is_trained
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity

_FAMILIES: Final = ((3.0, 24.0), (1.8, 1.317), (2.3655, 3.848))
"""(kurtosis, n times the variance of its estimate) of normal, uniform and ±2σ truncated normal draws."""


def check_frozen(window: Window, limits: Limits) -> Iterable[Finding]:
    """Most hidden matrices without a gradient, and all of those look as if no training had ever touched them."""
    hidden = [x for x in window.model.layers if not (x.is_head or x.is_table) and window.stats(x.weight) is not None]
    frozen = [x for x in hidden if not x.weight.trainable]
    if len(frozen) < limits["share"] * len(hidden) or not frozen or is_trained(window):
        return
    if not all(_looks_drawn(window, x, limits["deviations"]) for x in frozen):
        return
    first = frozen[0]
    yield Finding(
        rule=FROZEN_FRESH.id,
        severity=Severity.WARNING,
        cause=Cause.FROZEN_OR_DISCONNECTED_LAYER,
        step=window.step,
        subject="run",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{len(frozen)} of {len(hidden)} hidden weight matrices do not learn, {first.path} first, and look "
        "freshly drawn: the rest learns on random features.",
        remedy=f"{code_path(first.path)}.requires_grad_(True)  # and the others, or load trained weights first",
        evidence={
            "frozen_layers": float(len(frozen)),
            "hidden_layers": float(len(hidden)),
            "layers": listed([x.path for x in frozen]),
        },
    )


def _looks_drawn(window: Window, layer: Layer, deviations: float) -> bool:
    """Whether mean and kurtosis are those of a draw from one of the usual families, or all is zero."""
    stats = window.stats(layer.weight)
    return stats is not None and _is_draw(stats.moments, deviations)


def _is_draw(m: Moments, deviations: float) -> bool:
    n, std = m.finite_count, m.std
    if not n or not 0.0 < std < math.inf:
        return m.zero_count == m.count
    centred = abs(m.mean) * math.sqrt(n) < deviations * std
    return centred and any(abs(m.kurtosis - k) < deviations * math.sqrt(v / n) for k, v in _FAMILIES)


FROZEN_FRESH: Final = Rule(
    id="frozen-fresh",
    family="frozen",
    check=check_frozen,
    limits={"share": 0.5, "deviations": 5.0},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    title="Layers frozen as they were drawn",
    statistic="At least `share` of the hidden weight matrices are not trainable, and mean and kurtosis of each lie "
    "within `deviations` standard errors of a normal, uniform or truncated normal draw.",
    harmless="A frozen backbone that was trained has heavier tails or norm gains that differ. Random features on "
    "purpose (reservoirs) are this finding's one false friend.",
    remedy="`requires_grad_(True)`, or load trained weights before freezing.",
    source="Fresh draws have their family's kurtosis; trained matrices of shipped models had 4.7 and more.",
)
RULES: Final = (FROZEN_FRESH,)
