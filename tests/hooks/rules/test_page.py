from __future__ import annotations

import re
from pathlib import Path

import pytest

from initscope.hooks import rule_file
from initscope.hooks.rules import RULES, Rule, registry
from initscope.hooks.rules.page import page

DOCS = Path(__file__).resolve().parents[3] / "docs" / "rules.md"


def test_docs_say_what_the_catalogue_says() -> None:
    assert DOCS.read_text() == page(), "run `python -m initscope.hooks.rules.page > docs/rules.md`"


def test_ids_are_unique() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_explains_itself_and_names_its_limits(rule: Rule) -> None:
    assert set(rule.explained_by) <= {other.id for other in RULES} - {rule.id}
    assert all((rule.title, rule.statistic, rule.harmless, rule.remedy, rule.source))
    # Limits that only tune when a rule looks (not what it means) are named in the page's list.
    named = {name for name in rule.limits if f"`{name}`" in rule.statistic}
    assert set(rule.limits) - named <= {"early", "smallest"}


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", page(), re.MULTILINE | re.DOTALL)
    return found


def test_the_rule_of_ones_own_in_the_docs_finds_what_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_added", {})
    exec(compile(block("python"), "docs/rules.md", "exec"), {})  # noqa: S102 - our own
    said = capsys.readouterr()
    for words in ("open-gate", "The gate gate begins open", "nn.init.constant_(model.gate.bias, -3.0)"):
        assert words in said.out
    assert "WARNING in gate.bias, step 0 (open-gate)" in said.err
    (own,) = registry.catalogue()[len(RULES) :]
    test_a_rule_explains_itself_and_names_its_limits(own)


def test_the_file_in_the_docs_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_company").mkdir()
    (tmp_path / "my_company" / "rules.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "rules.toml"
    file.write_text(block("toml"))
    selection = rule_file.load(file)
    assert selection.limits == {"forward-drift": {"warning": 4.0}}
    assert selection.disabled == {"initial-loss"}
    (inline,) = re.findall(r"`watch\(model, rules=(\{.*?\})\)`", page())
    assert selection.changed(eval(inline)) == selection, "both ways say the same"  # noqa: S307 - our own
