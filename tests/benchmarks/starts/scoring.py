"""From labels and verdicts to figures. A bad case is caught when most of its seeds are, a healthy one is a false alarm
when any seed is: the case is the unit, as in startbench's own scorer. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.benchmarks.starts.labels import LEARNED_WELL, Outcome
from tests.benchmarks.starts.sources import Labelled

DEADLINE: Final = 20
"""The last step at which an alarm is early."""
Verdict = Mapping[str, Any]
Verdicts = Mapping[str, Sequence[Verdict]]
"""By case id, one verdict a seed."""


@dataclass(frozen=True)
class Judged:
    """One case, its verdicts, and what they are worth."""

    case: Labelled
    verdicts: Sequence[Verdict]

    @property
    def is_bad(self) -> bool:
        """Failed or degraded."""
        return self.case.outcome in (Outcome.FAILED, Outcome.DEGRADED)

    def most(self, test: Callable[[Verdict], bool]) -> bool:
        """Whether most seeds pass."""
        return sum(map(test, self.verdicts)) > len(self.verdicts) // 2

    def any(self, test: Callable[[Verdict], bool]) -> bool:
        """Whether one seed passes."""
        return any(map(test, self.verdicts))

    @property
    def is_caught(self) -> bool:
        """Critical by the deadline."""
        return self.most(is_critical)

    @property
    def is_flagged(self) -> bool:
        """Warned of, or worse, by the deadline."""
        return self.most(is_alarmed)

    @property
    def has_cause(self) -> bool:
        """Whether the first cause named is one that a fair judge accepts."""
        accepted = {self.case.cause, *self.case.also}
        return self.most(lambda v: is_alarmed(v) and bool(v["causes"]) and v["causes"][0] in accepted)

    @property
    def has_layer(self) -> bool:
        """Whether a faulty layer is among the first three named."""
        return self.most(
            lambda v: is_alarmed(v) and any(same_place(n, t) for n in v["layers"][:3] for t in self.case.layers)
        )


def is_critical(verdict: Verdict) -> bool:
    """Critical by the deadline."""
    return verdict["level"] == "critical" and verdict["step"] <= DEADLINE


def is_ever_critical(verdict: Verdict) -> bool:
    """Critical at any step."""
    return bool(verdict["level"] == "critical")


def is_alarmed(verdict: Verdict) -> bool:
    """Warned of, or worse, by the deadline."""
    return verdict["level"] != "ok" and verdict["warn_step"] <= DEADLINE


def is_ever_alarmed(verdict: Verdict) -> bool:
    """Warned of, or worse, at any step."""
    return bool(verdict["level"] != "ok")


def same_place(named: str, faulty: str) -> bool:
    """Whether a named layer is the faulty one, a part of it, or the module right around it (never the whole model)."""
    path = named.removesuffix(".weight").removesuffix(".bias")
    if path == faulty or path.startswith(f"{faulty}."):
        return True
    return "." in path and faulty.startswith(f"{path}.") and path.count(".") >= faulty.count(".") - 1


@dataclass(frozen=True)
class Rate:
    """k of n, with the 95 % interval of Wilson (1927)."""

    k: int
    n: int

    @property
    def value(self) -> float:
        """k ÷ n; NaN for none."""
        return self.k / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound."""
        if not self.n:
            return math.nan, math.nan
        z2 = 1.96**2
        middle = (self.value + z2 / (2 * self.n)) / (1 + z2 / self.n)
        half = math.sqrt(self.value * (1 - self.value) * z2 / self.n + (z2 / (2 * self.n)) ** 2) / (1 + z2 / self.n)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.k} of {self.n} [{100 * low:.0f}–{100 * high:.0f} %]" if self.n else "–"


@dataclass(frozen=True)
class Score:
    """Rates over cases, by startbench's names."""

    recall_failed: Rate
    recall_failed_not_late: Rate
    degraded_flagged: Rate
    false_critical_healthy: Rate
    any_alert_healthy: Rate
    critical_on_slow: Rate
    cause: Rate
    layer: Rate


def judged(cases: Iterable[Labelled], verdicts: Verdicts) -> list[Judged]:
    """Cases with the verdicts of their seeds, those without verdicts left out."""
    return [Judged(case, verdicts[case.id]) for case in cases if case.id in verdicts]


def score(cases: Sequence[Judged]) -> Score:
    """The rates."""
    failed = [j for j in cases if j.case.outcome is Outcome.FAILED]
    healthy = [j for j in cases if j.case.outcome is Outcome.HEALTHY]
    bad = [j for j in cases if j.is_bad]
    return Score(
        recall_failed=_rate(failed, lambda j: j.is_caught),
        recall_failed_not_late=_rate([j for j in failed if not j.case.is_late], lambda j: j.is_caught),
        degraded_flagged=_rate([j for j in bad if j not in failed], lambda j: j.is_flagged),
        false_critical_healthy=_rate(healthy, lambda j: j.any(is_ever_critical)),
        any_alert_healthy=_rate(healthy, lambda j: j.any(is_ever_alarmed)),
        critical_on_slow=_rate([j for j in cases if has_learned(j.case)], lambda j: j.any(is_ever_critical)),
        cause=_rate([j for j in bad if j.case.cause != "none"], lambda j: j.has_cause),
        layer=_rate([j for j in bad if j.case.layers], lambda j: j.has_layer),
    )


def has_learned(case: Labelled) -> bool:
    """Ambiguous, and yet every seed gained at least three quarters of its twin: slow, not broken."""
    return case.outcome is Outcome.AMBIGUOUS and case.least_gain >= LEARNED_WELL


def _rate(cases: Sequence[Judged], test: Callable[[Judged], bool]) -> Rate:
    return Rate(sum(map(test, cases)), len(cases))


def complaint(case: Judged) -> str:
    """What is wrong with the verdicts of a case, in one or two words; empty for nothing."""
    outcome = case.case.outcome
    if outcome is Outcome.HEALTHY:
        return "FALSE CRITICAL" if case.any(is_ever_critical) else "false alert" if case.any(is_ever_alarmed) else ""
    if not case.is_bad:
        return "critical on slow" if has_learned(case.case) and case.any(is_ever_critical) else ""
    if outcome is Outcome.FAILED and not case.is_caught:
        return "missed (late)" if case.case.is_late else "warned only" if case.is_flagged else "MISSED"
    if not case.is_flagged:
        return "not flagged"
    wrong = [w for w, bad in (("cause", case.case.cause != "none" and not case.has_cause),
                              ("layer", bool(case.case.layers) and not case.has_layer)) if bad]  # fmt: skip
    return f"wrong {' and '.join(wrong)}" if wrong else ""
