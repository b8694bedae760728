"""The catalogue of this process: the rules that initscope has, and those that somebody added."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from initscope.hooks.rules import RULES, Rule
from initscope.hooks.vocabulary import MAX_LIMITS_PER_RULE, MAX_NAME, Kind

_ID: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED: Final = frozenset({"enabled", "plugins"})
"""Words of a rules file that name neither a rule nor a limit."""

_TEXTS: Final = ("family", "title", "statistic", "harmless", "remedy", "source")

_added: Final[dict[str, Rule]] = {}


class RuleError(ValueError):
    """A rule, or a choice of rules and thresholds, that cannot be used. It names the field and what there is."""


def register(rule: Rule) -> Rule:
    """Adds a rule to the catalogue of this process, from where `watch`, `check` and the collector take it; returns it.

    Own rules come after those of initscope, so that a symptom is explained by a cause that initscope knows. The same
    check registered again takes the place of the earlier one (a cell of a notebook that is run twice). Raises
    `TypeError` for what is no `Rule`, `RuleError` for one that cannot be told apart, named or counted.
    """
    refuse_rule(rule, "register")
    ours = next((r for r in RULES if r.id == rule.id), None)
    known = ours or _added.get(rule.id)
    if known is not None and (ours is not None or _origin(known) != _origin(rule)):
        raise RuleError(f"register: there is a rule {rule.id!r} already, its check is {'.'.join(_origin(known))}")
    _added[rule.id] = rule
    return rule


def catalogue() -> tuple[Rule, ...]:
    """All rules of this process, causes before symptoms, own ones last in the order of their registration."""
    return (*RULES, *_added.values())


def refuse_rule(rule: Any, where: str) -> None:
    """`TypeError` for what is no `Rule`, `RuleError` for one whose fields cannot be used."""
    if not isinstance(rule, Rule):
        raise TypeError(f"{where}: a Rule, got {_type(rule)}")
    if not isinstance(rule.id, str) or not _ID.fullmatch(rule.id) or len(rule.id) > MAX_NAME or rule.id in _RESERVED:
        raise RuleError(
            f"{where}: id {rule.id!r}; small letters, digits and single hyphens, at most {MAX_NAME}, as in 'tiny-gate'"
        )
    where = f"{where}: {rule.id}"
    if not callable(rule.check):
        raise RuleError(f"{where}.check is a function of (window, limits), got {_type(rule.check)}")
    _refuse_limits(rule, where)
    for field in ("patience", "clear_after"):
        steps = getattr(rule, field)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise RuleError(f"{where}.{field} is a number of steps from 1, got {steps!r}")
    for kind in rule.needs:
        if kind not in list(Kind):
            raise RuleError(f"{where}.needs: {kind!r} is none of {', '.join(Kind)}")
    for field in _TEXTS:
        if not isinstance(getattr(rule, field), str):
            raise RuleError(f"{where}.{field} is text, got {_type(getattr(rule, field))}")


def _refuse_limits(rule: Rule, where: str) -> None:
    if len(rule.limits) > MAX_LIMITS_PER_RULE:
        raise RuleError(f"{where}.limits: at most {MAX_LIMITS_PER_RULE}, got {len(rule.limits)}")
    for name, value in rule.limits.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > MAX_NAME or name in _RESERVED:
            raise RuleError(f"{where}.limits: {name!r} is no name of a limit, such as 'warning'")
        refuse_number(f"{where}.{name}", value)


def refuse_number(where: str, value: Any) -> None:
    """`RuleError` unless `value` is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RuleError(f"{where} is a number, got {value!r:.40}")
    if not math.isfinite(value):
        raise RuleError(f"{where} is a finite number, got {value}; to silence a rule switch it off")


def _origin(rule: Rule) -> tuple[str, str]:
    return getattr(rule.check, "__module__", ""), getattr(rule.check, "__qualname__", type(rule.check).__name__)


def _type(value: object) -> str:
    return type(value).__name__
