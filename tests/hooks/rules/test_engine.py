from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from initscope.hooks.rules import Finding, Limits, Model, Rule, Window, diagnose, fold, judged
from initscope.hooks.vocabulary import Cause, Kind, Severity

WINDOW = Window(Model({}), {0: {}})


def finding(rule: str, severity: Severity = Severity.WARNING, path: str = "a") -> Finding:
    return Finding(rule=rule, severity=severity, cause=Cause.NONE, step=0, diagnosis="d", remedy="r", module_path=path)


def rule(rule_id: str, *explained_by: str, **options: object) -> Rule:
    def check(_window: Window, limits: Limits) -> Iterable[Finding]:
        return [finding(rule_id)] if limits.get("on", 1.0) else []

    given: dict[str, object] = {"check": check, "explained_by": explained_by, **options}
    return Rule(id=rule_id, family="f", title="t", statistic="s", harmless="h", remedy="r", source="x", **given)  # type: ignore[arg-type]


def test_a_consequence_is_listed_under_its_cause() -> None:
    (root,) = diagnose(WINDOW, [rule("cause"), rule("symptom", "cause")])
    assert (root.rule, [f.rule for f in root.consequences]) == ("cause", ["symptom"])


def test_a_consequence_of_a_consequence_is_listed_under_the_root() -> None:
    (root,) = diagnose(WINDOW, [rule("a"), rule("b", "a"), rule("c", "b")])
    assert (root.rule, {f.rule for f in root.consequences}) == ("a", {"b", "c"})


def test_of_two_rules_that_explain_each_other_the_earlier_is_the_cause() -> None:
    (root,) = diagnose(WINDOW, [rule("first", "second"), rule("second", "first")])
    assert (root.rule, [f.rule for f in root.consequences]) == ("first", ["second"])


def test_a_warning_never_hides_a_critical_finding() -> None:
    rules = {r.id: r for r in (rule("mild"), rule("grave", "mild"))}
    folded = fold([finding("mild"), finding("grave", Severity.CRITICAL)], rules, WINDOW)
    assert [f.rule for f in folded] == ["grave", "mild"]


def test_limits_can_be_overridden_by_name() -> None:
    assert diagnose(WINDOW, [rule("a")], {"a": {"on": 0.0}}) == []


def test_a_rule_of_the_start_is_judged_at_the_baseline_only() -> None:
    later = Window(Model({}), {0: {}, 3: {}})
    only = rule("start", baseline_only=True)
    assert judged(WINDOW, [only]) == {"start"}
    assert judged(later, [only]) == frozenset()
    assert diagnose(later, [only]) == []


def test_a_rule_without_its_records_says_nothing() -> None:
    needy = rule("needy", needs=(Kind.WEIGHT,))
    assert judged(WINDOW, [needy, rule("free")]) == {"free"}
    assert diagnose(WINDOW, [needy]) == []


def test_a_finding_of_an_unknown_rule_is_kept() -> None:
    assert [f.rule for f in fold([finding("stranger")], {}, WINDOW)] == ["stranger"]


NAMES = st.sampled_from("abcde")
RULES = st.fixed_dictionaries({name: st.lists(NAMES, max_size=4) for name in "abcde"})
FOUND = st.lists(st.builds(finding, NAMES, st.sampled_from(Severity), NAMES), max_size=12)


@given(RULES, FOUND)
def test_folding_loses_no_finding_and_doubles_none(explained: dict[str, list[str]], found: list[Finding]) -> None:
    rules = {name: rule(name, *causes) for name, causes in explained.items()}
    folded = fold(found, rules, WINDOW)
    flat = [f for root in folded for f in (root, *root.consequences)]
    assert sorted((f.rule, f.severity, f.module_path or "") for f in flat) == sorted(
        (f.rule, f.severity, f.module_path or "") for f in found
    )
    assert all(f.severity.rank <= root.severity.rank for root in folded for f in root.consequences)


@given(RULES, FOUND)
def test_roots_come_worst_first(explained: dict[str, list[str]], found: list[Finding]) -> None:
    ranks = [f.severity.rank for f in fold(found, {n: rule(n, *c) for n, c in explained.items()}, WINDOW)]
    assert ranks == sorted(ranks, reverse=True)
