"""A case: how to build a labelled training, and what is known of its fault. A group: cases that share the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Batch = tuple[Any, Any]
"""(inputs, targets); inputs may be a tensor, a tuple of positional arguments or a dict of named ones."""
Change = Callable[[nn.Module], object]
"""Changes a fresh model in place, under `torch.no_grad`."""
OptimizerOf = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
LossFn = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Data:
    """Endless batches by seed, and the loss of the best constant prediction."""

    batches: Callable[[int], Iterator[Batch]]
    trivial: float


@dataclass
class Training:
    """One training, ready to run. `step` is the whole step of loops that are not the plain one."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Iterator[Batch]
    loss_fn: LossFn
    loop: Loop
    others: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    average: AveragedModel | None = None


Step = Callable[[Training, Callable[[float], None]], float]


@dataclass(frozen=True)
class Loop:
    """How a training loop differs from the plain one."""

    accumulate: int = 1
    clip: float | None = None
    autocast: torch.dtype | None = None
    skip: frozenset[int] = frozenset()
    """Steps whose update is skipped, as a gradient scaler does after an overflow."""
    average: float | None = None
    """Decay of an exponential moving average of the weights, kept beside."""
    warmup: int = 0
    cosine: int = 0
    """Steps of a cosine decay to zero."""
    step: Step | None = None
    optimizers: Callable[[nn.Module], dict[str, torch.optim.Optimizer]] | None = None
    """All optimizers of a loop with several, the main one first."""


@dataclass(frozen=True)
class Case:
    """One start. `cause` and `layers` are what a fair judge would name, should the training turn out badly."""

    name: str
    group: Group
    change: tuple[Change, ...] = ()
    cause: str = "none"
    also: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    reference: bool = False
    harmless: bool = False
    """Looks wrong and should be fine; the label decides."""

    @property
    def id(self) -> str:
        """group/name."""
        return f"{self.group.name}/{self.name}"

    def build(self, seed: int) -> Training:
        """A training of that seed; it leaves torch's generator in a state of that seed too."""
        return self.group.build(seed, self.change)


@dataclass(frozen=True)
class Group:
    """Architecture, data and loop that cases share."""

    name: str
    family: str
    model: Callable[[], nn.Module]
    data: Data
    loss: LossFn
    optimizer: OptimizerOf
    steps: int = 200
    start: Change | None = None
    """The initialization of the references; None for torch's default."""
    loop: Loop = Loop()

    def case(self, name: str, *change: Change, cause: str = "none", also: str = "", layers: str = "",
             reference: bool = False, harmless: bool = False, **other: Any) -> Case:  # fmt: skip
        """A case of this group; `other` replaces fields of the group (data, loss, optimizer, start, loop)."""
        group = replace(self, **other) if other else self
        return Case(name, group, change, cause, tuple(also.split()), tuple(layers.split()), reference, harmless)

    def build(self, seed: int, change: tuple[Change, ...]) -> Training:
        """See `Case.build`."""
        torch.manual_seed(1_000 + seed)
        model = self.model()
        with torch.no_grad():
            for apply in (*([self.start] if self.start else []), *change):
                apply(model)
        several = self.loop.optimizers(model) if self.loop.optimizers else {}
        optimizers = several or {"main": self.optimizer([p for p in model.parameters() if p.requires_grad])}
        main, *rest = optimizers
        training = Training(
            model, optimizers[main], self.data.batches(seed), self.loss, self.loop, {n: optimizers[n] for n in rest}
        )
        training.scheduler = _schedule(training)
        if self.loop.average is not None:
            training.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.loop.average))
        torch.manual_seed(2_000 + seed)
        return training


def _schedule(training: Training) -> torch.optim.lr_scheduler.LRScheduler | None:
    loop = training.loop
    if loop.warmup:
        return torch.optim.lr_scheduler.LambdaLR(training.optimizer, lambda step: min(1.0, (step + 1) / loop.warmup))
    if loop.cosine:
        return torch.optim.lr_scheduler.CosineAnnealingLR(training.optimizer, loop.cosine)
    return None
