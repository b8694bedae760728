"""Healthy starts stay silent: no critical finding, no warning."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from initscope.hooks.vocabulary import Role
from tests.support import networks as n

HEALTHY = {
    "ReLU, He": (lambda: n.mlp(10), n.draw(n.he), n.adam()),
    "ReLU, He, 16 layers of 128": (lambda: n.mlp(16, width=128), n.draw(n.he), n.adam(3e-4)),
    "ReLU, He, narrow": (lambda: n.mlp(8, width=24), n.draw(n.he), n.adam()),
    "ReLU, orthogonal": (lambda: n.mlp(12), n.draw(n.orthogonal), n.sgd(0.005)),
    "tanh, Xavier": (lambda: n.mlp(8, nn.Tanh), n.draw(n.xavier), n.sgd()),
    "GELU, He": (lambda: n.mlp(8, nn.GELU), n.draw(n.he), n.adam()),
    "ReLU, PyTorch's default, four layers": (lambda: n.mlp(4), None, n.adam()),
    "tanh, PyTorch's default, four layers": (lambda: n.mlp(4, nn.Tanh), None, n.sgd()),
    "batch norm, He, 14 layers": (lambda: n.mlp(14, norm=nn.BatchNorm1d), n.draw(n.he), n.sgd()),
    "batch norm, N(0, 0.02)": (lambda: n.mlp(10, norm=nn.BatchNorm1d), n.draw(n.normal(0.02)), n.adam()),
    "layer norm, N(0, 0.02)": (lambda: n.mlp(10, norm=nn.LayerNorm), n.draw(n.normal(0.02)), n.adam()),
    "one layer": (lambda: nn.Sequential(nn.Linear(16, 4)), None, n.sgd()),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_start_is_silent(name: str) -> None:
    model, start, optimizer = HEALTHY[name]
    seen = n.watched(model(), start=start, optimizer=optimizer, steps=10)
    assert [e.finding.diagnosis for e in n.opened(seen)] == []


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_healthy_convolution_net_is_silent(batch_norm: bool) -> None:
    seen = n.watched(
        n.cnn(6, batch_norm=batch_norm), start=n.draw(n.he), optimizer=n.sgd(0.01), batches=n.images(), steps=10
    )
    assert [e.finding.diagnosis for e in n.opened(seen)] == []


def test_a_head_that_starts_at_zero_is_only_noted() -> None:
    model = n.mlp(6)

    def start(model: nn.Sequential) -> None:
        n.draw(n.he)(model)
        nn.init.zeros_(model[-1].weight)

    seen = n.watched(model, start=start, optimizer=n.adam(), steps=10)
    assert n.opened(seen) == []
    assert [(f.rule, f.severity) for f in n.everything(seen[0])] == [("zero-weights", "info")]


def test_a_fine_tuned_net_with_a_new_head_is_silent() -> None:
    model = n.mlp(5)
    n.train(model, start=n.draw(n.he), optimizer=n.adam(3e-3), steps=150)
    trained = {name: p.detach().clone() for name, p in model.named_parameters()}

    def start(model: nn.Sequential) -> None:
        for name, p in model.named_parameters():
            p.copy_(trained[name])
        model[-1].reset_parameters()

    fresh = n.mlp(5)
    seen = n.watched(fresh, start=start, optimizer=n.adam(), batches=n.vectors(seed=9), steps=10)
    assert [e.finding.diagnosis for e in n.opened(seen)] == []


class Recurrent(nn.Module):
    """An LSTM over 4 steps of 4 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 32, 2, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.lstm(x.view(-1, 4, 4))[0][:, -1])
        return out


def test_an_lstm_is_silent() -> None:
    seen = n.watched(Recurrent(), optimizer=n.adam(3e-3), steps=10)
    assert [e.finding.diagnosis for e in n.opened(seen)] == []


class Residual(nn.Module):
    """Four residual branches without a norm, whose last matrices may start at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 64)
        self.first = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))
        self.second = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(torch.relu(first(x)))
        out: Tensor = self.head(x)
        return out


def test_residual_branches_that_start_at_zero_are_only_noted() -> None:
    def start(model: nn.Module) -> None:
        n.draw(n.he)(model)
        for layer in model.second:  # type: ignore[union-attr]
            nn.init.zeros_(layer.weight)  # type: ignore[union-attr]

    roles = {f"second.{i}": Role.RESIDUAL_OUTPUT for i in range(4)}
    seen = n.watched(Residual(), start=start, optimizer=n.adam(), steps=10, roles=roles)
    assert [e.finding.diagnosis for e in n.opened(seen)] == []
    assert [f.rule for f in n.everything(seen[0]) if f.subject == "meant"] == ["zero-weights"]
