"""Reading findings: which stand, what they explain, and the verdict about a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, select

from initscope.hooks.vocabulary import EpisodeState, Severity, Verdict
from initscope.service.store.models import FindingRow, FindingTransition, Run

STANDING = (EpisodeState.OPEN.value, EpisodeState.CLOSED.value)
"""States of a finding that is true of the run: open, or closed because the run ended while it was open."""

_FINDING = FindingRow.__table__.c


@dataclass(frozen=True, slots=True)
class FindingHead:
    """One episode of a finding; `consequences` are the findings that it explains."""

    finding_no: int
    run_no: int
    id: str
    attempt: int
    fingerprint: str
    episode: int
    rule: str
    severity: Severity
    cause: str
    state: str
    module_path: str | None
    tensor_name: str | None
    kind: str | None
    parent: str | None
    first_step: int
    opened_step: int | None
    last_step: int
    resolved_step: int | None
    diagnosis: str
    remedy: str
    evidence: dict[str, Any]
    opened_at: datetime | None
    updated_at: datetime
    consequences: tuple[FindingHead, ...] = ()


@dataclass(frozen=True, slots=True)
class TransitionHead:
    """A change of an episode's state."""

    from_state: str | None
    to_state: str
    severity: str
    step: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """What the standing findings say of a run: infos do not darken the verdict."""

    verdict: Verdict
    critical: int
    warning: int
    info: int
    consequences: int
    first: FindingHead | None
    """The worst root; among equals the one that came first."""


_COLUMNS = (
    _FINDING.finding_no, _FINDING.run_no, _FINDING.id, _FINDING.attempt, _FINDING.fingerprint, _FINDING.episode,
    _FINDING.rule, _FINDING.severity, _FINDING.cause, _FINDING.state, _FINDING.module_path, _FINDING.tensor_name,
    _FINDING.kind, _FINDING.parent, _FINDING.first_step, _FINDING.opened_step, _FINDING.last_step,
    _FINDING.resolved_step, _FINDING.diagnosis, _FINDING.remedy, _FINDING.evidence, _FINDING.opened_at,
    _FINDING.updated_at,
)  # fmt: skip


def list_findings(conn: Connection, run_no: int, attempt: int, *, only_standing: bool = True) -> list[FindingHead]:
    """Findings of an attempt, consequences nested under their roots; roots worst first, then by step."""
    wanted = [_FINDING.run_no == run_no, _FINDING.attempt == attempt]
    if only_standing:
        wanted.append(_FINDING.state.in_(STANDING))
    rows = conn.execute(select(*_COLUMNS).where(*wanted).order_by(_FINDING.finding_no))
    return nest([_head(row) for row in rows])


def standing_by_run(conn: Connection, run_nos: Sequence[int]) -> dict[int, list[FindingHead]]:
    """Standing findings of each run's newest attempt, nested; one query for any number of runs."""
    run = Run.__table__.c
    newest = and_(run.run_no == _FINDING.run_no, run.attempt == _FINDING.attempt)
    query = (
        select(*_COLUMNS)
        .join(Run.__table__, newest)
        .where(_FINDING.run_no.in_(run_nos), _FINDING.state.in_(STANDING))
        .order_by(_FINDING.finding_no)
    )
    found: dict[int, list[FindingHead]] = {run_no: [] for run_no in run_nos}
    for row in conn.execute(query):
        found[row.run_no].append(_head(row))
    return {run_no: nest(findings) for run_no, findings in found.items()}


def find_finding(conn: Connection, run_no: int, finding: str) -> FindingHead | None:
    """One finding with what it explains."""
    row = conn.execute(select(*_COLUMNS).where(_FINDING.run_no == run_no, _FINDING.id == finding)).one_or_none()
    if row is None:
        return None
    head = _head(row)
    explained = select(*_COLUMNS).where(
        _FINDING.run_no == run_no, _FINDING.attempt == head.attempt, _FINDING.parent == head.fingerprint
    )
    return replace(head, consequences=tuple(_head(child) for child in conn.execute(explained)))


def list_transitions(conn: Connection, finding_no: int) -> list[TransitionHead]:
    """Every change of an episode's state, in order."""
    c = FindingTransition.__table__.c
    query = select(c.from_state, c.to_state, c.severity, c.step, c.at).where(c.finding_no == finding_no)
    return [TransitionHead(*row) for row in conn.execute(query.order_by(c.transition_no))]


def _head(row: Any) -> FindingHead:
    values = list(row)
    values[7] = Severity(values[7])
    return FindingHead(*values)


def nest(findings: Sequence[FindingHead]) -> list[FindingHead]:
    """Puts consequences under their roots. A finding whose parent is not among them is a root: it must not vanish."""
    present = {f.fingerprint: f for f in findings}
    children: dict[str, list[FindingHead]] = {}
    roots: list[FindingHead] = []
    for finding in findings:
        root = _root_of(finding, present)
        if root == finding.fingerprint:
            roots.append(finding)
        else:
            children.setdefault(root, []).append(finding)
    nested = [replace(root, consequences=tuple(_ordered(children.pop(root.fingerprint, [])))) for root in roots]
    return _ordered(nested)


def _root_of(finding: FindingHead, present: dict[str, FindingHead]) -> str:
    seen = {finding.fingerprint}
    current = finding
    while current.parent in present and current.parent not in seen:
        seen.add(current.parent)
        current = present[current.parent]
    # A circle of parents has no root; each of its members then stands for itself.
    is_circle = current.parent in seen and current.parent is not None
    return finding.fingerprint if is_circle else current.fingerprint


def _ordered(findings: Iterable[FindingHead]) -> list[FindingHead]:
    return sorted(findings, key=lambda f: (-f.severity.rank, f.first_step, f.finding_no))


def summarize(roots: Sequence[FindingHead]) -> Summary:
    """Verdict and counts of nested standing findings."""
    counts = {severity: sum(f.severity is severity for f in roots) for severity in Severity}
    verdict = Verdict.OK
    if counts[Severity.WARNING]:
        verdict = Verdict.WARNING
    if counts[Severity.CRITICAL]:
        verdict = Verdict.CRITICAL
    return Summary(
        verdict=verdict,
        critical=counts[Severity.CRITICAL],
        warning=counts[Severity.WARNING],
        info=counts[Severity.INFO],
        consequences=sum(len(f.consequences) for f in roots),
        first=roots[0] if roots else None,
    )
