"""Finding: what a rule says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from initscope.hooks.vocabulary import Cause, Kind, Severity


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule's verdict on evidence.

    `module_path` is the first offending layer, or None for a finding about the run. `diagnosis` is one sentence that
    says why, `remedy` one that says what to type, with this layer's own numbers. `evidence` holds the numbers behind
    it, by name. `consequences` are all findings that this one explains, directly or through another one. `subject` is
    what the finding is about where that is more than one layer: the layer that stands out may change from step to step,
    the subject may not.
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
    subject: str | None = None
    evidence: Mapping[str, float | str] = field(default_factory=dict)
    consequences: tuple[Finding, ...] = ()

    @property
    def fingerprint(self) -> str:
        """What makes it the same finding at the next step: the rule and its subject."""
        if self.subject is not None:
            return f"{self.rule}|{self.subject}"
        return "|".join((self.rule, self.module_path or "", self.tensor_name or "", self.kind or ""))

    def flattened(self, parent: str | None = None) -> Iterator[tuple[Finding, str | None]]:
        """This finding and everything under it, each with the fingerprint of what explains it."""
        yield self, parent
        for consequence in self.consequences:
            yield from consequence.flattened(self.fingerprint)
