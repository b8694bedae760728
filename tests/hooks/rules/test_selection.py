"""Own rules, thresholds by keyword and by file: what they change, and what is said of what cannot be used."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from initscope.hooks import register, rule_file
from initscope.hooks.rules import RULES, Finding, Model, Rule, Severity, Window, diagnose, judged, registry
from initscope.hooks.rules.registry import RuleError, catalogue
from initscope.hooks.rules.selection import Selection, select
from tests.support.own_rules import WIDE, rule

FIRST = RULES[0]
LIMITED = next(r for r in RULES if {"warning", "critical"} <= r.limits.keys())


@pytest.fixture(autouse=True)
def _own_rules_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_added", {})


def window(step: int = 0) -> Window:
    """A step of a model without tensors: rules that need none can judge it."""
    return Window(Model({}), {step: {}})


def test_a_registered_rule_judges_like_ours_and_comes_last() -> None:
    mine = register(rule())
    assert catalogue() == (*RULES, mine)
    assert [f.rule for f in diagnose(window(), select().active)] == ["my-rule"]
    assert [f.severity for f in diagnose(window(), select().active)] == [Severity.CRITICAL]


def test_a_cell_that_runs_twice_registers_once_and_the_newest_counts() -> None:
    register(rule())
    second = register(replace(rule(), limits={"from_step": 5.0}))
    assert catalogue() == (*RULES, second)
    other = replace(WIDE, id="my-rule")
    with pytest.raises(RuleError, match=r"there is a rule 'my-rule' already, its check is tests\.support\.own_rules"):
        register(other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "My Rule"}, "id 'My Rule'"),
        ({"id": "a|b"}, "id 'a|b'"),
        ({"id": "plugins"}, "id 'plugins'"),
        ({"id": FIRST.id}, f"there is a rule '{FIRST.id}' already"),
        ({"check": 5}, "my-rule.check is a function of (window, limits), got int"),
        ({"limits": {"enabled": 1.0}}, "'enabled' is no name of a limit"),
        ({"limits": {"warning": "4"}}, "my-rule.warning is a number, got '4'"),
        ({"limits": {"warning": math.nan}}, "my-rule.warning is a finite number, got nan"),
        ({"patience": 0}, "my-rule.patience is a number of steps from 1, got 0"),
        ({"clear_after": True}, "my-rule.clear_after"),
        ({"limits": {f"x{n}": 1.0 for n in range(65)}}, "my-rule.limits: at most 64, got 65"),
        ({"title": None}, "my-rule.title is text, got NoneType"),
        ({"needs": ("weights",)}, "my-rule.needs: 'weights' is none of weight, gradient"),
    ],
    ids=str,
)
def test_a_rule_that_cannot_be_used_is_refused_with_its_field(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RuleError) as caught:
        register(replace(rule(), **changes))
    assert words in str(caught.value)
    assert catalogue() == RULES


def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(TypeError, match="a Rule, got function"):
        register(rule().check)  # type: ignore[arg-type]


def test_thresholds_and_switches_change_only_what_they_name() -> None:
    selection = select({LIMITED.id: {"warning": 4}, FIRST.id: False} if FIRST is not LIMITED else {})
    assert selection.limits == {LIMITED.id: {"warning": 4.0}}
    assert selection.limits_of(LIMITED) == {**LIMITED.limits, "warning": 4.0}
    assert [r.id for r in selection.active] == [r.id for r in RULES if r is not FIRST]
    again = selection.changed({FIRST.id: True, LIMITED.id: {"critical": 9.0, "enabled": False}})
    assert again.limits == {LIMITED.id: {"warning": 4.0, "critical": 9.0}}
    assert again.disabled == {LIMITED.id}
    assert selection.disabled == {FIRST.id}, "the earlier one is as it was"


def test_limits_reach_the_check() -> None:
    register(rule())
    assert diagnose(window(3), select().active)
    selection = select({"my-rule": {"from_step": 4.0}})
    assert diagnose(window(3), selection.active, selection.limits) == []
    assert diagnose(window(4), selection.active, selection.limits)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({LIMITED.id[:-1]: False}, f"there is no rule '{LIMITED.id[:-1]}'; did you mean '{LIMITED.id}'? There are: "),
        ({"zzz": False}, "there is no rule 'zzz'. There are: "),
        (
            {LIMITED.id: {"warnig": 4}},
            f"{LIMITED.id}: the rule has no limit 'warnig'; did you mean 'warning'? There are",
        ),
        ({LIMITED.id: {"warning": "4"}}, f"{LIMITED.id}.warning is a number, got '4'"),
        ({LIMITED.id: {"warning": True}}, f"{LIMITED.id}.warning is a number, got True"),
        ({LIMITED.id: {"warning": math.inf}}, f"{LIMITED.id}.warning is a finite number"),
        ({LIMITED.id: {"enabled": "no"}}, f"{LIMITED.id}.enabled is true or false, got 'no'"),
        ({LIMITED.id: 4.0}, f"{LIMITED.id} is a mapping of limits to numbers, or False, got float"),
        ([LIMITED, LIMITED], f"'{LIMITED.id}' is given twice"),
    ],
    ids=str,
)
def test_a_choice_that_cannot_be_used_is_refused_with_what_there_is(given: Any, words: str) -> None:
    with pytest.raises(RuleError) as caught:
        select(given)
    assert str(caught.value).startswith("rules: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("given", [5, "forward-drift", [FIRST, "forward-drift"], [FIRST.check]], ids=str)
def test_what_chooses_no_rules_is_a_type_error(given: Any) -> None:
    with pytest.raises(TypeError, match=r"rules: (rules, or a mapping of rule ids to limits|a Rule), got"):
        select(given)
    with pytest.raises(RuleError, match="rules: id 'My rule'"):
        select([replace(rule(), id="My rule")])


def test_a_run_changes_what_its_judge_knows_and_the_rest_is_left_out() -> None:
    base = select({LIMITED.id: {"warning": 4.0, "critical": 9.0}})
    run = base.for_run({LIMITED.id: {"warning": 5.0, "newer": 1.0}, "own-rule": {"x": 1.0}}, [FIRST.id, "own-rule"])
    assert run.limits == {LIMITED.id: {"warning": 5.0, "critical": 9.0}}
    assert run.disabled == {FIRST.id}
    assert base.for_run({}, []) == base


def test_a_rule_that_fails_silences_no_other_and_its_silence_is_no_all_clear() -> None:
    def fails(_window: Window, _limits: Any) -> list[Finding]:
        raise ZeroDivisionError

    broken = replace(rule("broken"), check=fails)
    lies = replace(rule("lies"), check=rule("other").check)
    gives_words = replace(rule("words"), check=lambda _window, _limits: ["bad"])
    rules = [broken, lies, gives_words, rule()]
    failed: dict[str, Exception] = {}
    found = diagnose(window(), rules, on_error=lambda r, error: failed.setdefault(r.id, error))
    assert [f.rule for f in found] == ["my-rule"]
    assert {name: type(error) for name, error in failed.items()} == {
        "broken": ZeroDivisionError, "lies": ValueError, "words": TypeError,
    }  # fmt: skip
    assert judged(window(), rules) - failed.keys() == {"my-rule"}
    with pytest.raises(ZeroDivisionError):
        diagnose(window(), rules)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"severity": "critical"}, TypeError, "severity is Severity, got str"),
        ({"cause": None}, TypeError, "cause is Cause, got NoneType"),
        ({"step": 1.0}, TypeError, "step is int, got float"),
        ({"kind": "weight"}, TypeError, "kind is Kind, got str"),
        ({"diagnosis": None}, TypeError, "diagnosis is str, got NoneType"),
        ({"module_path": 5}, TypeError, "module_path is str, got int"),
        ({"remedy": "a\x00b"}, ValueError, "remedy has a NUL"),
        ({"evidence": {"a": [1]}}, TypeError, r"evidence\.a is int \| float \| str, got list"),
        ({"evidence": {1: 1.0}}, TypeError, "evidence is str, got int"),
        ({"evidence": {"a": "\x00"}}, ValueError, r"evidence\.a has a NUL"),
        ({"subject": "x" * 2_000}, ValueError, "subject is longer than 2000 bytes"),
    ],
    ids=str,
)
def test_a_finding_that_could_not_be_stored_is_its_rules_fault(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    good = rule()

    def check(window: Window, limits: Any) -> list[Finding]:
        return [replace(f, **changes) for f in good.check(window, limits)]

    with pytest.raises(error, match=f"my-rule: its finding's {words}"):
        diagnose(window(), [replace(good, check=check)])
    assert diagnose(window(), [good])


def write(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text)
    return path


def test_a_file_changes_thresholds_switches_and_imports_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tests.support.own_rules")  # as in a process that has not imported it
    text = f"""
        plugins = ["tests.support.own_rules"]
        [{LIMITED.id}]
        warning = 4
        [{FIRST.id}]
        enabled = false
        [plugin-wide-weight]
        rms = 1.5
    """
    selection = rule_file.load(write(tmp_path, text))
    assert [r.id for r in selection.rules] == [*(r.id for r in RULES), "plugin-wide-weight"]
    assert selection.limits[LIMITED.id] == {"warning": 4.0}
    assert selection.limits["plugin-wide-weight"] == {"rms": 1.5}
    assert FIRST.id in selection.disabled


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[forward-drift\nwarning = 1", "is no TOML: "),
        ("plugins = 'one'", "plugins is a list of names of modules, got 'one'"),
        ("plugins = [1]", "plugins is a list of names of modules"),
        ("plugins = ['not.there']", "plugins: 'not.there' cannot be imported: ModuleNotFoundError"),
        (f"[{LIMITED.id}]\nwarnig = 4", "did you mean 'warning'?"),
        (f"[{LIMITED.id}.warning]\nmore = 4", f"{LIMITED.id}.warning is a number"),
        ("warning = 4", "there is no rule 'warning'"),
        (f"[{LIMITED.id}]\nwarning = inf", "is a finite number"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_field(text: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RuleError) as caught:
        rule_file.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"absent\.toml: cannot be read: No such file"):
        rule_file.load(tmp_path / "absent.toml")
    with pytest.raises(RuleError, match="cannot be read: Is a directory"):
        rule_file.load(tmp_path)
    (tmp_path / "latin").write_bytes(b"# \xe9")
    with pytest.raises(RuleError, match="is no TOML"):
        rule_file.load(tmp_path / "latin")


def test_a_keyword_goes_over_the_file_of_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path, f"[{LIMITED.id}]\nwarning = 4.0\ncritical = 9.0")
    assert rule_file.chosen(None, None) == select()
    assert rule_file.chosen(None, file).limits == {LIMITED.id: {"warning": 4.0, "critical": 9.0}}
    mapping = {LIMITED.id: {"warning": 5.0}}
    assert rule_file.chosen(mapping, file).limits == {LIMITED.id: {"warning": 5.0, "critical": 9.0}}
    other = tmp_path / "other.toml"
    other.write_text(f"[{LIMITED.id}]\nenabled = false")
    for path in (other, str(other)):
        assert rule_file.chosen(path, file) == Selection(RULES, {}, frozenset({LIMITED.id}))
    assert rule_file.chosen([FIRST], file) == Selection((FIRST,))


def test_a_rule_of_ones_own_is_the_same_kind_of_object() -> None:
    assert type(rule()) is type(FIRST) is Rule
