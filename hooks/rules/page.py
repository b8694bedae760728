"""docs/rules.md, made of the catalogue: `python -m initscope.hooks.rules.page > docs/rules.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from initscope.hooks.rules import RULES, Rule
from initscope.hooks.rules.guide import GUIDE

_INTRODUCTION = """\
# Rules

<!-- Made by `python -m initscope.hooks.rules.page > docs/rules.md`; do not edit. -->

A rule is a pure function from a window of statistics and the model's description to findings. **Critical** means that
the run is expected to fail: a structural certainty (zero, constant, identical, uninitialized), or two signs that do not
follow from each other. **Warning** means likely slow, **info** the rest. A finding opens after *patience* evaluated
steps that show it, and resolves after *clear after* steps that do not; rules of the start alone are judged once, at the
first recorded step, and stay open until the run ends. Findings that another rule explains are listed under it.

Every threshold is one of the rule's limits, by name. Octaves are log2 of an rms. [Thresholds](#thresholds) says how to
change them, [Rules of your own](#rules-of-your-own) how to add to the catalogue.
"""


def page(rules: Sequence[Rule] = RULES) -> str:
    """The page as Markdown."""
    return "\n".join([_INTRODUCTION, *_table(rules), "", GUIDE, *(line for rule in rules for line in _section(rule))])


def _table(rules: Sequence[Rule]) -> Iterator[str]:
    yield "| rule | family | says |"
    yield "|---|---|---|"
    for rule in rules:
        yield f"| [`{rule.id}`](#{rule.id}) | {rule.family} | {rule.title} |"


def _section(rule: Rule) -> Iterator[str]:
    yield f"## {rule.id}"
    yield ""
    yield f"{rule.title}."
    yield ""
    yield f"- **Statistic**: {rule.statistic}"
    yield f"- **Limits**: {', '.join(f'`{name}` {value:g}' for name, value in rule.limits.items()) or 'none'}"
    yield f"- **Harmless look-alikes**: {rule.harmless}"
    yield f"- **Judged**: {judged_when(rule)}"
    yield f"- **Remedy**: {rule.remedy}"
    if rule.explained_by:
        yield f"- **Consequence of**: {', '.join(f'[`{other}`](#{other})' for other in rule.explained_by)}"
    yield f"- **Source**: {rule.source}"
    yield ""


def judged_when(rule: Rule) -> str:
    """Which steps a rule judges, and how many of them open and resolve a finding."""
    if rule.baseline_only:
        return "once, at the first recorded step"
    return f"at every sampled step; patience {rule.patience}, clear after {rule.clear_after}"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - this is a command
