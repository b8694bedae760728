"""Finding: what a rule says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Final

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


_MOST_BYTES: Final = 2_000
"""Of a fingerprint: what an index of a database takes."""
_TEXTS: Final = ("diagnosis", "remedy", "module_path", "tensor_name", "subject")


def refuse(finding: object, rule: str) -> None:
    """TypeError or ValueError for what is no finding of that rule, or cannot be told, stored or shown."""
    if not isinstance(finding, Finding):
        raise TypeError(f"{rule}: a check gives Findings, got {type(finding).__name__}")
    if finding.rule != rule:
        raise ValueError(f"{rule}: its finding names the rule {finding.rule!r}")
    for name, kind in (("severity", Severity), ("cause", Cause), ("step", int)):
        _refuse_type(rule, name, getattr(finding, name), kind)
    if finding.kind is not None:
        _refuse_type(rule, "kind", finding.kind, Kind)
    for name in _TEXTS:
        _refuse_text(rule, name, getattr(finding, name), optional=name not in ("diagnosis", "remedy"))
    for name, value in finding.evidence.items():
        _refuse_text(rule, "evidence", name)
        _refuse_type(rule, f"evidence.{name}", value, int | float | str)
        if isinstance(value, str):
            _refuse_text(rule, f"evidence.{name}", value)
    if len(finding.fingerprint.encode()) > _MOST_BYTES:
        raise ValueError(f"{rule}: its finding's subject is longer than {_MOST_BYTES} bytes")


def _refuse_type(rule: str, name: str, value: object, kind: type | UnionType) -> None:
    if not isinstance(value, kind):
        wanted = kind.__name__ if isinstance(kind, type) else kind
        raise TypeError(f"{rule}: its finding's {name} is {wanted}, got {type(value).__name__}")


def _refuse_text(rule: str, name: str, value: object, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    _refuse_type(rule, name, value, str)
    if isinstance(value, str) and "\x00" in value:
        raise ValueError(f"{rule}: its finding's {name} has a NUL, which no database takes")
