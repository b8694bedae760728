"""Finding: what a rule says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from initscope.hooks.vocabulary import Cause, Kind, Severity


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule's verdict on evidence.

    `module_path` is the first offending layer, or None for a finding about the run. `diagnosis` is one sentence that
    says why, `remedy` one that says what to type, with this layer's own numbers. `evidence` holds the numbers behind
    it, by name. `consequences` are findings that this one explains.
    """

    rule: str
    severity: Severity
    cause: Cause
    step: int
    diagnosis: str
    remedy: str
    module_path: str | None = None
    tensor_name: str | None = None
    kind: Kind | None = None
    evidence: Mapping[str, float | str] = field(default_factory=dict)
    consequences: tuple[Finding, ...] = ()

    @property
    def fingerprint(self) -> str:
        """What makes it the same finding at the next step: the rule and its subject."""
        return "|".join((self.rule, self.module_path or "", self.tensor_name or "", self.kind or ""))
