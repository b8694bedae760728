"""What the pages say, in plain words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from markupsafe import Markup, escape

from initscope.hooks.rules import Rule
from initscope.hooks.rules.page import judged_when
from initscope.hooks.rules.registry import catalogue
from initscope.hooks.vocabulary import RunStatus, Verdict
from initscope.service.store.read_findings import FindingHead, Summary
from initscope.service.store.read_runs import RunHead

_HEADLINES: Final = {
    Verdict.CRITICAL: "This start is expected to fail",
    Verdict.WARNING: "This start deserves a look",
    Verdict.OK: "This start looks healthy",
}
_SUBJECTS: Final = {
    "weight": "{}",
    "gradient": "gradient of {}",
    "update": "update of {}",
    "activation": "{}",
    "activation_gradient": "gradient of {}",
}


def status_word(run: RunHead, now: datetime) -> str:
    """live, stalled, finished, failed or lost."""
    if run.is_stalled(now):
        return "stalled"
    status = run.status(now)
    return "live" if status is RunStatus.RUNNING else status.value


def headline(summary: Summary, *, has_rows: bool) -> str:
    """The verdict as a sentence."""
    if not has_rows and summary.verdict is Verdict.OK:
        return "No rows yet"
    return _HEADLINES[summary.verdict]


def explanation(summary: Summary, steps: int, last_step: int | None, rules: int) -> str:
    """The sentence below the headline: the worst finding, or what was looked at by how many rules."""
    if summary.first is not None and summary.verdict is not Verdict.OK:
        return _first_finding(summary.first, summary.critical + summary.warning - 1)
    if not steps:
        return "The run has said hello. Its first step appears here by itself."
    what = "1 sampled step" if steps == 1 else f"{steps} sampled steps"
    return f"{rules} rules looked at {what} through step {last_step or 0:,} and have nothing that worries them."


def _first_finding(first: FindingHead, others: int) -> str:
    where = f" at {first.module_path}" if first.module_path else ""
    follows = len(first.consequences)
    sentences = [f"{rule_title(first.rule)}{where}, seen at step {first.first_step:,}."]
    if follows:
        sentences.append(f"It explains {follows} other finding{'s' if follows > 1 else ''}.")
    if others:
        sentences.append(f"{others} more stand{'s' if others == 1 else ''} beside it.")
    return " ".join(sentences)


def rule_title(rule: str) -> str:
    """A rule's name for people; the id of a rule that this version does not know."""
    return next((known.title for known in catalogue() if known.id == rule), rule)


def is_rule(rule: str) -> bool:
    """Whether the page of rules has it."""
    return any(known.id == rule for known in catalogue())


def marked(text: str) -> Markup:
    """A rule's text for a page, with `names` in the type of code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def judged(rule: Rule) -> str:
    """When a rule looks, as a sentence's beginning."""
    words = judged_when(rule)
    return words[:1].upper() + words[1:]


def cause_words(cause: str) -> str:
    """`too_small_vanish` → `too small vanish`."""
    return "" if cause == "none" else cause.replace("_", " ")


def subject(finding: FindingHead) -> str:
    """Which tensor a finding is about, beside its layer."""
    name = finding.tensor_name or "output"
    return _SUBJECTS.get(finding.kind or "", "{}").format(name) if finding.kind else ""


def evidence(finding: FindingHead) -> Mapping[str, str]:
    """The numbers behind a finding, for reading."""
    return {name.replace("_", " "): number(value) for name, value in finding.evidence.items()}


def number(value: Any) -> str:
    """Four significant digits for a number, with thin groups for large whole ones; text as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "−Inf"
    if float(value).is_integer() and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:.4g}"


def amount(value: int) -> str:
    """A count with its unit: 12, 34.5 k, 124 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)
