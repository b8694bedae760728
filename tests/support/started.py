"""What a real `watch` finds in a model of any shape, infos and consequences too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from initscope.hooks import watch
from initscope.hooks.rules import RULES, Finding, Rule
from initscope.hooks.vocabulary import Severity

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def findings(
    model: nn.Module,
    inputs: torch.Tensor,
    *,
    steps: int = 1,
    rules: Sequence[Rule] = RULES,
    optimizer: Optimizer = lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    targets: torch.Tensor | None = None,
) -> list[Finding]:
    """Trains for some steps on one batch and gives every finding that is open, each with its episode's severity.

    The loss is cross entropy of random labels over the output's last axis, unless `targets` are given.
    """
    generator = torch.Generator().manual_seed(3)
    trained = [p for p in model.parameters() if p.requires_grad]
    tuner = optimizer(trained)
    monitor = watch(model, rules=rules)
    try:
        for _ in range(steps):
            tuner.zero_grad()
            output = model(inputs)
            flat = output.flatten(0, -2)
            labels = torch.randint(flat.shape[-1], flat.shape[:1], generator=generator) if targets is None else targets
            loss = F.cross_entropy(flat, labels.flatten())
            torch.autograd.backward(loss)
            monitor.log(loss=loss)
            tuner.step()
        return [f for root in monitor.findings for f, _ in root.flattened()]
    finally:
        monitor.close()


def of(rule: str, found: Sequence[Finding]) -> Finding:
    """The one finding of a rule."""
    (finding,) = [f for f in found if f.rule == rule]
    return finding


def alarms(found: Sequence[Finding]) -> list[str]:
    """Findings worse than info, in words: a healthy start has none."""
    return [f"{f.rule}: {f.diagnosis}" for f in found if f.severity is not Severity.INFO]
