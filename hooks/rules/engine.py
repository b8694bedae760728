"""Rules and how they are run over a window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from initscope.hooks.rules.finding import Finding, refuse
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Kind

Limits = Mapping[str, float]
Check = Callable[[Window, Limits], Iterable[Finding]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A pure check and what its episodes need. A user's rule is the same kind of object.

    `patience`: consecutive evaluated steps that must show a finding before it opens. `clear_after`: clean ones before
    it resolves. `needs`: kinds without a record of which a step says nothing of the rule, neither good nor bad.
    `baseline_only`: the rule judges the start itself; later steps say nothing. `explained_by`: rules whose finding at
    the same step makes this one its consequence. `limits` are the thresholds by name, which a user may change. The
    text fields are the rule's page in docs/rules.md.
    """

    id: str
    family: str
    check: Check
    limits: Limits = field(default_factory=dict)
    patience: int = 1
    clear_after: int = 2
    needs: tuple[Kind, ...] = ()
    baseline_only: bool = False
    explained_by: tuple[str, ...] = ()
    title: str
    statistic: str
    harmless: str
    remedy: str
    source: str

    def judges(self, window: Window) -> bool:
        """Whether the step under judgement can say anything of this rule."""
        if not window.steps or (self.baseline_only and not window.is_baseline):
            return False
        now = window.now
        return all(any(t.key in now for t in window.model.by_kind[kind]) for kind in self.needs)


OnError = Callable[[Rule, Exception], object]


def diagnose(
    window: Window,
    rules: Sequence[Rule],
    limits: Mapping[str, Limits] | None = None,
    on_error: OnError | None = None,
) -> list[Finding]:
    """What the rules say of the step under judgement, consequences folded under their causes.

    `limits[rule_id]` overrides thresholds of a rule by name. Roots come first by severity, then in forward order.
    An error of a rule is raised, or handed to `on_error`: one bad rule then silences no other.
    """
    found = [f for some in checked(window, rules, limits, on_error) for f in some]
    return fold(found, {rule.id: rule for rule in rules}, window)


def checked(
    window: Window,
    rules: Iterable[Rule],
    limits: Mapping[str, Limits] | None = None,
    on_error: OnError | None = None,
) -> Iterator[list[Finding]]:
    """Each rule's findings in turn, not folded yet, so that a caller can do something else between two rules."""
    given = limits or {}
    for rule in rules:
        if not rule.judges(window):
            continue
        try:
            found = _checked(rule, rule.check(window, {**rule.limits, **given.get(rule.id, {})}))
        except Exception as error:  # a user's rule can raise anything
            if on_error is not None:
                on_error(rule, error)
                continue
            raise
        yield found


def _checked(rule: Rule, found: Iterable[Finding]) -> list[Finding]:
    """A rule's findings, all of them: a bad one must fail here, as its rule's fault, and not where all are stored."""
    findings = list(found)
    for finding in findings:
        refuse(finding, rule.id)
    return findings


def judged(window: Window, rules: Iterable[Rule]) -> frozenset[str]:
    """Ids of the rules that the step under judgement can say something of: for all others, silence is no all-clear.

    Once weights or outputs are NaN or Inf, rules that need records are blind.
    """
    blind = bool(window.steps) and any(
        stats.moments.nonfinite_count > 0 for kind in (Kind.WEIGHT, Kind.ACTIVATION) for _, stats in window.each(kind)
    )
    return frozenset(rule.id for rule in rules if rule.judges(window) and not (blind and rule.needs))


def fold(found: Sequence[Finding], rules: Mapping[str, Rule], window: Window) -> list[Finding]:
    """Puts each finding that another one explains under it; a cause may itself be a consequence. None is ever lost.

    Two findings that could explain each other: the one whose rule comes first in `rules` is the cause.
    """
    depth = {t.module_path: t.depth for t in window.model.tensors.values() if t.depth is not None}
    order = {rule_id: at for at, rule_id in enumerate(rules)}
    ordered = sorted(
        found,
        key=lambda f: (-f.severity.rank, depth.get(f.module_path or "", 0), order.get(f.rule, len(order))),
    )
    parents = _parents(ordered, rules, order)
    return [_grown(at, ordered, parents) for at, parent in enumerate(parents) if parent is None]


def _parents(found: Sequence[Finding], rules: Mapping[str, Rule], order: Mapping[str, int]) -> list[int | None]:
    """The index of what explains each finding. Symptoms choose first: they stand last in the catalogue."""
    parents: list[int | None] = [None] * len(found)
    for at in sorted(range(len(found)), key=lambda i: -order.get(found[i].rule, len(order))):
        parents[at] = next((i for i in _explanations(at, found, rules) if not _is_under(i, at, parents)), None)
    return parents


def _explanations(at: int, found: Sequence[Finding], rules: Mapping[str, Rule]) -> Iterable[int]:
    finding = found[at]
    rule = rules.get(finding.rule)
    for rule_id in rule.explained_by if rule is not None else ():
        for i, other in enumerate(found):
            # A warning never hides a critical finding: the cause must be at least as severe.
            if other.rule == rule_id and i != at and other.severity.rank >= finding.severity.rank:
                yield i


def _is_under(at: int, root: int, parents: Sequence[int | None]) -> bool:
    up: int | None = at
    while up is not None and up != root:
        up = parents[up]
    return up == root


def _grown(root: int, found: Sequence[Finding], parents: Sequence[int | None]) -> Finding:
    below = tuple(f for i, f in enumerate(found) if i != root and _is_under(i, root, parents))
    return replace(found[root], consequences=found[root].consequences + below)
