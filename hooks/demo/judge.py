"""What the loss alone says of a run: did it fail, and from which step on could one have seen it.

The rule: the running median of nine losses; a run has failed if its final loss gains less than a tenth of what its
healthy twin gains on the constant predictor. The loss shows it at the first non-finite value, at a median above three
times the first (or the constant predictor's) loss, or, once the twin has come half-way and 50 steps are done, at a
median that still gains less than that tenth. Pure, standard library only.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_WINDOW: Final = 9
_SETTLED: Final = 4
_PATIENCE: Final = 50
_LEARNED: Final = 0.1


@dataclass(frozen=True, slots=True)
class Twin:
    """The healthy run of a group that ended lowest: its final loss, gain and half-way step."""

    final: float
    gain: float
    half_way_step: int


def running_median(losses: Sequence[float]) -> list[float]:
    """Median of each loss and the eight before it; non-finite losses count as infinite."""
    finite = [x if math.isfinite(x) else math.inf for x in losses]
    return [statistics.median(finite[max(0, i - _WINDOW + 1) : i + 1]) for i in range(len(finite))]


def final_loss(losses: Sequence[float]) -> float:
    """Mean of the last tenth of the run (at least 15 steps); infinite if any loss is not finite."""
    if not losses or not all(math.isfinite(x) for x in losses):
        return math.inf
    last = losses[-max(15, len(losses) // 10) :]
    return sum(last) / len(last)


def twin_of(healthy: Sequence[Sequence[float]], trivial: float) -> Twin:
    """The twin among a group's healthy runs; `ValueError` for none."""
    best = min(healthy, key=final_loss)
    final = final_loss(best)
    half = trivial - (trivial - final) / 2
    steps = (i for i, x in enumerate(running_median(best)) if i >= _SETTLED and x <= half)
    return Twin(final, trivial - final, next(steps, len(best)))


def has_failed(losses: Sequence[float], trivial: float, twin: Twin) -> bool:
    """Whether the run gained less than a tenth of its twin's gain."""
    return not trivial - final_loss(losses) >= _LEARNED * twin.gain


def loss_step(losses: Sequence[float], trivial: float, twin: Twin) -> int | None:
    """The first step at which the loss alone shows the failure; None if it never does."""
    first = losses[0] if losses and math.isfinite(losses[0]) else math.inf
    start = max(_PATIENCE, twin.half_way_step)
    for step, (loss, median) in enumerate(zip(losses, running_median(losses), strict=True)):
        diverged = step >= _SETTLED and median > 3 * max(first, trivial)
        learned_nothing = step >= start and median > trivial - _LEARNED * twin.gain
        if not math.isfinite(loss) or diverged or learned_nothing:
            return step
    return None
