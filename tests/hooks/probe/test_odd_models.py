"""Models that are unlike the usual ones are watched all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from initscope.hooks.vocabulary import Kind
from tests.support.recorded import watched

ODD: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "a single layer": (lambda: nn.Linear(12, 5), lambda: torch.randn(4, 12)),
    "time first": (lambda: nn.TransformerEncoderLayer(16, 2, 32), lambda: torch.randn(7, 3, 16)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(12, 5)), lambda: torch.randn(4, 12)),
    "sparse gradient": (
        lambda: nn.Sequential(nn.Embedding(50, 8, sparse=True), nn.Linear(8, 3)),
        lambda: torch.arange(9),
    ),
    "a cell": (lambda: nn.GRUCell(12, 5), lambda: torch.randn(4, 12)),
    "float64": (lambda: nn.Linear(12, 5).double(), lambda: torch.randn(4, 12).double()),
    "an input with gradient": (lambda: nn.Linear(12, 5), lambda: torch.randn(4, 12, requires_grad=True)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_models_are_watched_without_an_error(name: str) -> None:
    build, batch = ODD[name]
    model = build()
    monitor, r = watched(model)
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        opt.zero_grad()
        model(batch()).square().mean().backward()
        opt.step()
    monitor.close()
    assert sorted(r.steps) == [0, 1, 2]
    assert {r.infos[k].kind for k in r.steps[1]} == set(Kind)
