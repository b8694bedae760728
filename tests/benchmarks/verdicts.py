"""From findings to a verdict: when a run was first called bad, for what, and where. In startbench's words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from initscope.hooks import Finding
from initscope.hooks.vocabulary import Cause, Severity

WORDS: Final = {
    Cause.DUPLICATED_TENSORS: "constant_symmetric",
    Cause.STUCK_BRANCH: "zero_symmetric",
    Cause.STARVED_UPDATE: "too_small_vanish",
    Cause.NORM_GAIN: "zero_symmetric",
    Cause.NUMERIC_RANGE: "nonfinite",
    Cause.TRUNCATION: "wrong_gain_for_activation",
    Cause.MIXED_PROVENANCE: "none",
    Cause.REPLICAS_DIFFER: "none",
}
"""Causes that startbench has no word for, by the nearest that it has."""


class Book:
    """Notes at which step each finding was first seen open, and how bad it got."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[int, int | None]] = {}
        self._newest: dict[str, tuple[str, Finding]] = {}

    def note(self, step: int, found: Iterable[tuple[str, Sequence[Finding]]]) -> None:
        """What is open after a step, by the path of the part that is watched ("" for the whole model)."""
        for part, findings in found:
            for finding in findings:
                self._note(step, part, finding)

    def _note(self, step: int, part: str, finding: Finding) -> None:
        if finding.severity is Severity.INFO:
            return
        name = f"{part}|{finding.fingerprint}"
        self._newest[name] = (part, finding)
        warned, failed = self._steps.get(name, (step, None))
        if finding.severity is Severity.CRITICAL and failed is None:
            failed = step
        self._steps[name] = (warned, failed)

    def verdict(self) -> dict[str, Any]:
        """Level, first critical step, first alert's step, causes and layers: critical ones and early ones first."""
        order = sorted(
            self._steps, key=lambda f: (self._steps[f][1] is None, self._steps[f][1] or 0, self._steps[f][0])
        )
        found = [self._newest[f] for f in order]
        fails = [failed for _, failed in self._steps.values() if failed is not None]
        said: dict[str, Any] = {
            "level": "critical" if fails else "warning" if found else "ok",
            "step": min(fails, default=None),
            "causes": list(dict.fromkeys(WORDS.get(f.cause, f.cause.value) for _, f in found)),
            "layers": list(dict.fromkeys(path for part, f in found for path in _layers(part, f))),
            "rules": list(dict.fromkeys(f.rule for _, f in found)),
        }
        if found:
            said["warn_step"] = min(warned for warned, _ in self._steps.values())
        return said


def _layers(part: str, finding: Finding) -> list[str]:
    path = ".".join(p for p in (part, finding.module_path or "") if p)
    return [path] if finding.module_path is not None and path else []
