"""How each run of the demo is built: model, optimizer, data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.demo import data, models


@dataclass
class Training:
    """Everything that a training loop needs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    data: data.Data

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, in nats, over all positions."""
        return F.cross_entropy(self.model(inputs).flatten(0, -2), labels.flatten())

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """One plain optimizer step; the loss before it."""
        self.optimizer.zero_grad()
        loss = self.loss(inputs, labels)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss


def build(name: str) -> Training:
    """The training of that name, the same each time (seeded)."""
    torch.manual_seed(7)
    return _RECIPES[name]()


def _mlp(activation: type[nn.Module], depth: int, start: Callable[[nn.Module], None] | None) -> Training:
    model = models.Mlp(depth=depth, width=64, activation=activation)
    if start is not None:
        start(model)
    return Training(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), data.digits(64))


def _cnn(*, batch_norm: bool) -> Training:
    model = models.Cnn(depth=8, width=16, batch_norm=batch_norm)
    models.normal(model, 0.01)
    return Training(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9), data.digits(64, image=True))


def _gpt(*, scaled: bool = True, embedding_factor: float = 1.0) -> Training:
    model = models.Gpt()
    models.normal(model, 0.02)
    if scaled:
        models.scale_residual_outputs(model, 0.02)
    with torch.no_grad():
        model.tokens.weight.mul_(embedding_factor)
    return Training(model, torch.optim.AdamW(model.parameters(), lr=1e-3), data.characters(16))


def _fine_tune() -> Training:
    """Trains on the digits 0 to 4, unwatched, then starts on 5 to 9 with a new head and a small learning rate."""
    base = models.Mlp(depth=4, width=64, activation=nn.ReLU, classes=5)
    models.he(base)
    first = Training(base, torch.optim.SGD(base.parameters(), lr=0.02, momentum=0.9), data.digits(64, classes=range(5)))
    for _, (inputs, labels) in zip(range(300), first.data.batches, strict=False):
        first.step(inputs, labels)
    base.head = nn.Linear(64, 5)
    optimizer = torch.optim.AdamW(base.parameters(), lr=1e-3)
    return Training(base, optimizer, data.digits(64, classes=range(5, 10)))


_RECIPES: dict[str, Callable[[], Training]] = {
    "mlp-relu-normal": lambda: _mlp(nn.ReLU, 14, lambda m: models.normal(m, 1.0)),
    "mlp-relu-default": lambda: _mlp(nn.ReLU, 14, None),
    "mlp-relu-he": lambda: _mlp(nn.ReLU, 14, models.he),
    "mlp-tanh-zero": lambda: _mlp(nn.Tanh, 6, models.zeros),
    "mlp-tanh-xavier": lambda: _mlp(nn.Tanh, 6, models.xavier),
    "cnn-plain-small": lambda: _cnn(batch_norm=False),
    "cnn-batchnorm-small": lambda: _cnn(batch_norm=True),
    "gpt-scaled": lambda: _gpt(),
    "gpt-unscaled": lambda: _gpt(scaled=False),
    "gpt-embedding": lambda: _gpt(embedding_factor=100.0),
    "fine-tune": _fine_tune,
}
