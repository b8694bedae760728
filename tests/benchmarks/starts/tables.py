"""Scores as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from tests.benchmarks.report import Table
from tests.benchmarks.starts.labels import Outcome
from tests.benchmarks.starts.scoring import Judged, Score, complaint, judged, score
from tests.benchmarks.starts.sources import Labelled

_WORDS = {
    "recall_failed": "failed runs, critical by step 20",
    "recall_failed_not_late": "… of those that never reached the half-way loss",
    "degraded_flagged": "degraded runs, flagged by step 20",
    "false_critical_healthy": "healthy runs with a critical finding",
    "any_alert_healthy": "healthy runs with any alert",
    "critical_on_slow": "slow runs that learned, with a critical finding",
    "cause": "first cause accepted",
    "layer": "faulty layer among the first three",
}


def report(cases: Sequence[Labelled], verdicts: Mapping[str, Sequence[dict[str, Any]]], *, details: bool) -> str:
    """Totals by source, a line a family, and with `details` a line for each case with a complaint."""
    by_source = {
        name: judged([c for c in cases if c.source == name], {k.partition("/")[2]: v for k, v in verdicts.items()
                                                              if k.startswith(f"{name}/")})
        for name in dict.fromkeys(c.source for c in cases)
    }  # fmt: skip
    parts = [totals(by_source).markdown()]
    for name, found in by_source.items():
        parts.append(by_family(f"By family ({name})", found).markdown())
        if details:
            parts.append(complaints(f"Complaints ({name})", found).markdown())
    return "\n".join(parts)


def totals(by_source: Mapping[str, Sequence[Judged]]) -> Table:
    """The rates, a column a source."""
    scores = {name: score(found) for name, found in by_source.items()}
    table = Table("Cases", ("what", *scores))
    table.rows.append(("cases", *(_counts(found) for found in by_source.values())))
    for field in fields(Score):
        table.rows.append((_WORDS[field.name], *(str(getattr(s, field.name)) for s in scores.values())))
    return table


def _counts(found: Sequence[Judged]) -> str:
    counts = {o: sum(j.case.outcome is o for j in found) for o in Outcome}
    return ", ".join(f"{n} {o.value.lower()}" for o, n in counts.items())


def by_family(title: str, found: Sequence[Judged]) -> Table:
    """A line a family."""
    names = ("recall_failed", "degraded_flagged", "false_critical_healthy", "any_alert_healthy", "cause", "layer")
    table = Table(
        title, ("family", "failed caught", "degraded flagged", "false critical", "any false alert", "cause", "layer")
    )
    for family in sorted({j.case.family for j in found}):
        one = score([j for j in found if j.case.family == family])
        table.rows.append((family, *(f"{getattr(one, n).k}/{getattr(one, n).n}" for n in names)))
    return table


def complaints(title: str, found: Sequence[Judged]) -> Table:
    """A line for each case that is not as it should be."""
    table = Table(title, ("case", "label", "complaint", "expected", "levels", "causes", "layers", "rules"))
    for one in found:
        words = complaint(one)
        if words:
            table.rows.append((
                one.case.id, one.case.outcome.value, words, one.case.cause,
                " ".join(f"{v['level']}@{v['step'] if v['level'] == 'critical' else v.get('warn_step', '')}"
                         for v in one.verdicts),
                _first(one, "causes"), _first(one, "layers"), _first(one, "rules"),
            ))  # fmt: skip
    return table


def _first(one: Judged, name: str) -> str:
    return "; ".join(dict.fromkeys(", ".join(v[name][:3]) for v in one.verdicts if v[name]))
