"""What the read API says of runs, tensors and findings: plain data for JSON, times in ISO 8601, null for absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from initscope.hooks.rules import RULES, Rule
from initscope.hooks.rules.selection import Selection
from initscope.hooks.vocabulary import MAX_NAME
from initscope.hooks.wire import TensorInfo
from initscope.service.store.read_findings import FindingHead, Summary, TransitionHead
from initscope.service.store.read_runs import AttemptHead, BooksSum, RunHead, SessionHead

Json = dict[str, Any]
_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
_DisplayName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=_PRINTABLE)]


class RunPatch(BaseModel):
    """What may be changed of a run; a field that is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: _DisplayName | None = None
    # Lines and tabs are fine in a note; PostgreSQL refuses NUL.
    note: Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")] | None = None
    tags: Annotated[list[_DisplayName], Field(max_length=32)] | None = None


def run_summary(run: RunHead, summary: Summary, now: datetime) -> Json:
    """A run as the list shows it."""
    return {
        "id": run.id,
        "project": run.project,
        "run_id": run.run_id,
        "name": run.name,
        "status": run.status(now).value,
        "is_stalled": run.is_stalled(now),
        "verdict": summary.verdict.value,
        "findings": {"critical": summary.critical, "warning": summary.warning, "info": summary.info},
        "consequences": summary.consequences,
        "first_finding": None if summary.first is None else finding_line(summary.first),
        "attempt": run.attempt,
        "last_step": run.last_step,
        "created_at": run.created_at.isoformat(),
        "last_seen_at": run.last_seen_at.isoformat(),
        "last_step_at": _time(run.last_step_at),
        "ended_at": _time(run.ended_at),
        "tags": run.tags,
        "note": run.note,
    }


def finding_line(finding: FindingHead) -> Json:
    """A finding in one line."""
    return {
        "id": finding.id,
        "rule": finding.rule,
        "severity": finding.severity.value,
        "cause": finding.cause,
        "module_path": finding.module_path,
        "step": finding.first_step,
        "diagnosis": finding.diagnosis,
    }


def finding(head: FindingHead) -> Json:
    """A finding with what it explains."""
    return {
        "id": head.id,
        "attempt": head.attempt,
        "episode": head.episode,
        "rule": head.rule,
        "severity": head.severity.value,
        "cause": head.cause,
        "state": head.state,
        "module_path": head.module_path,
        "tensor_name": head.tensor_name,
        "kind": head.kind,
        "first_step": head.first_step,
        "opened_step": head.opened_step,
        "last_step": head.last_step,
        "resolved_step": head.resolved_step,
        "diagnosis": head.diagnosis,
        "remedy": head.remedy,
        "evidence": head.evidence,
        "opened_at": _time(head.opened_at),
        "updated_at": head.updated_at.isoformat(),
        "consequences": [finding(child) for child in head.consequences],
    }


def transition(head: TransitionHead) -> Json:
    """A change of a finding's state."""
    return {**asdict(head), "at": head.at.isoformat()}


def rule(rule: Rule, selection: Selection) -> Json:
    """A rule: its texts, and the thresholds that a selection has for it beside its own."""
    texts = ("id", "family", "title", "statistic", "harmless", "remedy", "source")
    return {
        **{name: getattr(rule, name) for name in texts},
        "is_own": rule not in RULES,
        "is_enabled": rule.id not in selection.disabled,
        "limits": selection.limits_of(rule),
        "default_limits": dict(rule.limits),
        "patience": rule.patience,
        "clear_after": rule.clear_after,
        "baseline_only": rule.baseline_only,
        "needs": [kind.value for kind in rule.needs],
        "explained_by": list(rule.explained_by),
    }


def attempt(head: AttemptHead) -> Json:
    """An attempt of a run."""
    return {**asdict(head), "created_at": head.created_at.isoformat()}


def session(head: SessionHead) -> Json:
    """A session of a run with its books."""
    times = {"first_seen_at": head.first_seen_at.isoformat(), "last_seen_at": head.last_seen_at.isoformat()}
    return {**asdict(head), **times}


def books(total: BooksSum, stored: int) -> Json:
    """What the jobs last said (recorded = acknowledged + pending + dropped), and what the collector has stored."""
    return {**asdict(total), "dropped_count": total.dropped_count, "stored": stored}


def tensor(info: TensorInfo) -> Json:
    """A tensor's description; `tensor_no` is what the stats routes ask for."""
    described = {name: getattr(info, name) for name in _DESCRIBED}
    traits = None if info.traits is None else asdict(info.traits)
    return {"tensor_no": info.key, **described, "kind": info.kind.value, "role": info.role.value, "traits": traits}


_DESCRIBED: Sequence[str] = tuple(name for name in TensorInfo.__dataclass_fields__ if name != "key")


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
