"""Everything that a watched model's records say, as a sink beside the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from initscope.hooks import Monitor, watch
from initscope.hooks.moments import TensorStats
from initscope.hooks.vocabulary import Kind, RunStatus
from initscope.hooks.wire import RunDescription, TensorInfo


@dataclass
class Recorded:
    """What was handed over. `at(step, path, name, kind)` is a record."""

    steps: dict[int, dict[int, TensorStats]] = field(default_factory=dict)
    infos: dict[int, TensorInfo] = field(default_factory=dict)
    description: RunDescription = field(default_factory=RunDescription)
    scalars: list[tuple[int, str, float]] = field(default_factory=list)
    reached_steps: list[int] = field(default_factory=list)
    status: RunStatus | None = None
    digests: dict[str, str] = field(default_factory=dict)

    def describe(self, description: RunDescription, tensors: Sequence[TensorInfo]) -> None:
        self.description = description
        self.infos = {t.key: t for t in tensors}

    def replicas(self, digests: Mapping[str, str]) -> None:
        self.digests = dict(digests)

    def record(self, step: int, count: int, rows: Callable[[], Sequence[tuple[int, TensorStats]]]) -> bool:
        made = rows()
        assert len(made) == count
        assert step not in self.steps
        self.steps[step] = dict(made)
        return True

    def scalar(self, step: int, name: str, value: float | Callable[[], float]) -> bool:
        self.scalars.append((step, name, value() if callable(value) else value))
        return True

    def reached(self, step: int) -> None:
        self.reached_steps.append(step)

    def close(self, status: RunStatus, timeout: float | None = None) -> None:  # noqa: ARG002 - as the client's
        self.status = status

    def info(self, path: str, name: str = "weight", kind: Kind = Kind.WEIGHT) -> TensorInfo:
        return next(t for t in self.infos.values() if (t.module_path, t.name, t.kind) == (path, name, kind))

    def has(self, path: str, name: str = "output", kind: Kind = Kind.ACTIVATION) -> bool:
        return any((t.module_path, t.name, t.kind) == (path, name, kind) for t in self.infos.values())

    def at(self, step: int, path: str, name: str = "output", kind: Kind = Kind.ACTIVATION) -> TensorStats:
        return self.steps[step][self.info(path, name, kind).key]

    def get(self, step: int, path: str, name: str = "output", kind: Kind = Kind.ACTIVATION) -> TensorStats | None:
        return self.steps[step].get(self.info(path, name, kind).key) if self.has(path, name, kind) else None


def watched(model: nn.Module, **options: Any) -> tuple[Monitor, Recorded]:
    """`watch`, with a sink that keeps everything."""
    monitor = watch(model, **options)
    recorded = Recorded()
    assert monitor._story is not None
    monitor._story._sinks.append(recorded)
    monitor._story._is_new = True
    return monitor, recorded


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    loss_fn: Callable[..., torch.Tensor],
) -> list[torch.Tensor]:
    """A plain loop, one batch a step; the losses."""
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return losses
