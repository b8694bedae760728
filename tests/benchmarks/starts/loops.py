"""Losses, optimizers and steps that are not the plain ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.starts.case import OptimizerOf, Training
from tests.benchmarks.starts.nets_vector import Gan


def sgd(lr: float, momentum: float = 0.9, **more: Any) -> OptimizerOf:
    """SGD with momentum."""
    return lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum, **more)


def adam(lr: float, **more: Any) -> OptimizerOf:
    """Adam."""
    return lambda p: torch.optim.Adam(p, lr=lr, **more)


def adamw(lr: float, weight_decay: float = 0.01) -> OptimizerOf:
    """AdamW."""
    return lambda p: torch.optim.AdamW(p, lr=lr, weight_decay=weight_decay)


def rmsprop(lr: float) -> OptimizerOf:
    """RMSprop."""
    return lambda p: torch.optim.RMSprop(p, lr=lr)


def adagrad(lr: float) -> OptimizerOf:
    """Adagrad, which takes sparse gradients."""
    return lambda p: torch.optim.Adagrad(p, lr=lr)


class SignMomentum(torch.optim.Optimizer):
    """Steps of one size along the sign of an averaged gradient, as Lion (Chen et al. 2023) takes them."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, beta: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, _closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; there is no use for a closure."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - group["beta"])
                p.sub_(average.sign(), alpha=group["lr"])


def sign_momentum(lr: float) -> OptimizerOf:
    """The optimizer above."""
    return lambda p: SignMomentum(p, lr)


def by_token(output: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of [batch, length, classes]."""
    return F.cross_entropy(output.flatten(0, 1), targets.flatten())


def by_head(output: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
    """The sum over two heads."""
    return F.cross_entropy(output[0], targets[0]) + F.cross_entropy(output[1], targets[1])


def by_name(output: dict[str, Tensor], targets: Tensor) -> Tensor:
    """Cross entropy of the logits in a dict."""
    return F.cross_entropy(output["logits"], targets)


def of_vae(output: tuple[Tensor, Tensor, Tensor], targets: Tensor) -> Tensor:
    """Mean square error, and the divergence from a standard normal code with a small weight."""
    image, mean, log_variance = output
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return F.mse_loss(image, targets) + 0.02 * divergence


def gan_optimizers(lr: float) -> Callable[[nn.Module], dict[str, torch.optim.Optimizer]]:
    """One for the generator, one for the discriminator."""

    def make(model: nn.Module) -> dict[str, torch.optim.Optimizer]:
        assert isinstance(model, Gan)
        return {
            "generator": torch.optim.Adam(model.generator.parameters(), lr=lr, betas=(0.5, 0.9)),
            "discriminator": torch.optim.Adam(model.discriminator.parameters(), lr=lr, betas=(0.5, 0.9)),
        }

    return make


def gan_step(training: Training, told: Callable[[float], None]) -> float:
    """Discriminator, then generator. The loss that is told is how far the points made are from real ones."""
    model, other = training.model, training.others["discriminator"]
    assert isinstance(model, Gan)
    noise, real = next(training.batches)
    other.zero_grad(set_to_none=True)
    fake = model.generator(noise)
    apart = F.softplus(-model.discriminator(real)).mean() + F.softplus(model.discriminator(fake.detach())).mean()
    torch.autograd.backward(apart)
    other.step()
    training.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(F.softplus(-model.discriminator(fake)).mean())
    distance = float(training.loss_fn(fake.detach(), real))
    told(distance)
    training.optimizer.step()
    return distance


def energy_distance(made: Tensor, real: Tensor) -> Tensor:
    """Székely's distance of two sets of points [n, 2]: 2 E|x − y| − E|x − x'| − E|y − y'|."""

    def between(a: Tensor, b: Tensor) -> Tensor:
        return (a[:, None] - b[None]).norm(dim=-1).mean()

    return 2 * between(made, real) - between(made, made) - between(real, real)
