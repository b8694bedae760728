"""The expected update ratio against torch's own optimizers on a real network."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initscope.hooks.probe.optimizers import describe
from initscope.hooks.theory import expected_update_ratio
from initscope.hooks.wire import OptimizerInfo

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "decayed": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "l2": lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=10.0),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "heavy": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}


def rms(x: torch.Tensor) -> float:
    return float(x.detach().double().square().mean().sqrt())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_of_a_real_network_is_the_expected_one(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).double()
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    F.cross_entropy(model(torch.randn(64, 64).double()), torch.randint(0, 10, (64,))).backward()
    weights = [model[0].weight, model[2].weight]
    before = [w.detach().clone() for w in weights]
    gradients = [rms(w.grad) for w in weights if w.grad is not None]
    optimizer.step()
    for w, old, gradient in zip(weights, before, gradients, strict=True):
        expected = expected_update_ratio(describe(optimizer)[0], rms(old), gradient)
        # The penalty on weights joins the gradient, which is not quite independent of them.
        loose = 0.15 if optimizer.param_groups[0].get("weight_decay") else 0.02
        assert rms(w - old) / rms(old) == pytest.approx(expected, rel=loose)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_later_steps_follow_for_gradients_of_any_correlation(name: str, correlation: float) -> None:
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(10_000, dtype=torch.float64))
    optimizer = OPTIMIZERS[name]([w])
    shared = torch.randn_like(w)
    size = 0.3
    for step in range(25):
        noise = torch.randn_like(w)
        w.grad = size * (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * noise)
        old = w.detach().clone()
        info = describe(optimizer)[0]
        optimizer.step()
        expected = expected_update_ratio(info, rms(old), size, step, correlation)
        assert expected is not None
        # Where squares are averaged over few steps they are not yet the mean square.
        loose = 0.35 if name in ("adam", "l2", "adamw", "rmsprop", "heavy", "adagrad") and step else 0.25
        assert rms(w - old) / rms(old) == pytest.approx(expected, rel=loose), step


def test_adam_settles_at_the_known_share_of_its_first_step() -> None:
    adam = OptimizerInfo(name="AdamW", lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8)
    first, later = (expected_update_ratio(adam, 0.02, 1e-3, step) for step in (0, 500))
    assert first == pytest.approx(0.05, rel=1e-3)
    assert later == pytest.approx(0.05 * math.sqrt(0.1 / 1.9), rel=1e-3)


def test_a_gradient_as_small_as_epsilon_starves_adam() -> None:
    adam = OptimizerInfo(name="Adam", lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8)
    assert expected_update_ratio(adam, 1.0, 1e-8) == pytest.approx(0.5e-3)


def test_lion_moves_every_element_by_its_learning_rate() -> None:
    lion = OptimizerInfo(name="Lion", lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=1.0)
    assert expected_update_ratio(lion, 0.1, 1e-6, 7) == pytest.approx(math.hypot(1e-3, 1e-4))
    w, gradient = torch.full((8,), 0.1), torch.tensor([1.0, -1.0] * 4)
    update = -1e-4 * (gradient.sign() + w)
    assert rms(update) / 0.1 == pytest.approx(math.hypot(1e-3, 1e-4), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "weight", "lr"), [("Muon", 1.0, 0.1), ("SGD", 0.0, 0.1), ("SGD", 1.0, None), ("Adam", 1.0, 0.1)]
)
def test_nothing_is_expected_of_what_is_not_known(name: str, weight: float, lr: float | None) -> None:
    assert expected_update_ratio(OptimizerInfo(name=name, lr=lr), weight, 1.0) is None
