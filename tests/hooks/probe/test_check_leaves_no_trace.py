"""After `check` a model is bitwise what it was, whatever happened inside."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initscope.hooks import CheckError, check, watch
from initscope.hooks.probe import optimizers
from tests.support import models


class Spectral(nn.Module):
    """Spectral norm of both kinds, dropout, and a forward that keeps things in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.new = nn.utils.parametrizations.spectral_norm(nn.Linear(12, 16))
        self.old = nn.utils.spectral_norm(nn.Linear(16, 16))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, models.CLASSES)
        self.calls = 0
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = self.drop(self.old(torch.relu(self.new(x))))
        noise = torch.rand((), generator=self.generator) + random.random() + np.random.rand()
        return self.head(self.last) * noise


NETWORKS = {
    "mlp": (models.mlp, models.vectors),
    "cnn": (models.Cnn, models.images),
    "gpt": (models.Gpt, models.tokens),
    "lstm": (models.Lstm, lambda: (models.tokens(vocabulary=20)[0], models.vectors(4)[1])),
    "attention": (models.MhaNet, lambda: (torch.randn(4, 5, 16), models.vectors(4)[1])),
    "checkpointed": (lambda: models.Checkpointed(reentrant=True), models.vectors),
    "spectral": (Spectral, models.vectors),
}


def bits(tensor: torch.Tensor | None) -> bytes | None:
    return None if tensor is None else tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def state(model: nn.Module) -> dict[str, object]:
    """Everything that a training could notice."""
    found: dict[str, object] = {"rng": bits(torch.get_rng_state()), "python": random.getstate()}
    found["numpy"] = repr(np.random.get_state())
    for path, module in model.named_modules():
        found[f"{path}.training"] = module.training
        for name, value in vars(module).items():
            if "hooks" in name:
                found[f"{path}.{name}"] = list(value.items()) if value is not None else None
            elif isinstance(value, torch.Tensor):
                found[f"{path}.{name}"] = (id(value), bits(value))
            elif isinstance(value, torch.Generator):
                found[f"{path}.{name}"] = bits(value.get_state())
            elif not isinstance(value, dict):
                found[f"{path}.{name}"] = repr(value)
        for kind in ("_parameters", "_buffers"):
            for name, tensor in getattr(module, kind).items():
                found[f"{path}.{name}"] = (id(tensor), bits(tensor))
    for name, p in model.named_parameters():
        found[f"{name}.grad"] = (id(p.grad), bits(p.grad), p.requires_grad, p._backward_hooks)
    return found


def trained(name: str):
    """A network with gradients left from a backward pass, as between two steps of accumulation."""
    make, batch = NETWORKS[name]
    model = make()
    x, y = batch()
    models.loss_of(model(x), y).backward()
    return model, (x, y)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_is_bitwise_what_it_was(name: str, training: bool) -> None:
    model, (x, y) = trained(name)
    model.train(training)
    before, kept = state(model), (bits(x), bits(y))
    report = check(model, (x, y), models.loss_of)
    assert report.has_backward
    assert state(model) == before
    assert (bits(x), bits(y)) == kept


def test_the_forward_really_wrote_what_is_restored() -> None:
    model, (x, _) = trained("cnn")
    before = state(model)
    model(x)
    assert state(model) != before


def test_the_check_runs_in_training_mode_and_leaves_modules_that_were_frozen_on_purpose() -> None:
    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.frozen = nn.Linear(4, 4), nn.Dropout()
            self.seen: list[tuple[bool, bool]] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.append((self.training, self.frozen.training))
            return self.inner(x)

    model = Told()
    model.frozen.eval()
    check(model, torch.randn(8, 4))
    model.eval()
    check(model, torch.randn(8, 4))
    assert model.seen == [(True, False), (True, True)]
    assert not model.training


