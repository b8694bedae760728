"""Episodes as rows and back. Evidence may hold NaN and infinities: they travel as text, as everywhere in JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from initscope.hooks.encoding import number_from_json, number_to_json
from initscope.hooks.rules import Finding
from initscope.hooks.rules.lifecycle import Episode, Transition
from initscope.hooks.vocabulary import Cause, EpisodeState, Kind, Severity


def to_rows(episodes: Iterable[Episode], now: datetime) -> list[dict[str, Any]]:
    """Values of `findings` rows. `opened_at` counts the first time that it is written."""
    return [_to_row(episode, now) for episode in episodes]


def _to_row(episode: Episode, now: datetime) -> dict[str, Any]:
    finding = episode.finding
    return {
        "fingerprint": finding.fingerprint,
        "episode": episode.episode,
        "rule": finding.rule,
        "severity": episode.severity.value,
        "cause": finding.cause.value,
        "state": episode.state.value,
        "module_path": finding.module_path,
        "tensor_name": finding.tensor_name,
        "kind": finding.kind.value if finding.kind is not None else None,
        "parent": episode.parent,
        "first_step": episode.first_step,
        "opened_step": episode.opened_step,
        "last_step": episode.last_step,
        "resolved_step": episode.resolved_step,
        "seen_count": episode.seen_count,
        "clean_count": episode.clean_count,
        "diagnosis": finding.diagnosis,
        "remedy": finding.remedy,
        "evidence": {k: x if isinstance(x, str) else number_to_json(x) for k, x in finding.evidence.items()},
        "opened_at": None if episode.opened_step is None else now,
        "updated_at": now,
    }


def from_rows(rows: Iterable[Row[Any]], evaluated_step: int | None) -> dict[str, Episode]:
    """Episodes by fingerprint, as they were after `evaluated_step`."""
    judged = -1 if evaluated_step is None else evaluated_step
    return {row.fingerprint: _from_row(row, judged) for row in rows}


def _from_row(row: Row[Any], judged_step: int) -> Episode:
    finding = Finding(
        rule=row.rule,
        severity=Severity(row.severity),
        cause=Cause(row.cause),
        step=row.last_step,
        diagnosis=row.diagnosis,
        remedy=row.remedy,
        module_path=row.module_path,
        tensor_name=row.tensor_name,
        kind=Kind(row.kind) if row.kind is not None else None,
        evidence={k: number_from_json(x) for k, x in row.evidence.items()},
        subject=row.fingerprint.removeprefix(f"{row.rule}|"),
    )
    return Episode(
        state=EpisodeState(row.state),
        severity=Severity(row.severity),
        first_step=row.first_step,
        opened_step=row.opened_step,
        last_step=row.last_step,
        resolved_step=row.resolved_step,
        seen_count=row.seen_count,
        clean_count=row.clean_count,
        episode=row.episode,
        finding=finding,
        parent=row.parent,
        judged_step=judged_step,
    )


def transition_rows(
    transitions: Sequence[Transition], numbers: Mapping[tuple[str, int], int], now: datetime
) -> list[dict[str, Any]]:
    """Values of `finding_transitions` rows; `numbers` maps (fingerprint, episode) to finding_no.

    A pending finding that was dropped never stood: it leaves no row.
    """
    return [
        {
            "finding_no": numbers[transition.fingerprint, transition.episode],
            "from_state": transition.from_state.value if transition.from_state is not None else None,
            "to_state": transition.to_state.value,
            "severity": transition.severity.value,
            "step": transition.step,
            "at": now,
        }
        for transition in transitions
        if transition.to_state is not None and (transition.fingerprint, transition.episode) in numbers
    ]
