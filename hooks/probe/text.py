"""Findings in words for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from initscope.hooks.report import words
from initscope.hooks.rules import Finding
from initscope.hooks.vocabulary import RunStatus, Severity


def opened(finding: Finding) -> str:
    """A finding in three to four lines: where, why, what to change."""
    where = words.place(finding)
    head = f"initscope: {finding.severity.value.upper()}{f' in {where}' if where else ''}, step {finding.step}"
    return words.finding(finding, f"{head} ({finding.rule})")


def resolved(finding: Finding, step: int) -> str:
    """One line about a finding that is gone."""
    where = f" in {finding.module_path}" if finding.module_path else ""
    return f"initscope: resolved at step {step}: {finding.rule}{where}"


def report(findings: Sequence[Finding], step: int, dropped: int = 0) -> str:
    """The verdict and every finding."""
    head = f"initscope: {words.verdict(findings).value} after step {step}, {len(findings)} open findings"
    if dropped:
        head += f" ({dropped} messages were not judged, the training was faster than the diagnosis)"
    return "\n\n".join([head, *(opened(f) for f in findings)])


def ending(findings: Sequence[Finding], step: int, status: RunStatus) -> str:
    """One line at the end of a run that had findings; nothing for a healthy one."""
    told = [f for f in findings if f.severity is not Severity.INFO]
    if not told:
        return ""
    names = ", ".join(f"{f.rule} in {f.module_path}" if f.module_path else f.rule for f in told[:5])
    return f"initscope: run {status.value}, verdict {words.verdict(told).value} at step {step}: {names}"