@pytest.mark.parametrize("where", ["forward", "loss", "backward"])
def test_an_error_of_the_model_is_told_with_its_cause_and_leaves_nothing_behind(where: str) -> None:
    class Refuses(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, x):
            return x.clone()

        @staticmethod
        def backward(_ctx, _g):
            raise ArithmeticError("no way back")

    class Broken(models.Cnn):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            if where == "forward":
                raise LookupError("no such row")
            return Refuses.apply(y) if where == "backward" else y

    def loss_fn(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if where == "loss":
            raise ZeroDivisionError("empty")
        return models.loss_of(output, labels)

    model = Broken().eval()
    before = state(model)
    with pytest.raises(CheckError, match=f"{where}.* raised (LookupError|ZeroDivisionError|ArithmeticError)") as caught:
        check(model, models.images(), loss_fn)
    assert isinstance(caught.value.__cause__, LookupError | ZeroDivisionError | ArithmeticError)
    assert state(model) == before
    assert optimizers.listeners() == []


def test_ctrl_c_leaves_nothing_behind_either() -> None:
    class Long(models.Cnn):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise KeyboardInterrupt

    model = Long()
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        check(model, models.images(), models.loss_of)
    assert state(model) == before


def test_an_optimizer_that_steps_inside_the_backward_takes_no_step() -> None:
    def step(p: torch.Tensor) -> None:
        p.data.add_(1.0)

    model = models.mlp()
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    before = state(model)
    check(model, models.vectors(), models.loss_of)
    assert state(model) == before
    models.loss_of(model(models.vectors()[0]), models.vectors()[1]).backward()
    assert state(model) != before  # the hook is there again


def test_gradients_of_the_batch_and_of_the_loss_stay_what_they_were() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(output * self.scale * outside, labels)

    outside = torch.ones((), requires_grad=True)
    loss_fn = Scaled()
    x, y = models.vectors()
    x.requires_grad_(True)
    check(models.mlp(), (x, y), loss_fn)
    assert x.grad is None
    assert outside.grad is None
    assert loss_fn.scale.grad is None


def test_a_model_that_writes_its_input_and_replaces_its_parameters_is_put_back() -> None:
    class Wild(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(12, 12))
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x @ self.weight
            x.zero_()
            with torch.no_grad():
                self.weight.data.mul_(2)
            self.seen = torch.ones(5)
            self.extra = nn.Linear(2, 2)
            return y.detach().sum() + torch.zeros((), requires_grad=True)

    model = Wild()
    x = torch.randn(4, 12)
    before, kept = state(model), bits(x)
    check(model, x)
    assert state(model) == before
    assert bits(x) == kept
    assert not hasattr(model, "extra")


def test_nan_and_negative_zero_come_back_as_they_were() -> None:
    model = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 5))
    with torch.no_grad():
        model[0].running_mean[:2] = torch.tensor([float("nan"), -0.0])
    before = state(model)
    check(model, models.vectors(), models.loss_of)
    assert state(model) == before


def test_a_watched_training_notices_nothing_of_a_check() -> None:
    def losses(checks: bool):
        torch.manual_seed(5)
        model = models.Gpt()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        found, told = [], []
        with watch(model, optimizer) as monitor:
            for step in range(4):
                x, y = models.tokens(seed=step)
                if checks:
                    check(model, models.tokens(seed=99), models.loss_of)
                optimizer.zero_grad()
                loss = models.loss_of(model(x), y)
                if checks:
                    check(model, models.tokens(seed=98), models.loss_of, optimizer=optimizer)
                loss.backward()
                if checks:
                    check(model)
                optimizer.step()
                monitor.log(loss=loss)
                found.append(loss.item())
            steps = monitor._local._steps
            monitor.findings  # noqa: B018 - waits for the diagnosis
            told = [(s, k, r.moments) for s, records in steps.items() for k, r in records.items()]
            told.append(monitor.current_step)
        return found, told

    plain, checked = losses(False), losses(True)
    assert checked == plain
    assert len(plain[1]) > 50
