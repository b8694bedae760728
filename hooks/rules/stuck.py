"""The rule on a loss that starts far too high and stays there: weights so large that no step can mend them in time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import mean, median, stdev
from typing import Final

from initscope.hooks.rules.blame import blamed
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.loss import blame_loss, loss_excess
from initscope.hooks.rules.remedy import number
from initscope.hooks.rules.signals import rms
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Severity

_RECENT: Final = 5
"""Logged losses whose median is the loss of now."""
_LEAST: Final = 1e-3
"""Share of the first loss that the trivial one is at least taken for: an estimate near zero is luck."""


def check_stuck(window: Window, limits: Limits) -> Iterable[Finding]:
    """What is left of the first loss' excess after some steps."""
    known = _squared_excess(window) if window.model.description.loss == "mse" else loss_excess(window)
    now = _recent_loss(window, limits)
    if known is None or now is None:
        return
    excess, trivial = known
    left = (now - trivial) / excess if excess > 0.0 else 0.0
    share = excess / trivial
    if _severity(share, left, True, limits) is None:
        return  # most runs, at every step: what is to blame need not be looked for
    blame = blame_loss(window)
    severity = _severity(share, left, blame.cause is Cause.SATURATED_ACTIVATIONS, limits)
    if severity is None:
        return
    diagnosis = (
        f"The loss began at {number(trivial + excess)} and is at {number(now)} after "
        f"{window.step - window.baseline_step} steps, where knowing nothing costs {number(trivial)}: {blame.why}, and "
        "the steps are too small to mend that in time."
    )
    evidence = {"first_loss": trivial + excess, "loss": now, "trivial_loss": trivial, "left": left}
    yield blamed(STUCK_LOSS.id, severity, blame, window.step, diagnosis, evidence)


def _squared_excess(window: Window) -> tuple[float, float] | None:
    """(first loss − variance of the targets, that variance at most) of a mean squared error.

    Outputs that know nothing of the targets make loss = variance + mean square of the outputs at each step, up to the
    luck of the batch: hence the mean over the first steps, with three standard errors.
    """
    head = next((x for x in window.model.layers if x.is_head), None)
    first = window.scalar("loss", window.baseline_step)
    parts: list[float] = []
    for step in sorted(window.steps)[:_RECENT] if window.baseline_step in window.steps else ():
        loss, size = window.scalar("loss", step), rms(window.stats(head.output, step)) if head is not None else None
        if loss is not None and size is not None and math.isfinite(loss):
            parts.append(loss - size * size)
    if first is None or not first > 0.0 or len(parts) < _RECENT:
        return None
    trivial = max(mean(parts) + 3.0 * stdev(parts) / math.sqrt(len(parts)), _LEAST * first)
    return first - trivial, trivial


def _severity(share: float, left: float, is_flat: bool, limits: Limits) -> Severity | None:
    """Of a first excess of `share` times the trivial loss, of which the part `left` is still there.

    Units that are flat are a sign of their own: no gradient passes that could mend a smaller excess.
    """
    is_slow = share >= limits["warning_share" if is_flat else "critical_share"] and left >= limits["critical_left"]
    # What is left may be a small part and still more than the steps of a start can take away.
    if is_slow or left * share >= limits["critical_rest"]:
        return Severity.CRITICAL
    return Severity.WARNING if share >= limits["warning_share"] and left >= limits["warning_left"] else None


def _recent_loss(window: Window, limits: Limits) -> float | None:
    """The median of the last logged losses; None before enough steps were made."""
    losses = [value for step, value in window.scalars.get("loss", []) if step <= window.step][-_RECENT:]
    if window.step - window.baseline_step < limits["after"] or len(losses) < _RECENT:
        return None
    return median(losses) if all(map(math.isfinite, losses)) else None


STUCK_LOSS: Final = Rule(
    id="stuck-loss",
    family="loss",
    check=check_stuck,
    limits={
        "after": 10,
        "warning_share": 1.5,
        "warning_left": 0.4,
        "critical_share": 5.0,
        "critical_left": 0.6,
        "critical_rest": 50.0,
    },
    patience=2,
    explained_by=("embedding-scale", "forward-drift", "backward-drift", "saturation", "update-ratio", "unscaled-input"),
    title="A loss that starts too high and stays there",
    statistic="From `after` steps on, the median of the last five losses, against the first one and the loss of "
    "knowing nothing (ln C; for a mean squared error what the steps so far say of the targets: loss less mean square "
    "of the outputs, and three standard errors). Warning where the first excess was `warning_share` times the trivial "
    "loss and `warning_left` of it is left; critical from `critical_share` (where recurrent units are flat, "
    "`warning_share`) and `critical_left`, or where what is left is `critical_rest` times the trivial loss.",
    harmless="A high first loss that falls within ten steps: initial-loss says so, as an info. Off without a logged "
    "loss, and for losses other than cross entropy and mean squared error.",
    remedy="Draw what is named anew: weights that are a hundred times too large need a hundred times the steps.",
    source="A step of relative size u needs about 1/u steps to undo weights that are far too large.",
)
RULES: Final = (STUCK_LOSS,)
