"""Writes docs/rules.md from the rules' own texts: `python -m tests.support.rules_document`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from initscope.hooks.rules import RULES, Rule

FILE = Path(__file__).resolve().parents[2] / "docs" / "rules.md"
_INTRODUCTION = """\
# Rules

Made from the rules' own texts by `.venv/bin/python -m tests.support.rules_document`; edit those, in
`initscope.hooks.rules`.

A rule sees the records of the attempt's first step and of the last 20 sampled ones, and the model's
description; no clock, no tensors. It gives findings, each with severity, cause, layer, evidence and a remedy.
**Patience** is how many evaluated steps in a row must show a finding before it opens, **clears after** how many
clean ones resolve it. A finding that is **explained by** another rule's at the same step, at least as severe,
is folded under it. Numbers in `code` are the thresholds.
"""


def text() -> str:
    """The document."""
    contents = "\n".join(f"- [{rule.title}](#{rule.id})" for rule in RULES)
    families = groupby(RULES, key=lambda rule: rule.family)
    sections = [
        section
        for family, rules in families
        for section in (f"## {family.capitalize()}", *(_section(rule) for rule in rules))
    ]
    return "\n\n".join([_INTRODUCTION.rstrip(), contents, *sections]) + "\n"


def _section(rule: Rule) -> str:
    limits = ", ".join(f"`{name}` {value:g}" for name, value in rule.limits.items())
    explained = ", ".join(f"[{other}](#{other})" for other in rule.explained_by)
    episode = f"opens after {rule.patience}, clears after {rule.clear_after}"
    lines = [
        f"### {rule.id}",
        "",
        f"**{rule.title}.** {rule.statistic}",
        "",
        f"- **Harmless:** {rule.harmless}",
        f"- **Source:** {rule.source}",
        *([f"- **Thresholds:** {limits}"] if limits else []),
        f"- **Episode:** {episode}",
        *([f"- **Explained by:** {explained}"] if explained else []),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    FILE.write_text(text())
