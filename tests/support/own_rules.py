"""Rules as a user writes them; imported by name it registers one, as a plugin does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from initscope.hooks import register
from initscope.hooks.rules import Cause, Finding, Kind, Limits, Rule, Severity, Window


def rule(rule_id: str = "my-rule", severity: Severity = Severity.CRITICAL, *, step: int = 0) -> Rule:
    """Finds something from a step on, in any model."""

    def check(window: Window, limits: Limits) -> Iterator[Finding]:
        if window.step >= max(step, limits["from_step"]):
            yield Finding(
                rule=rule_id,
                severity=severity,
                cause=Cause.NONE,
                step=window.step,
                diagnosis="It is as it is.",
                remedy="first line\nsecond line",
            )

    return Rule(
        id=rule_id, family="own", check=check, limits={"from_step": 0.0}, title="T", statistic="`from_step`",
        harmless="h", remedy="r", source="s",
    )  # fmt: skip


def check_wide(window: Window, limits: Limits) -> Iterable[Finding]:
    """Weights beyond a bound."""
    for tensor, stats in window.each(Kind.WEIGHT):
        if stats.moments.rms > limits["rms"]:
            yield Finding(
                rule="plugin-wide-weight",
                severity=Severity.CRITICAL,
                cause=Cause.TOO_LARGE_EXPLODE,
                step=window.step,
                module_path=tensor.module_path,
                diagnosis="wide",
                remedy="narrow",
            )


WIDE = register(
    Rule(
        id="plugin-wide-weight", family="own", check=check_wide, limits={"rms": 1e30}, needs=(Kind.WEIGHT,),
        title="A wide weight", statistic="`rms` of weights", harmless="none", remedy="narrow", source="a test",
    )
)  # fmt: skip
