"""The thresholds of one run: the collector's, with those on top that the run's description asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from initscope.hooks.rules.selection import Selection


def of_run(selection: Selection, description: Mapping[str, Any]) -> Selection:
    """By which a run is judged; `description` as stored, of any client's version."""
    return selection.for_run(description.get("limits") or {}, description.get("disabled_rules") or [])


def ignored(selection: Selection, description: Mapping[str, Any]) -> list[str]:
    """What a run asks for and no rule here knows: `rule` or `rule.limit`, sorted."""
    limits = {rule.id: rule.limits for rule in selection.rules}
    asked = [(rule_id, name) for rule_id, given in (description.get("limits") or {}).items() for name in given]
    names = {f"{rule_id}.{name}" for rule_id, name in asked if rule_id in limits and name not in limits[rule_id]}
    rules = {rule_id for rule_id, _ in asked} | set(description.get("disabled_rules") or [])
    return sorted(names | (rules - limits.keys()))
