"""What a recording tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from initscope.hooks.probe.observe import Trace
from initscope.hooks.probe.take import Record
from initscope.hooks.probe.walk import Tree


class Reporter(Protocol):
    """Told by a recording; `initscope.hooks.probe.story` does something with it."""

    def note(self, sentence: str) -> None:
        """Something cannot be measured."""

    def began(self, tree: Tree) -> None:
        """The first step is about to be measured: parameters are those of the start."""

    def learned(self, trace: Trace) -> None:
        """The first forward was read."""

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer of this model stepped for the first time."""

    def never_runs(self) -> None:
        """An optimizer stepped, and no training forward of the model was seen."""

    def never_steps(self, forwards: int) -> None:
        """So many training forwards, and no optimizer stepped."""

    def finished(self, step: int, count: int, records: Callable[[], list[Record]]) -> None:
        """A take is complete."""

    def reached(self, step: int) -> None:
        """A step ended, sampled or not."""
