"""A finding in words for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from initscope.hooks.rules import Finding
from initscope.hooks.vocabulary import Kind, Severity, Verdict

WIDTH: Final = 110
"""Columns of everything that is written for a terminal."""
_PARAMETERS: Final = (Kind.WEIGHT, Kind.GRADIENT, Kind.UPDATE)


def place(finding: Finding) -> str:
    """The layer, and the parameter where it is about one; empty for the run."""
    name = finding.tensor_name if finding.kind in _PARAMETERS else None
    return ".".join(part for part in (finding.module_path, name) if part)


def finding(found: Finding, head: str) -> str:
    """Why, cause, what to change, and what it explains, under a line of its own."""
    lines = [
        head,
        _field("why", found.diagnosis),
        _field("cause", found.cause.value),
        _code("change", found.remedy),
    ]
    if found.consequences:
        rules = sorted({f.rule for f in found.consequences})
        lines.append(_field("explains", f"{len(found.consequences)} more: {', '.join(rules)}"))
    return "\n".join(lines)


def verdict(findings: Sequence[Finding]) -> Verdict:
    """The worst of the findings, infos left out."""
    severities = {f.severity for f in findings}
    if Severity.CRITICAL in severities:
        return Verdict.CRITICAL
    return Verdict.WARNING if Severity.WARNING in severities else Verdict.OK


def wrapped(words: str, indent: int = 0) -> str:
    """Text folded at the width."""
    return textwrap.fill(words, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)


def _field(name: str, words: str) -> str:
    return textwrap.fill(words, WIDTH, initial_indent=f"  {name:<9}", subsequent_indent=" " * 11)


def _code(name: str, lines: str) -> str:
    """Lines as they are: what is wrapped cannot be pasted."""
    return "\n".join(f"  {name if at == 0 else '':<9}{line}" for at, line in enumerate(lines.splitlines()))
