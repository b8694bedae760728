"""What a rule sees: the model's description and the statistics of the last sampled steps. No clock, I/O or torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from initscope.hooks.layers import Layer, chains_of, layers_of
from initscope.hooks.moments import TensorStats
from initscope.hooks.schemes import Recognition, recognise
from initscope.hooks.vocabulary import Kind
from initscope.hooks.wire import RunDescription, TensorInfo

WINDOW_STEPS: Final = 20
"""Sampled steps in a window, beside the baseline."""
START_STEPS: Final = 50
"""Steps whose logged numbers a window keeps for good, for rules about the start."""

StepStats = Mapping[int, TensorStats]
"""Records of one step by tensor key (`TensorInfo.key`)."""


@dataclass(frozen=True)
class Model:
    """The model as described by its tensors and the run's description."""

    tensors: Mapping[int, TensorInfo]
    description: RunDescription = field(default_factory=RunDescription)
    _recognised: list[tuple[StepStats, Recognition]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    @cached_property
    def by_kind(self) -> Mapping[Kind, tuple[TensorInfo, ...]]:
        """Tensors of a kind in the order of the forward pass; those without a depth last."""
        ordered = sorted(
            self.tensors.values(),
            key=lambda t: (math.inf if t.depth is None else t.depth, t.module_path, t.name),
        )
        return {kind: tuple(t for t in ordered if t.kind is kind) for kind in Kind}

    def find(self, module_path: str, name: str, kind: Kind) -> TensorInfo | None:
        """The tensor of that identity."""
        return self._by_identity.get((module_path, name, kind))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every weight matrix with the tensors around it, in forward order."""
        return layers_of(self.tensors)

    @cached_property
    def chains(self) -> tuple[tuple[Layer, ...], ...]:
        """Runs of layers without normalization or residual sum between them, heads left out."""
        return chains_of(self.layers)

    def recognition(self, baseline: StepStats) -> Recognition:
        """What the records of the first step say of where the weights come from; worked out once for a baseline."""
        if not self._recognised or self._recognised[0][0] is not baseline:
            self._recognised[:] = [(baseline, recognise(self.tensors, baseline, self.description))]
        return self._recognised[0][1]

    @cached_property
    def _by_identity(self) -> dict[tuple[str, str, Kind], TensorInfo]:
        return {(t.module_path, t.name, t.kind): t for t in self.tensors.values()}


@dataclass(frozen=True)
class Window:
    """Step-0 baseline and the last sampled steps, ascending; the last one is the step under judgement.

    `steps[s][key]` is the record of a tensor at step s; a tensor may be absent at a step. `scalars[name]` is a list of
    (step, value), ascending. `baseline` is the attempt's first evaluated step. `replicas[rank]` has digests of a rank's
    parameters at the start, by full name; it is empty where one process trains, or where others are not seen.
    """

    model: Model
    steps: Mapping[int, StepStats]
    baseline: StepStats = field(default_factory=dict)
    baseline_step: int = 0
    scalars: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)
    expected_ranks: int = 1
    replicas: Mapping[int, Mapping[str, str]] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The step under judgement."""
        return max(self.steps)

    @property
    def now(self) -> StepStats:
        """Records of the step under judgement."""
        return self.steps[self.step]

    @property
    def is_baseline(self) -> bool:
        """Whether the step under judgement is the attempt's first."""
        return self.step == self.baseline_step

    @property
    def recognition(self) -> Recognition:
        """The scheme of each weight at the baseline, and which were trained before."""
        return self.model.recognition(self.baseline)

    def each(self, kind: Kind) -> Iterator[tuple[TensorInfo, TensorStats]]:
        """Tensors of a kind that have a record at the step under judgement, in forward order."""
        now = self.now
        for tensor in self.model.by_kind[kind]:
            stats = now.get(tensor.key)
            if stats is not None:
                yield tensor, stats

    def stats(self, tensor: TensorInfo | None, step: int | None = None) -> TensorStats | None:
        """The record of a tensor at a step of the window (default: the step under judgement); None for no tensor."""
        if tensor is None:
            return None
        return self.steps.get(self.step if step is None else step, {}).get(tensor.key)

    def first(self, tensor: TensorInfo | None) -> TensorStats | None:
        """The record of a tensor at the baseline."""
        return None if tensor is None else self.baseline.get(tensor.key)

    def record(self, module_path: str, name: str, kind: Kind, step: int | None = None) -> TensorStats | None:
        """The record of one tensor at a step of the window (default: the step under judgement)."""
        return self.stats(self.model.find(module_path, name, kind), step)

    def scalar(self, name: str, step: int) -> float | None:
        """A logged value at exactly that step."""
        return next((value for s, value in reversed(self.scalars.get(name, [])) if s == step), None)
