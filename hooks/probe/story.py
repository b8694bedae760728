"""What a recording tells, passed on to the collector's client and to the diagnosis in the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import torch

from initscope.hooks.client.guard import Guard
from initscope.hooks.client.notices import printable, warn
from initscope.hooks.probe import optimizers
from initscope.hooks.probe.describe import Registry
from initscope.hooks.probe.observe import Trace
from initscope.hooks.probe.replicas import read_digests
from initscope.hooks.probe.reporter import Reporter
from initscope.hooks.probe.take import Record
from initscope.hooks.probe.walk import Tree
from initscope.hooks.vocabulary import MAX_MODULE_PATH, RunStatus
from initscope.hooks.wire import RunDescription, TensorInfo

_MOST_NOTES: Final = 50
_CLASSIFICATION: Final = frozenset({"cross_entropy", "nll"})


class Sink(Protocol):
    """Where records go: the client, or the diagnosis in this process."""

    def describe(self, description: RunDescription, tensors: Sequence[TensorInfo]) -> None:
        """What the records are about."""

    def record(self, step: int, count: int, rows: Callable[[], Sequence[Record]]) -> bool:
        """The records of a step."""

    def replicas(self, digests: Mapping[str, str]) -> None:  # noqa: ARG002 - as the client's
        """What stands for this rank's parameters at the start, by full name; a sink that sees one rank needs it not."""
        return

    def scalar(self, step: int, name: str, value: float | Callable[[], float]) -> bool:
        """A logged number."""

    def reached(self, step: int) -> None:
        """Everything up to a step was handed over."""

    def close(self, status: RunStatus, timeout: float | None = None) -> Any:
        """The run ended."""


class Story(Reporter):
    """Keeps the run's description and tells every sink."""

    def __init__(
        self,
        sinks: list[Sink],
        registry: Registry,
        guard: Guard,
        description: RunDescription,
        *,
        is_one_of_many: bool = False,
    ) -> None:
        self.guard = guard
        self._is_one_of_many = is_one_of_many
        self._sinks = sinks
        self._registry = registry
        self._description = description
        self._notes = dict.fromkeys(description.notes)
        self._is_new = True
        self._output_shape: tuple[int, ...] = ()

    def describe(self) -> None:
        """Sends the description, if it has grown."""
        if not (self._is_new or self._registry.is_new):
            return
        self._is_new = False
        self._description = replace(self._description, notes=list(self._notes)[:_MOST_NOTES])
        tensors = self._registry.taken()
        for sink in self._sinks:
            sink.describe(self._description, tensors)

    def scalar(self, step: int, name: str, value: float | Callable[[], float]) -> None:
        """A logged number."""
        for sink in self._sinks:
            sink.scalar(step, name, value)

    def loss(self, name: str | None) -> None:
        """Which loss a logged tensor is."""
        if name is None or name == self._description.loss:
            return
        self._change(loss=name, output_classes=self._classes() if name in _CLASSIFICATION else None)
        self.describe()

    def note(self, sentence: str) -> None:
        """Something cannot be measured: said once, on the run's page."""
        sentence = printable(sentence, MAX_MODULE_PATH)
        if sentence not in self._notes:
            self._notes[sentence] = None
            self._is_new = True

    def began(self, tree: Tree) -> None:
        """The first step is about to be measured: each of several ranks tells what it starts with."""
        if not self._is_one_of_many:
            return
        with self.guard.shield("digests of the parameters"):
            digests = read_digests(tree)
            for sink in self._sinks:
                sink.replicas(digests)

    def learned(self, trace: Trace) -> None:
        """The first forward was read."""
        self._output_shape = trace.output_shape
        self._change(batch_size=trace.batch_size)

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer of this model stepped for the first time."""
        found = [info for info in optimizers.describe(optimizer) if info not in self._description.optimizers]
        if found:
            self._change(optimizers=[*self._description.optimizers, *found])

    def never_runs(self) -> None:
        """An optimizer stepped, and no training forward of the model was seen."""
        self.note(
            "no training forward of the watched model was seen (it is compiled, in eval mode, or its parts are called "
            "without it): only weights, gradients and updates are measured"
        )

    def never_steps(self, forwards: int) -> None:
        """So many training forwards, and no optimizer stepped."""
        sentence = (
            f"{forwards} training forwards and no torch optimizer has stepped on this model's parameters; in a loop "
            "without one, call monitor.step() after each update"
        )
        self.note(sentence)
        warn("initscope: %s", sentence)
        self.describe()

    def finished(self, step: int, count: int, records: Callable[[], list[Record]]) -> None:
        """A take is complete."""
        self.describe()
        for sink in self._sinks:
            sink.record(step, count, records)

    def reached(self, step: int) -> None:
        """A step ended and nothing more is logged of it."""
        for sink in self._sinks:
            sink.reached(step)

    def close(self, status: RunStatus, timeout: float | None = None) -> None:
        """The run ended; the sinks share `timeout` seconds (default: each its own) to deliver what is left."""
        until = None if timeout is None else time.monotonic() + timeout
        self.describe()
        for sink in self._sinks:
            left = None if until is None else max(0.0, until - time.monotonic())
            with self.guard.shield("close"):
                sink.close(status, left)

    def _change(self, **changes: Any) -> None:
        changed = replace(self._description, **changes)
        if changed != self._description:
            self._description = changed
            self._is_new = True

    def _classes(self) -> int | None:
        """Axis 1 of images and sequences in torch's order, the last of anything else."""
        shape = self._output_shape
        return None if len(shape) < 2 else shape[1] if len(shape) == 4 else shape[-1]
