"""Full windows (baseline and the last 20 sampled steps) of real trainings with about 1,000 tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks import Monitor, watch
from initscope.hooks.demo.models import Gpt, normal, scale_residual_outputs
from initscope.hooks.moments import TensorStats
from initscope.hooks.rules import Model, Window
from initscope.hooks.rules.window import WINDOW_STEPS
from initscope.hooks.vocabulary import RunStatus
from initscope.hooks.wire import RunDescription, TensorInfo

TENSORS = 1_000
_BATCH = 16


@dataclass
class Recording:
    """A sink: what a training handed over, all steps."""

    name: str
    tensors: dict[int, TensorInfo]
    description: RunDescription
    steps: dict[int, dict[int, TensorStats]]
    losses: list[tuple[int, float]]

    def describe(self, description: RunDescription, tensors: Sequence[TensorInfo]) -> None:
        self.description, self.tensors = description, {t.key: t for t in tensors}

    def record(self, step: int, count: int, rows: Callable[[], Sequence[tuple[int, TensorStats]]]) -> bool:  # noqa: ARG002
        self.steps[step] = dict(rows())
        return True

    def scalar(self, step: int, name: str, value: float | Callable[[], float]) -> bool:
        self.losses.append((step, value() if callable(value) else value))
        return name == "loss"

    def reached(self, step: int) -> None:
        pass

    def close(self, status: RunStatus, timeout: float | None = None) -> None:
        pass

    def window(self, step: int, model: Model | None = None) -> Window:
        """What the rules see at that step, made anew as for each step."""
        steps = {s: r for s, r in self.steps.items() if step - WINDOW_STEPS < s <= step}
        known = model or Model(self.tensors, self.description)
        return Window(known, steps, self.steps[0], 0, {"loss": [x for x in self.losses if x[0] <= step]})


def recordings() -> list[Recording]:
    """A GPT that starts well, a deep MLP that starts well, and one of PyTorch's default start (many findings)."""
    return [
        _record("GPT", _gpt(), _tokens),
        _record("deep MLP, tanh, Xavier", _mlp(nn.Tanh, nn.init.xavier_normal_), _vectors),
        _record("deep MLP, ReLU, default", _mlp(nn.ReLU, None), _vectors),
    ]


def _gpt() -> nn.Module:
    torch.manual_seed(0)
    model = Gpt(blocks=20, width=32)
    normal(model, 0.02)
    scale_residual_outputs(model, 0.02)
    return model


def _mlp(activation: type[nn.Module], start: Callable[[Tensor], object] | None) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(100):
        linear = nn.Linear(32, 32)
        if start is not None:
            start(linear.weight)
        layers += [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def _tokens() -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 30, (_BATCH, 32))
    return x, x.flatten()


def _vectors() -> tuple[Tensor, Tensor]:
    return torch.randn(_BATCH, 32), torch.randint(0, 10, (_BATCH,))


def _record(name: str, model: nn.Module, batch: Callable[[], tuple[Tensor, Tensor]]) -> Recording:
    recording = Recording(name, {}, RunDescription(), {}, [])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    monitor = watch(model, optimizer, on_finding=lambda _: None)
    _attach(monitor, recording)
    for _ in range(WINDOW_STEPS + 2):
        x, y = batch()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, -2), y)
        torch.autograd.backward(loss)
        monitor.log(loss=loss)
        optimizer.step()
    monitor.close()
    assert math.isfinite(recording.losses[-1][1])
    return recording


def _attach(monitor: Monitor, recording: Recording) -> None:
    story = monitor._story
    assert story is not None
    story._sinks[:] = [recording]
    story._is_new = True
