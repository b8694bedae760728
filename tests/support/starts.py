"""A training from its first step under `watch`, as a user has it: what was found, and whether it learned."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks import Finding, watch
from initscope.hooks.vocabulary import Severity

Batch = tuple[Any, Tensor]
Loss = Callable[[Any, Tensor], Tensor]


@dataclass
class Seen:
    """The worst of each finding that was open after some step, and the loss of each step."""

    worst: dict[str, Finding] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    def add(self, findings: Iterable[Finding]) -> None:
        """Notes what is open."""
        for finding in findings:
            known = self.worst.get(finding.fingerprint)
            if known is None or finding.severity.rank > known.severity.rank:
                self.worst[finding.fingerprint] = finding

    def of(self, severity: Severity) -> list[Finding]:
        """Root findings of that severity or worse, worst first."""
        found = [f for f in self.worst.values() if f.severity.rank >= severity.rank]
        return sorted(found, key=lambda f: (-f.severity.rank, f.step))

    @property
    def alarms(self) -> list[str]:
        """Warnings and worse in words, for a message that says what went wrong."""
        return [
            f"{f.severity}: {f.rule} {f.module_path} step {f.step}: {f.diagnosis}" for f in self.of(Severity.WARNING)
        ]

    @property
    def gain(self) -> float:
        """How much of the first loss is gone at the end (means of five)."""
        return 1.0 - (sum(self.losses[-5:]) / 5) / (sum(self.losses[:2]) / 2)


def start(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    loss_fn: Loss = F.cross_entropy,
    steps: int = 25,
    *,
    step_of: Callable[[Tensor, torch.optim.Optimizer], object] | None = None,
    after: Callable[[int], object] | None = None,
) -> Seen:
    """Trains for some steps and looks at the open findings after each.

    `step_of` takes (loss, optimizer) and does backward and step, for loops that clip, scale or skip; `after` is called
    with the step that ended (a scheduler).
    """
    torch.set_num_threads(1)
    seen = Seen()
    with contextlib.redirect_stderr(io.StringIO()), watch(model, optimizer, url="") as monitor:
        for step in range(steps):
            x, y = next(batches)
            optimizer.zero_grad()
            loss = loss_fn(model(*x) if isinstance(x, tuple) else model(x), y)
            monitor.log(loss=loss)
            if step_of is None:
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            else:
                step_of(loss, optimizer)
            if after is not None:
                after(step)
            seen.losses.append(float(loss.detach()))
            seen.add(monitor.findings)
    return seen


def images(batch: int = 32, size: int = 8, seed: int = 1) -> Iterator[Batch]:
    """[batch, 1, size, size] noisy patterns of four classes."""
    g = torch.Generator().manual_seed(seed)
    patterns = torch.randn(4, 1, size, size, generator=g)
    while True:
        y = torch.randint(4, (batch,), generator=g)
        yield patterns[y] + 0.7 * torch.randn(batch, 1, size, size, generator=g), y


def vectors(batch: int = 32, width: int = 16, seed: int = 1) -> Iterator[Batch]:
    """[batch, width] normal vectors; the class is which of four directions is strongest."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.randn(width, 4, generator=g)
    while True:
        x = torch.randn(batch, width, generator=g)
        yield x, (x @ directions).argmax(1)


def sequences(batch: int = 16, length: int = 16, vocabulary: int = 24, seed: int = 1) -> Iterator[Batch]:
    """Token ids [batch, length] that count up by a step of their own, and the next ones."""
    g = torch.Generator().manual_seed(seed)
    while True:
        first = torch.randint(vocabulary, (batch, 1), generator=g)
        stride = torch.randint(1, 4, (batch, 1), generator=g)
        ids = (first + stride * torch.arange(length + 1)) % vocabulary
        yield ids[:, :-1], ids[:, 1:]


def next_token(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross entropy over all positions."""
    return F.cross_entropy(logits.flatten(0, -2), ids.flatten())
