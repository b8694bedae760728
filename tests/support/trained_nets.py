"""Small networks before and after a real training on scikit-learn's digits: the two sides of fresh against trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

Start = Callable[[nn.Module], None]
Optimizer = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]


def mlp(depth: int, width: int, *, norm: bool = False) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in pairwise([64, *[width] * depth]):
        layers += [nn.Linear(a, b), *([nn.LayerNorm(b)] if norm else []), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 10))


def cnn(*, norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in pairwise((1, 16, 32, 32)):
        layers += [nn.Conv2d(a, b, 3, padding=1), *([nn.BatchNorm2d(b)] if norm else []), nn.ReLU()]
    return nn.Sequential(nn.Unflatten(1, (1, 8)), *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Transformer(nn.Module):
    """Eight rows of eight pixels as tokens."""

    def __init__(self, width: int = 48, layers: int = 2) -> None:
        super().__init__()
        self.patch = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patch(x) + self.position).mean(1))


def as_made(_model: nn.Module) -> None:
    """PyTorch's own start."""


def he(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def gpt(model: nn.Module) -> None:
    for name, p in model.named_parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=0.02)
        elif "bias" in name:
            nn.init.zeros_(p)


def orthogonal(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(module.weight, math.sqrt(2))


def adam(lr: float = 1e-3) -> Optimizer:
    return lambda p: torch.optim.Adam(p, lr)


def sgd(lr: float = 0.05) -> Optimizer:
    return lambda p: torch.optim.SGD(p, lr, momentum=0.9)


DEFAULT = adam()


@dataclass(frozen=True)
class Net:
    make: Callable[[], nn.Module]
    start: Start = as_made
    optimizer: Optimizer = DEFAULT
    steps: int = 300


NETS = {
    "MLP, Adam": Net(lambda: mlp(3, 96)),
    "MLP, SGD": Net(lambda: mlp(3, 96), optimizer=sgd()),
    "MLP, He, Adam": Net(lambda: mlp(3, 96), he),
    "MLP, He, Adam 3e-3": Net(lambda: mlp(4, 64), he, adam(3e-3)),
    "MLP, He, SGD": Net(lambda: mlp(3, 96), he, sgd()),
    "MLP, orthogonal, Adam": Net(lambda: mlp(3, 96), orthogonal),
    "MLP with LayerNorm, He, Adam": Net(lambda: mlp(4, 64, norm=True), he),
    "CNN, Adam": Net(lambda: cnn(norm=False)),
    "CNN, He, Adam": Net(lambda: cnn(norm=False), he),
    "CNN, He, SGD": Net(lambda: cnn(norm=False), he, sgd(0.02)),
    "CNN with BatchNorm, He, Adam": Net(lambda: cnn(norm=True), he),
    "CNN with BatchNorm, SGD": Net(lambda: cnn(norm=True), optimizer=sgd()),
    "LSTM, Adam": Net(Lstm, optimizer=adam(3e-3)),
    "Transformer, Adam": Net(Transformer),
    "Transformer, 0.02, Adam": Net(Transformer, gpt),
}


def digits() -> tuple[Tensor, Tensor]:
    """(images [1797, 8, 8] with mean 0 and std 1, classes)."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)
    return (images - images.mean()) / images.std(), torch.tensor(data.target)


def train(net: Net, seed: int) -> tuple[nn.Module, nn.Module, float]:
    """(the model as it started, the model trained, its last loss)."""
    torch.manual_seed(seed)
    fresh, model = net.make(), net.make()
    net.start(fresh)
    model.load_state_dict(fresh.state_dict())
    x, y = digits()
    optimizer = net.optimizer(model.parameters())
    loss = torch.zeros(())
    for _ in range(net.steps):
        chosen = torch.randint(0, len(x), (64,))
        loss = F.cross_entropy(model(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return fresh, model, loss.item()
