"""Leave one family out: limits are chosen on all other families, and scored on the one that had no say.

The search is coordinate-wise: each limit alone is tried at half and at twice its value, the better one is kept where it
is better than the limit as it is, and all that was kept is tried together. The worth of a set of verdicts is a sum over
cases, so that one pass over a limit serves every family that is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import track

from initscope.hooks.rules import RULES
from tests.benchmarks.report import Table
from tests.benchmarks.starts.labels import Outcome
from tests.benchmarks.starts.replaying import Overrides, Replayer
from tests.benchmarks.starts.scoring import Judged, has_learned, is_ever_alarmed, is_ever_critical, score
from tests.benchmarks.starts.sources import Labelled

FACTORS: Final = (0.5, 2.0)
NAMES: Final = frozenset(
    {
        "warning", "critical", "critical_adaptive", "warning_share", "critical_share", "fraction", "logit_std", "rms",
        "drift", "one_layer", "median", "factor", "octaves", "share",
    }
)  # fmt: skip
"""The limits that matter, by name: sizes above which a rule speaks up, not step counts and least element counts."""
CAUGHT: Final = 1.0
FLAGGED: Final = 0.5
FALSE_ALERT: Final = -3.0
FALSE_CRITICAL: Final = -10.0

Choice = tuple[tuple[str, str, float], ...]
"""(rule, limit, factor) of everything that is not as it is."""


@dataclass(frozen=True)
class Row:
    """What became of a family: as the rules are, with limits chosen with it in view, and without."""

    family: str
    as_is: list[Judged]
    in_sample: list[Judged]
    left_out: list[Judged]


def worth(case: Judged) -> float:
    """What the verdicts of a case are worth; zero for what is not scored."""
    outcome = case.case.outcome
    if outcome is Outcome.FAILED:
        return CAUGHT * case.is_caught
    if outcome is Outcome.DEGRADED:
        return FLAGGED * case.is_flagged
    if outcome is Outcome.HEALTHY or has_learned(case.case):
        alert = FALSE_ALERT * case.any(is_ever_alarmed) if outcome is Outcome.HEALTHY else 0.0
        return alert + FALSE_CRITICAL * case.any(is_ever_critical)
    return 0.0


def leave_one_out(folder: Path, cases: Sequence[Labelled]) -> list[Table]:
    """The tables: all families together, and a line a family."""
    search = _Search(folder, cases)
    rows = list(search.rows())
    whole = Table(
        "Limits chosen with and without the family that is judged", ("what", "as it is", "in-sample", "left out")
    )
    kinds = [score([j for row in rows for j in getattr(row, kind)]) for kind in ("as_is", "in_sample", "left_out")]
    for name, words in _WORDS.items():
        whole.rows.append((words, *(str(getattr(one, name)) for one in kinds)))
    whole.note = f"Chosen with all families in view: {_told(search.choose(None)) or 'every limit as it is'}."
    families = Table(
        "By family left out", ("family", "cases", "as it is", "in-sample", "left out", "chosen without it")
    )
    for row in rows:
        chosen = _told(search.choose(row.family))
        families.rows.append(
            (row.family, len(row.as_is), _short(row.as_is), _short(row.in_sample), _short(row.left_out), chosen or "–")
        )
    families.note = "Failed caught + degraded flagged, of those there are; healthy ones with a critical or any alert."
    return [whole, families]


_WORDS: Final = {
    "recall_failed": "failed runs, critical by step 20",
    "degraded_flagged": "degraded runs, flagged by step 20",
    "false_critical_healthy": "healthy runs with a critical finding",
    "any_alert_healthy": "healthy runs with any alert",
}


def _short(cases: Sequence[Judged]) -> str:
    s = score(cases)
    bad = f"{s.recall_failed.k + s.degraded_flagged.k}/{s.recall_failed.n + s.degraded_flagged.n}"
    return f"{bad}; {s.false_critical_healthy.k}, {s.any_alert_healthy.k} of {s.any_alert_healthy.n}"


def _told(choice: Choice) -> str:
    return ", ".join(f"{rule}.{limit} × {factor:g}" for rule, limit, factor in choice)


class _Search:
    """Verdicts of all cases by what is chosen, computed once."""

    def __init__(self, folder: Path, cases: Sequence[Labelled]) -> None:
        self._cases = cases
        self._replayer = Replayer(folder, cases)
        self._known: dict[Choice, dict[str, list[Judged]]] = {}
        self._chosen: dict[str | None, Choice] = {}
        steps = [
            ((rule.id, name, factor),) for rule in RULES for name in rule.limits if name in NAMES for factor in FACTORS
        ]
        self._replayer.remember(cases)
        for choice in track(steps, "limits", console=Console(stderr=True)):
            self.judge(choice)
        self._steps = steps

    def judge(self, choice: Choice) -> Mapping[str, list[Judged]]:
        """Cases by family."""
        if choice not in self._known:
            found: dict[str, list[Judged]] = {}
            limits = _limits(choice)
            for case in self._cases:
                judged = Judged(case, self._replayer.verdicts(case, limits))
                found.setdefault(f"{case.source}: {case.family}", []).append(judged)
            self._known[choice] = found
        return self._known[choice]

    def choose(self, without: str | None) -> Choice:
        """The best that the search finds when a family has no say."""
        if without not in self._chosen:
            start = self._worth((), without)
            best: dict[tuple[str, str], tuple[float, Choice]] = {}
            for step in self._steps:
                value = self._worth(step, without)
                at = step[0][:2]
                if value > max(start, best.get(at, (start, ()))[0]):
                    best[at] = value, step
            together: Choice = tuple(sorted(part for _, step in best.values() for part in step))
            options = [(), *(step for _, step in best.values()), together]
            self._chosen[without] = max(options, key=lambda choice: self._worth(choice, without))
        return self._chosen[without]

    def rows(self) -> Iterator[Row]:
        """A row a family."""
        whole = self.judge(self.choose(None))
        for family, as_is in self.judge(()).items():
            yield Row(family, as_is, whole[family], self.judge(self.choose(family))[family])

    def _worth(self, choice: Choice, without: str | None) -> float:
        return sum(worth(j) for family, cases in self.judge(choice).items() if family != without for j in cases)


def _limits(choice: Choice) -> Overrides:
    known = {rule.id: rule for rule in RULES}
    found: dict[str, dict[str, float]] = {}
    for rule_id, name, factor in choice:
        found.setdefault(rule_id, {})[name] = known[rule_id].limits[name] * factor
    return found
