"""Which rules judge a run, and by which thresholds: the catalogue, changed by a file, a keyword, or the run itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from initscope.hooks.rules import Limits, Rule
from initscope.hooks.rules.registry import RuleError, catalogue, refuse_number, refuse_rule

Change = bool | Mapping[str, float | bool]
"""What is changed of a rule: False switches it off, True on; or limits by name, and `enabled`."""
Changes = Mapping[str, Change]
"""Changes by rule id."""


@dataclass(frozen=True)
class Selection:
    """Rules in the order of the catalogue, the limits that differ from a rule's own, and what is switched off.

    What judges is `diagnose(window, selection.active, selection.limits)`.
    """

    rules: tuple[Rule, ...]
    limits: Mapping[str, Limits] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()

    @property
    def active(self) -> tuple[Rule, ...]:
        """The rules that judge."""
        return tuple(rule for rule in self.rules if rule.id not in self.disabled)

    def limits_of(self, rule: Rule) -> dict[str, float]:
        """The thresholds that a rule judges by."""
        return {**rule.limits, **self.limits.get(rule.id, {})}

    def changed(self, changes: Changes, where: str = "rules") -> Selection:
        """This selection with changes on top; `RuleError` for unknown rules and limits, and for what is no number."""
        rules = {rule.id: rule for rule in self.rules}
        limits, disabled = dict(self.limits), set(self.disabled)
        for rule_id, change in changes.items():
            rule = rules.get(rule_id)
            if rule is None:
                raise RuleError(_unknown(f"{where}: there is no rule {rule_id!r}", rule_id, rules))
            given, enabled = _read(rule, change, f"{where}: {rule_id}")
            if given:
                limits[rule_id] = {**limits.get(rule_id, {}), **given}
            if enabled is not None:
                (disabled.discard if enabled else disabled.add)(rule_id)
        return replace(self, limits=limits, disabled=frozenset(disabled))

    def for_run(self, limits: Mapping[str, Limits], disabled: Iterable[str]) -> Selection:
        """This selection with a run's own limits on top. What this process does not know of is left out.

        The run's client may have rules and limits that are newer, or its user's own.
        """
        rules = {rule.id: rule for rule in self.rules}
        known = {
            rule_id: {name: value for name, value in given.items() if name in rules[rule_id].limits}
            for rule_id, given in limits.items()
            if rule_id in rules
        }
        merged = {rule_id: {**self.limits.get(rule_id, {}), **given} for rule_id, given in known.items() if given}
        return replace(self, limits={**self.limits, **merged}, disabled=self.disabled | (rules.keys() & set(disabled)))


def select(given: Sequence[Rule] | Changes | None = None, where: str = "rules") -> Selection:
    """The catalogue; or changed by a mapping; or only the rules given.

    `{"forward-drift": {"warning": 4.0}, "initial-loss": False}` changes a threshold and switches a rule off. Raises
    `RuleError` (a ValueError) or TypeError, which name what cannot be used.
    """
    if given is None:
        return Selection(catalogue())
    if isinstance(given, Mapping):
        return Selection(catalogue()).changed(given, where)
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{where}: rules, or a mapping of rule ids to limits, got {type(given).__name__}")
    rules = tuple(given)
    seen: set[str] = set()
    for rule in rules:
        refuse_rule(rule, where)
        if rule.id in seen:
            raise RuleError(f"{where}: {rule.id!r} is given twice")
        seen.add(rule.id)
    return Selection(rules)


def _read(rule: Rule, change: Any, where: str) -> tuple[dict[str, float], bool | None]:
    if isinstance(change, bool):
        return {}, change
    if not isinstance(change, Mapping):
        raise RuleError(f"{where} is a mapping of limits to numbers, or False, got {type(change).__name__}")
    enabled = change.get("enabled")
    if enabled is not None and not isinstance(enabled, bool):
        raise RuleError(f"{where}.enabled is true or false, got {enabled!r:.40}")
    limits: dict[str, float] = {}
    for name, value in change.items():
        if name == "enabled":
            continue
        if name not in rule.limits:
            raise RuleError(_unknown(f"{where}: the rule has no limit {name!r}", name, rule.limits))
        refuse_number(f"{where}.{name}", value)
        limits[name] = float(value)
    return limits, enabled


def _unknown(sentence: str, name: object, there: Iterable[str]) -> str:
    names = sorted(there)
    near = difflib.get_close_matches(str(name), names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{sentence}{hint} There {'is' if len(names) == 1 else 'are'}: {', '.join(names) or 'none'}"
