"""The report of a check: pure data, and its faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any, Final

from initscope.hooks.encoding import number_to_json
from initscope.hooks.report import page, text
from initscope.hooks.report.rows import BlockRow, LayerRow
from initscope.hooks.rules import Finding
from initscope.hooks.theory import trivial_loss
from initscope.hooks.vocabulary import Verdict
from initscope.hooks.wire import RunDescription

_CLASSIFICATION: Final = frozenset({"cross_entropy", "nll"})


@dataclass(frozen=True, kw_only=True, repr=False)
class Report:
    """What `check` found: `print(report)` shows it, `to_json` and `to_html` keep it.

    `findings` come worst first, consequences folded under their cause; `layers` and `blocks` in the
    order of the forward pass.
    `scheme` is the initialization that most matrices follow, None where they do not agree; `is_trained` says that
    the weights look trained before. `loss` is the training's own loss of this batch, None where there is none.
    `has_forward` and `has_backward` say what was run. `notes` say in sentences what could not be measured.
    """

    findings: tuple[Finding, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    blocks: tuple[BlockRow, ...] = ()
    description: RunDescription = field(default_factory=RunDescription)
    scheme: str | None = None
    is_trained: bool = False
    loss: float | None = None
    has_forward: bool = False
    has_backward: bool = False
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst finding's severity, infos left out."""
        return text.verdict(self.findings)

    @property
    def exit_code(self) -> int:
        """0 for ok, 1 for warning, 2 for critical."""
        return list(Verdict).index(self.verdict)

    @property
    def trivial_loss(self) -> float | None:
        """The loss of a uniform guess, ln C, where the loss is one of classification."""
        classes = self.description.output_classes
        known = self.description.loss in _CLASSIFICATION and classes is not None and classes > 1
        return trivial_loss(classes) if known and classes else None

    def to_json(self) -> dict[str, Any]:
        """Plain data. Numbers that are not finite are text ("NaN", "Infinity"), absent ones None."""
        return {
            "verdict": self.verdict.value,
            "exit_code": self.exit_code,
            "model_class": self.description.model_class,
            "parameter_count": self.description.parameter_count,
            "scheme": self.scheme,
            "is_trained": self.is_trained,
            "loss": number_to_json(self.loss),
            "loss_name": self.description.loss,
            "trivial_loss": self.trivial_loss,
            "has_forward": self.has_forward,
            "has_backward": self.has_backward,
            "findings": [_finding(f) for f in self.findings],
            "layers": [_plain(row) for row in self.layers],
            "blocks": [_plain(row) for row in self.blocks],
            "optimizers": _plain(self.description.optimizers),
            "versions": dict(self.description.versions),
            "notes": list(self.notes),
        }

    def to_html(self) -> str:
        """One page without scripts and without anything from elsewhere."""
        return page.document(self)

    def __str__(self) -> str:
        return text.report(self)

    def __repr__(self) -> str:
        return f"<Report: {self.verdict.value} ({text.count(self)}), {len(self.layers)} rows; print it>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return page.fragment(self)


def _finding(finding: Finding) -> dict[str, Any]:
    """As the collector's API names its fields."""
    return {
        "rule": finding.rule,
        "severity": finding.severity.value,
        "cause": finding.cause.value,
        "module_path": finding.module_path,
        "tensor_name": finding.tensor_name,
        "kind": finding.kind.value if finding.kind else None,
        "diagnosis": finding.diagnosis,
        "remedy": finding.remedy,
        "evidence": _plain(finding.evidence),
        "consequences": [_finding(f) for f in finding.consequences],
    }


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    return number_to_json(value) if isinstance(value, float) else value
