"""The training loop of the cases."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.benchmarks.starts.case import Training

Told = Callable[[float], None]


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's output for inputs of any form that `Batch` allows."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def silent(_loss: float) -> None:
    """Nobody listens."""


def take_step(training: Training, step: int, told: Told = silent) -> float:
    """One step of the optimizer; `told` gets the loss when all gradients are in place, before any clipping."""
    loop = training.loop
    if loop.step is not None:
        return loop.step(training, told)
    training.optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for _ in range(loop.accumulate):
        inputs, targets = next(training.batches)
        with torch.autocast("cpu", loop.autocast) if loop.autocast else contextlib.nullcontext():
            loss = training.loss_fn(call(training.model, inputs), targets)
        torch.autograd.backward(loss / loop.accumulate)
        total += float(loss.detach()) / loop.accumulate
    told(total)
    if loop.clip is not None:
        nn.utils.clip_grad_norm_(training.model.parameters(), loop.clip)
    if step not in loop.skip:
        _update(training)
    return total


def _update(training: Training) -> None:
    training.optimizer.step()
    if training.scheduler is not None:
        training.scheduler.step()
    if training.average is not None:
        training.average.update_parameters(training.model)
