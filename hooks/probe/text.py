"""Findings in words for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from initscope.hooks.rules import Finding
from initscope.hooks.vocabulary import RunStatus, Severity, Verdict

_WIDTH = 110


def opened(finding: Finding) -> str:
    """A finding in three to four lines: where, why, what to change."""
    where = f" in {finding.module_path}" if finding.module_path else ""
    if finding.tensor_name and finding.kind and finding.kind.value in ("weight", "gradient", "update"):
        where += f".{finding.tensor_name}" if where else f" in {finding.tensor_name}"
    lines = [
        f"initscope: {finding.severity.value.upper()}{where}, step {finding.step} ({finding.rule})",
        _field("why", finding.diagnosis),
        _field("cause", finding.cause.value),
        _code("change", finding.remedy),
    ]
    if finding.consequences:
        rules = sorted({f.rule for f in finding.consequences})
        lines.append(_field("explains", f"{len(finding.consequences)} more: {', '.join(rules)}"))
    return "\n".join(lines)


def resolved(finding: Finding, step: int) -> str:
    """One line about a finding that is gone."""
    where = f" in {finding.module_path}" if finding.module_path else ""
    return f"initscope: resolved at step {step}: {finding.rule}{where}"


def verdict(findings: Sequence[Finding]) -> Verdict:
    """The worst of the findings, infos left out."""
    severities = {f.severity for f in findings}
    if Severity.CRITICAL in severities:
        return Verdict.CRITICAL
    return Verdict.WARNING if Severity.WARNING in severities else Verdict.OK


def report(findings: Sequence[Finding], step: int, dropped: int = 0) -> str:
    """The verdict and every finding."""
    head = f"initscope: {verdict(findings).value} after step {step}, {len(findings)} open findings"
    if dropped:
        head += f" ({dropped} messages were not judged, the training was faster than the diagnosis)"
    return "\n\n".join([head, *(opened(f) for f in findings)])


def ending(findings: Sequence[Finding], step: int, status: RunStatus) -> str:
    """One line at the end of a run that had findings; nothing for a healthy one."""
    told = [f for f in findings if f.severity is not Severity.INFO]
    if not told:
        return ""
    names = ", ".join(f"{f.rule} in {f.module_path}" if f.module_path else f.rule for f in told[:5])
    return f"initscope: run {status.value}, verdict {verdict(told).value} at step {step}: {names}"


def _field(name: str, words: str) -> str:
    return textwrap.fill(words, _WIDTH, initial_indent=f"  {name:<9}", subsequent_indent=" " * 11)


def _code(name: str, lines: str) -> str:
    """Lines as they are: what is wrapped cannot be pasted."""
    return "\n".join(f"  {name if at == 0 else '':<9}{line}" for at, line in enumerate(lines.splitlines()))
