from __future__ import annotations

from pathlib import Path

import pytest

from initscope.hooks.rules import RULES, Rule
from initscope.hooks.rules.page import page

DOCS = Path(__file__).resolve().parents[3] / "docs" / "rules.md"


def test_docs_say_what_the_catalogue_says() -> None:
    assert DOCS.read_text() == page(), "run `python -m initscope.hooks.rules.page > docs/rules.md`"


def test_ids_are_unique() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_explains_itself_and_names_its_limits(rule: Rule) -> None:
    assert set(rule.explained_by) <= {other.id for other in RULES} - {rule.id}
    assert all((rule.title, rule.statistic, rule.harmless, rule.source))
    # Limits that only tune when a rule looks (not what it means) are named in the page's list.
    named = {name for name in rule.limits if f"`{name}`" in rule.statistic}
    assert set(rule.limits) - named <= {"early", "smallest"}
