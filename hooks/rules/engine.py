"""Rules and how they are run over a window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.window import Window

Limits = Mapping[str, float]
Check = Callable[[Window, Limits], Iterable[Finding]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A pure check and what its episodes need. A user's rule is the same kind of object.

    `patience`: consecutive evaluated steps that must show a finding before it opens. `clear_after`: clean ones before
    it resolves. `explained_by`: rules whose finding at the same step makes this one its consequence. `limits` are the
    thresholds by name, which a user may change. The text fields are the rule's page in docs/rules.md.
    """

    id: str
    family: str
    check: Check
    limits: Limits = field(default_factory=dict)
    patience: int = 1
    clear_after: int = 2
    explained_by: tuple[str, ...] = ()
    title: str
    statistic: str
    harmless: str
    source: str


def diagnose(window: Window, rules: Sequence[Rule], limits: Mapping[str, Limits] | None = None) -> list[Finding]:
    """What the rules say of the step under judgement, consequences folded under their causes.

    `limits[rule_id]` overrides thresholds of a rule by name. Roots come first by severity, then in forward order.
    """
    given = limits or {}
    found = [f for rule in rules for f in rule.check(window, {**rule.limits, **given.get(rule.id, {})})]
    return fold(found, {rule.id: rule for rule in rules}, window)


def fold(found: Sequence[Finding], rules: Mapping[str, Rule], window: Window) -> list[Finding]:
    """Puts each finding that another one explains under it; a cause may itself be a consequence."""
    depth = {t.module_path: t.depth for t in window.model.tensors.values() if t.depth is not None}
    ordered = sorted(found, key=lambda f: (-f.severity.rank, depth.get(f.module_path or "", 0)))
    roots: list[Finding] = []
    children: dict[str, list[Finding]] = {}
    for finding in ordered:
        cause = _explanation(finding, ordered, rules)
        if cause is None:
            roots.append(finding)
        else:
            children.setdefault(cause.fingerprint, []).append(finding)
    return [replace(root, consequences=tuple(_descendants(root, children))) for root in roots]


def _explanation(finding: Finding, found: Sequence[Finding], rules: Mapping[str, Rule]) -> Finding | None:
    for rule_id in rules[finding.rule].explained_by:
        for other in found:
            # A warning never hides a critical finding: the root must be at least as severe.
            if other.rule == rule_id and other.severity.rank >= finding.severity.rank:
                return other
    return None


def _descendants(root: Finding, children: Mapping[str, list[Finding]]) -> Iterable[Finding]:
    seen = {root.fingerprint}
    queue = list(children.get(root.fingerprint, []))
    while queue:
        finding = queue.pop(0)
        if finding.fingerprint in seen:
            continue
        seen.add(finding.fingerprint)
        yield finding
        queue.extend(children.get(finding.fingerprint, []))
