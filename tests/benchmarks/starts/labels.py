"""What became of a training, read off its losses alone. Pure, standard library only.

The *twin* is the healthy reference of a group whose final loss is lowest; the *gain* of a run is what it is below the
loss of the best constant prediction (trivial). FAILED: a loss that is not finite, or less than a tenth of the twin's
gain. DEGRADED: half of the twin's gain takes more than three times as long. HEALTHY: at most one and a half times as
long, and three quarters of the gain. AMBIGUOUS: anything else, and seeds that disagree.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from initscope.hooks.demo.judge import final_loss, running_median

LEARNED_NOTHING: Final = 0.1
LEARNED_WELL: Final = 0.75
MUCH_LATER: Final = 3.0
LITTLE_LATER: Final = 1.5
SLACK: Final = 3
"""Steps that are added to both, since short half-way times are rounded."""
_SETTLED: Final = 4


class Outcome(StrEnum):
    """What became of a run."""

    FAILED = "FAILED"
    DEGRADED = "DEGRADED"
    HEALTHY = "HEALTHY"
    AMBIGUOUS = "AMBIGUOUS"


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The healthy twin of a group: its final loss, its gain, and when it was half-way (medians over seeds)."""

    final: float
    gain: float
    half_way: int
    level: float
    """The loss at half of the gain."""


def step_below(losses: Sequence[float], level: float) -> int | None:
    """The first settled step whose running median is at most `level`."""
    medians = running_median(losses)
    return next((i for i, x in enumerate(medians) if i >= _SETTLED and x <= level), None)


def yardstick(references: Sequence[Sequence[Sequence[float]]], trivial: float) -> Yardstick:
    """The best of the references, each given as the losses of its seeds; `ValueError` where none learned."""
    ends = [statistics.fmean(final_loss(losses) for losses in seeds) for seeds in references]
    final = min(ends, default=math.inf)
    if not final < trivial:
        raise ValueError(f"no reference learned: trivial loss {trivial:.3g}, best end {final:.3g}")
    level = (trivial + final) / 2
    best = references[ends.index(final)]
    halves = [step_below(losses, level) for losses in best]
    half_way = statistics.median(len(best[0]) if half is None else half for half in halves)
    return Yardstick(final, trivial - final, int(half_way), level)


def outcome(losses: Sequence[float], steps: int, trivial: float, twin: Yardstick) -> Outcome:
    """What became of one run of `steps` steps; a run that is shorter ended by a loss that is not finite."""
    end = final_loss(losses) if len(losses) >= steps else math.inf
    gain = trivial - end
    if not math.isfinite(end) or gain < LEARNED_NOTHING * twin.gain:
        return Outcome.FAILED
    half_way = step_below(losses, twin.level)
    late = MUCH_LATER * twin.half_way + SLACK
    if half_way is None:
        return Outcome.DEGRADED if late <= steps else Outcome.AMBIGUOUS
    if half_way > late:
        return Outcome.DEGRADED
    is_well = half_way <= LITTLE_LATER * twin.half_way + SLACK and gain >= LEARNED_WELL * twin.gain
    return Outcome.HEALTHY if is_well else Outcome.AMBIGUOUS


def label(outcomes: Mapping[str, Outcome]) -> Outcome:
    """One word for a case: what all its seeds say."""
    said = set(outcomes.values())
    return said.pop() if len(said) == 1 else Outcome.AMBIGUOUS


def troubles(twin: Yardstick, steps: int, trivial: float) -> list[str]:
    """Why a group judges badly: too little to learn, or a half-way time that leaves no room for "late"."""
    found = []
    if twin.gain < 0.2 * trivial:
        found.append(f"the twin gains only {twin.gain:.3g} of {trivial:.3g}")
    if not 5 <= twin.half_way <= (steps - SLACK) / MUCH_LATER:
        found.append(f"the twin is half-way at step {twin.half_way} of {steps}")
    return found
