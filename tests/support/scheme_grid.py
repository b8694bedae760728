"""A grid of fresh weights: every scheme in every shape, with the name that recognition should give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from initscope.hooks.schemes import Family

init = nn.init
Draw = Callable[[Tensor], object]


def he_fan(fan: float) -> float:
    return math.sqrt(2.0 / fan)


@dataclass(frozen=True)
class Maker:
    """A scheme by which a weight is drawn, from its shape alone; `names` are all right ones."""

    family: Family
    names: tuple[str, ...]
    draw: Draw

    @property
    def name(self) -> str:
        return self.names[0]


def _truncated(std: Callable[[Tensor], float], *, compensated: bool) -> Draw:
    def draw(w: Tensor) -> None:
        size = std(w) / (0.87962566 if compensated else 1.0)
        init.trunc_normal_(w, 0.0, size, -2.0 * size, 2.0 * size)

    return draw


def _fans(w: Tensor) -> tuple[int, int]:
    kernel = math.prod(w.shape[2:])
    return w.shape[1] * kernel, w.shape[0] * kernel


def _signs(w: Tensor) -> None:
    with torch.no_grad():
        w.copy_(torch.where(torch.rand_like(w) < 0.5, -1.0, 1.0) / math.sqrt(_fans(w)[0]))


def _identity(w: Tensor) -> None:
    with torch.no_grad():
        flat = w.view(w.shape[0], -1)
        flat.zero_()
        flat.fill_diagonal_(1.0)


def _sparse(w: Tensor) -> None:
    with torch.no_grad():
        flat = torch.empty(w.shape[0], w[0].numel())
        init.sparse_(flat, 0.2, 0.02)
        w.copy_(flat.view_as(w))


def _drawn(family: Family, name: str, draw: Draw) -> Maker:
    return Maker(family, (name,), draw)


N, U, T = Family.NORMAL, Family.UNIFORM, Family.TRUNCATED_NORMAL
MAKERS = (
    Maker(Family.ZERO, ("zero",), init.zeros_),
    Maker(Family.CONSTANT, ("constant",), lambda w: init.constant_(w, 0.1)),
    Maker(Family.IDENTITY, ("identity",), _identity),
    Maker(Family.TWO_VALUED, ("two_valued",), _signs),
    Maker(Family.SPARSE, ("sparse",), _sparse),
    Maker(Family.ORTHOGONAL, ("orthogonal",), init.orthogonal_),
    Maker(Family.ORTHOGONAL, ("orthogonal",), lambda w: init.orthogonal_(w, math.sqrt(2))),
    _drawn(N, "fixed_normal", lambda w: init.normal_(w, std=1.0)),
    _drawn(N, "fixed_normal", lambda w: init.normal_(w, std=0.01)),
    _drawn(N, "fixed_normal", lambda w: init.normal_(w, std=0.02)),
    _drawn(N, "fixed_normal", lambda w: init.normal_(w, std=0.137)),
    _drawn(N, "he_normal", lambda w: init.kaiming_normal_(w, nonlinearity="relu")),
    _drawn(N, "he_fan_out_normal", lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu")),
    _drawn(N, "xavier_normal", init.xavier_normal_),
    _drawn(N, "xavier_tanh_normal", lambda w: init.xavier_normal_(w, 5 / 3)),
    _drawn(N, "lecun_normal", lambda w: init.kaiming_normal_(w, nonlinearity="linear")),
    _drawn(U, "he_uniform", lambda w: init.kaiming_uniform_(w, nonlinearity="relu")),
    _drawn(U, "he_fan_out_uniform", lambda w: init.kaiming_uniform_(w, mode="fan_out", nonlinearity="relu")),
    _drawn(U, "xavier_uniform", init.xavier_uniform_),
    _drawn(U, "lecun_uniform", lambda w: init.kaiming_uniform_(w, nonlinearity="linear")),
    _drawn(U, "fixed_uniform", lambda w: init.uniform_(w, -0.05, 0.05)),
    _drawn(U, "fixed_uniform", lambda w: init.uniform_(w, -0.1, 0.1)),
    _drawn(U, "pytorch_default", lambda w: init.kaiming_uniform_(w, a=math.sqrt(5))),
    _drawn(T, "fixed_truncated_normal", _truncated(lambda _: 0.02, compensated=False)),
    _drawn(T, "lecun_truncated_normal", _truncated(lambda w: 1 / math.sqrt(_fans(w)[0]), compensated=True)),
    _drawn(T, "lecun_truncated_normal", _truncated(lambda w: 1 / math.sqrt(_fans(w)[0]), compensated=False)),
    _drawn(T, "he_truncated_normal", _truncated(lambda w: he_fan(_fans(w)[0]), compensated=True)),
    _drawn(T, "xavier_truncated_normal", _truncated(lambda w: math.sqrt(2 / sum(_fans(w))), compensated=True)),
)


class EveryShape(nn.Module):
    """One module of every kind that has a weight; never run."""

    def __init__(self) -> None:
        super().__init__()
        self.square = nn.Linear(128, 128)
        self.wide = nn.Linear(96, 256)
        self.tall = nn.Linear(512, 64)
        self.head = nn.Linear(256, 10)
        self.pointwise = nn.Conv2d(64, 128, 1)
        self.conv3 = nn.Conv2d(32, 64, 3)
        self.conv7 = nn.Conv2d(3, 64, 7)
        self.conv1d = nn.Conv1d(48, 96, 5)
        self.grouped = nn.Conv2d(64, 96, 3, groups=4)
        self.depthwise = nn.Conv2d(160, 160, 3, groups=160)
        self.transposed = nn.ConvTranspose2d(64, 32, 4, stride=2)
        self.qkv = nn.Linear(96, 288)
        self.embedding = nn.Embedding(300, 64)
        self.lstm = nn.LSTM(48, 96)
        self.gru = nn.GRU(64, 80)
        self.attention = nn.MultiheadAttention(80, 4)


def weights_of(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter with two or more axes, by full name."""
    return ((name, p) for name, p in model.named_parameters() if p.dim() > 1)


def drawn(maker: Maker, seed: int) -> nn.Module:
    """A module of every shape, all drawn by one scheme."""
    torch.manual_seed(seed)
    model = EveryShape()
    for _, weight in weights_of(model):
        maker.draw(weight)
    return model
