"""Rules on the size of an optimizer's steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.blame import Blame, blame_scale
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.loss import is_stuck, loss_rise
from initscope.hooks.rules.remedy import healthy_std, number
from initscope.hooks.rules.signals import rms
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity

TINY: Final = 0.02
"""Share of its expected std under which a matrix' update ratio says nothing."""
GROWING: Final = 20
"""Steps in which a matrix that started at zero only grows."""
HURRIED: Final = 0.1
"""Median update ratio from which a start that goes bad later is the learning rate's doing."""


def update_ratios(window: Window, smallest: float, step: int | None = None) -> dict[Layer, float]:
    """Rms of the update ÷ rms of the weights by matrix, of those that are not tiny (zero-init branches start so)."""
    ratios: dict[Layer, float] = {}
    for layer in window.model.layers:
        size, change = rms(window.stats(layer.weight, step)), rms(window.stats(layer.update, step))
        if size is None or change is None or layer.is_residual or layer.is_table:
            continue
        if size > smallest * healthy_std(layer) and not _is_growing(window, layer, smallest):
            ratios[layer] = change / size
    return ratios


def _is_growing(window: Window, layer: Layer, smallest: float) -> bool:
    """Whether a matrix started at next to nothing: the t-th of equal steps is 1/t of it, with any learning rate."""
    start = rms(window.first(layer.weight))
    young = window.step - window.baseline_step <= GROWING
    return young and start is not None and start <= smallest * healthy_std(layer)


def median_ratio(window: Window, smallest: float, step: int | None = None) -> float | None:
    """Median of `update_ratios`; None where none was measured."""
    values = [x for x in update_ratios(window, smallest, step).values() if math.isfinite(x)]
    return median(values) if values else None


def _is_lost(window: Window, limits: Limits) -> bool:
    """The second sign: a loss above its start, or none below it after some steps. Some nets do learn in large steps."""
    rises = [rise for step in window.steps if (rise := loss_rise(window, step)) is not None]
    return not rises or max(rises) >= limits["rise"] or is_stuck(window, limits["wait"])


def largest_ratio(window: Window) -> float:
    """The largest median update ratio of the window's steps; 0 where none was measured."""
    return max((median_ratio(window, TINY, step) or 0.0 for step in window.steps), default=0.0)


def hurried(window: Window) -> Blame | None:
    """Blames what was too large at the start, else the learning rate, if a step of the window was large."""
    return blame_steps(window) if largest_ratio(window) >= HURRIED else None


def blame_steps(window: Window) -> Blame:
    """What makes a start go bad that looked fine: what was too large at the start, else the learning rate."""
    return blame_scale(window) or _rate(window, largest_ratio(window))


def check_ratio(window: Window, limits: Limits) -> Iterable[Finding]:
    """Updates as large as the weights themselves."""
    ratios = update_ratios(window, limits["smallest"])
    typical = median_ratio(window, limits["smallest"])
    if typical is None or typical < limits["large"]:
        return
    last = [
        median_ratio(window, limits["smallest"], s) or 0.0 for s in sorted(window.steps)[-int(limits["sustained"]) :]
    ]
    sustained = len(last) >= limits["sustained"] and min(last) >= limits["large"]
    huge = typical >= limits["critical"]
    worst = max(ratios, key=lambda x: ratios[x])
    blame = blame_scale(window) or _rate(window, typical)
    layer = blame.layer or worst
    yield Finding(
        rule=UPDATE_RATIO.id,
        severity=_severity(window, sustained or huge, limits),
        cause=blame.cause,
        step=window.step,
        subject="run",
        module_path=layer.path,
        tensor_name=layer.weight.name,
        kind=Kind.UPDATE,
        diagnosis=f"Step {window.step} changed the median matrix by {number(typical)} of its own size (healthy steps: "
        f"about 0.001 to 0.1; most at {worst.path}: {number(ratios[worst])}): {blame.why}.",
        remedy=blame.remedy,
        evidence={"median_ratio": typical, "largest_ratio": ratios[worst], "largest_at": worst.path},
    )


def _severity(window: Window, is_hurried: bool, limits: Limits) -> Severity:
    """One large step is no harm (Adam's first is as large as small weights are), nor are many while the loss falls."""
    return Severity.CRITICAL if is_hurried and _is_lost(window, limits) else Severity.INFO


def _rate(window: Window, typical: float) -> Blame:
    groups = window.model.description.optimizers
    rate = max((g.lr for g in groups if g.lr is not None), default=None)
    name = groups[0].name if groups else "the optimizer"
    if rate is None:
        return Blame(Cause.LR_TOO_HIGH, None, f"the learning rate of {name} is too high", "# lower the learning rate")
    # Momentum and curvature make small steps too large as well: never name more than a tenth. What a run has exploded
    # to says nothing of the rate that it needed: nor less than a thousandth.
    better = rate * (min(max(0.01 / typical, 1e-3), 0.1) if typical > 0.0 else 0.1)
    remedy = f"lr={number(better)}  # instead of {number(rate)}: changes the weights by at most about 0.01 a step"
    return Blame(Cause.LR_TOO_HIGH, None, f"the learning rate {number(rate)} of {name} is too high", remedy)


UPDATE_RATIO: Final = Rule(
    id="update-ratio",
    family="updates",
    check=check_ratio,
    limits={
        "large": 0.3,
        "critical": 1.0,
        "sustained": 3,
        "smallest": TINY,
        "rise": 1.2,
        "wait": 8,
    },
    needs=(Kind.UPDATE, Kind.WEIGHT),
    explained_by=("nonfinite", "forward-drift", "embedding-scale", "unscaled-input"),
    title="Updates as large as the weights",
    statistic="Median over matrices of rms(update) ÷ rms(weight); tables and residual outputs left out, and matrices "
    "that are under `smallest` times their expected std, or started so at most 20 steps ago. Info from `large`; "
    "critical from `critical`, or where the last `sustained` sampled steps all reach `large`, if also the loss has "
    "been `rise` times that of the start in the window, or has not fallen after `wait` steps (or is unknown).",
    harmless="The first step of Adam is lr ÷ std, 0.03 to 0.4 for small weights: normal; so is 0.17 for SGD.",
    remedy="Mend what the finding blames, else lower the learning rate to the one it names.",
    source="Karpathy, CS231n: about 0.001; the measured range of healthy starts is wider.",
)
RULES: Final = (UPDATE_RATIO,)
