"""Small real networks and batches for tests of rules: what is wrong with them is the test's own business."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.rules import RULES, Episode, Finding, Window, advance, diagnose, judged
from initscope.hooks.vocabulary import EpisodeState, Role, Severity
from tests.support.oracle import windows

Start = Callable[[nn.Module], object]
Batches = Iterator[tuple[Tensor, Tensor]]


def mlp(
    depth: int, activation: type[nn.Module] = nn.ReLU, *, width: int = 64, norm: type[nn.Module] | None = None
) -> nn.Sequential:
    """16 inputs, `depth` hidden layers, 4 classes; linear layer i has the path str(i · modules a layer)."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers.append(nn.Linear(16 if i == 0 else width, width))
        if norm is not None:
            layers.append(norm(width))
        layers.append(activation())
    return nn.Sequential(*layers, nn.Linear(width, 4))


def cnn(depth: int, *, batch_norm: bool = False) -> nn.Sequential:
    """1 × 8 × 8 inputs, `depth` convolutions of 16 channels, 4 classes."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers.append(nn.Conv2d(1 if i == 0 else 16, 16, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(16))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4))


def draw(start: Start) -> Callable[[nn.Module], None]:
    """Applies `start` to every weight matrix and zeroes the biases of linear and convolution layers."""

    def apply(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                start(module)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    return apply


def he(module: nn.Module) -> object:
    return nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # type: ignore[arg-type]


def xavier(module: nn.Module) -> object:
    return nn.init.xavier_normal_(module.weight, nn.init.calculate_gain("tanh"))  # type: ignore[arg-type]


def orthogonal(module: nn.Module) -> object:
    return nn.init.orthogonal_(module.weight, math.sqrt(2))  # type: ignore[arg-type]


def normal(std: float) -> Start:
    return lambda module: nn.init.normal_(module.weight, std=std)  # type: ignore[arg-type]


def constant(value: float) -> Start:
    return lambda module: nn.init.constant_(module.weight, value)  # type: ignore[arg-type]


def vectors(*, scale: float = 1.0, seed: int = 1) -> Batches:
    """[64, 16] normal vectors; the class is which of four directions is strongest."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(16, 4, generator=generator)
    while True:
        x = torch.randn(64, 16, generator=generator)
        yield x * scale, (x @ directions).argmax(1)


def images() -> Batches:
    """[64, 1, 8, 8] vectors of `vectors`, each of their numbers four times."""
    for x, y in vectors():
        yield x.repeat_interleave(4, 1).reshape(64, 1, 8, 8), y


def sgd(lr: float = 0.02) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def adam(lr: float = 1e-3) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=lr)


def watched(
    model: nn.Module,
    *,
    start: Callable[[nn.Module], object] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    batches: Batches | None = None,
    steps: int = 3,
    roles: dict[str, Role] | None = None,
    seed: int = 5,
) -> list[Window]:
    """Trains a network for some steps and gives the window of each."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    if start is not None:
        with torch.no_grad():
            start(model)
    data = batches if batches is not None else vectors()
    return list(windows(model, optimizer or sgd(), data, F.cross_entropy, steps, roles=roles))


def train(
    model: nn.Module,
    *,
    start: Callable[[nn.Module], object],
    optimizer: Callable[..., torch.optim.Optimizer],
    steps: int,
) -> None:
    """Trains a network unseen."""
    torch.manual_seed(5)
    with torch.no_grad():
        start(model)
    tuner = optimizer(model.parameters())
    for _, (x, y) in zip(range(steps), vectors(), strict=False):
        tuner.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x), y))
        tuner.step()


def opened(seen: list[Window]) -> list[Episode]:
    """Root episodes that opened over these windows, infos left out, worst first."""
    rules = {rule.id: rule for rule in RULES}
    episodes: dict[str, Episode] = {}
    known: dict[tuple[str, int], Episode] = {}
    for window in seen:
        episodes, _ = advance(episodes, diagnose(window, RULES), window.step, rules, judged(window, RULES))
        for fingerprint, episode in episodes.items():
            old = known.get((fingerprint, episode.episode))
            if episode.state is EpisodeState.OPEN and (old is None or episode.severity.rank >= old.severity.rank):
                known[fingerprint, episode.episode] = episode
    roots = [e for e in known.values() if e.parent is None and e.severity is not Severity.INFO]
    return sorted(roots, key=lambda e: (-e.severity.rank, e.first_step))


def everything(window: Window) -> list[Finding]:
    """All findings of a step, consequences too."""
    return [f for root in diagnose(window, RULES) for f, _ in root.flattened()]
