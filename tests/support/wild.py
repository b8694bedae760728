"""A bug of real life beside its clean twin: what `check` finds in each start, and whether the remedy mends it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks import Finding, check
from initscope.hooks.vocabulary import Severity
from tests.support.starts import start

Batch = tuple[Any, Tensor]
Loss = Callable[[Any, Tensor], Tensor]


def look(model: nn.Module, batch: Batch, loss: Loss = F.cross_entropy) -> list[Finding]:
    """All findings of one forward and backward, consequences too; the worst first."""
    found = [f for root in check(model, batch, loss).findings for f, _ in root.flattened()]
    return sorted(found, key=lambda f: -f.severity.rank)


def told_apart(bug: list[Finding], twin: list[Finding], rule: str) -> Finding:
    """The rule's worst finding of the bug; the twin has none of that rule, and none worse than info of any."""
    named = [f for f in bug if f.rule == rule]
    assert named, f"{rule} misses it: {in_words(bug)}"
    odd = [f for f in twin if f.rule == rule or f.severity is not Severity.INFO]
    assert not odd, f"the twin is no bug: {in_words(odd)}"
    return named[0]


def in_words(found: list[Finding]) -> str:
    """One line a finding."""
    return "\n".join(f"{f.severity}: {f.rule} {f.module_path}: {f.diagnosis}" for f in found) or "nothing was found"


def paste(model: nn.Module, finding: Finding) -> None:
    """What a person does with a remedy."""
    exec(finding.remedy, {"model": model, "nn": nn, "torch": torch, "math": math})  # noqa: S102


def mended(model: nn.Module, finding: Finding, batch: Batch, loss: Loss = F.cross_entropy) -> list[Finding]:
    """What is found after the remedy was pasted: nothing of the rule, and nothing critical."""
    paste(model, finding)
    left = look(model, batch, loss)
    odd = [f for f in left if f.rule == finding.rule or f.severity is Severity.CRITICAL]
    assert not odd, f"after the remedy: {in_words(odd)}"
    return left


def learns(model: nn.Module, batches: Iterator[Batch], loss: Loss = F.cross_entropy, rate: float = 3e-3) -> None:
    """Asserts that twelve steps of Adam take a part of the loss, without an alarm."""
    seen = start(model, torch.optim.Adam(model.parameters(), rate), batches, loss, steps=12)
    assert not seen.alarms, seen.alarms
    assert sum(seen.losses[-3:]) < 2.9 * seen.losses[0], seen.losses
