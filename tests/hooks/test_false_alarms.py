"""Healthy starts that look broken to a careless rule: no alarm, and proof that each of them learns."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks import watch
from initscope.hooks.vocabulary import Severity
from tests.support import architectures as a
from tests.support.models import Gpt
from tests.support.starts import Batch, Seen, images, next_token, sequences, start, vectors


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


def adam(model: nn.Module, lr: float = 2e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)


def assert_silent(seen: Seen, gain: float = 0.05) -> None:
    assert seen.alarms == []
    assert seen.gain > gain, f"this twin is not healthy, its loss went {seen.losses[0]:.3g} → {seen.losses[-1]:.3g}"


def test_resnet_whose_branches_start_with_a_zero_gain() -> None:
    model = a.ResNet([a.NormBlock(12) for _ in range(4)])
    for block in model.blocks:
        nn.init.zeros_(block.bn2.weight)  # type: ignore[union-attr, arg-type]
    assert_silent(start(model, adam(model), images()))


def test_fixup_without_normalization() -> None:
    model = a.ResNet([a.FixupBlock(12, 6) for _ in range(6)])
    nn.init.zeros_(model.fc.weight)
    assert_silent(start(model, adam(model), images()))


def trained() -> nn.Sequential:
    """A network that has learned so much that its weights tell, so that what is built on it is a fine-tune."""
    model = a.plain_mlp()
    tuner = torch.optim.AdamW(model.parameters(), lr=2e-2, weight_decay=0.2)
    for _, (x, y) in zip(range(700), vectors(), strict=False):
        tuner.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x), y))
        tuner.step()
    return model


def other_labels() -> Iterator[Batch]:
    for x, y in vectors(seed=1):
        yield x, (y + 1) % 4


def test_adapters_on_a_frozen_trained_network() -> None:
    model = trained()
    for i in range(0, len(model) - 1, 2):
        model[i] = a.LoRALinear(model[i])  # type: ignore[arg-type]
    assert_silent(start(model, adam(model, 1e-2), other_labels()))


def test_a_new_head_on_a_frozen_trained_backbone() -> None:
    model = trained()
    for parameter in model[:-1].parameters():
        parameter.requires_grad_(False)
    model[-1] = nn.Linear(32, 4)
    assert_silent(start(model, adam(model, 2e-2), other_labels()))


def noisy(batch: int = 32) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
    g = torch.Generator().manual_seed(4)
    base = torch.randn(3, 16, generator=g)
    while True:
        time, noise = torch.rand(batch, generator=g), torch.randn(batch, 16, generator=g)
        clean = base[torch.randint(3, (batch,), generator=g)]
        yield (clean * (1 - time[:, None]) + noise * time[:, None], time), noise


def test_a_denoiser_with_zero_gates_and_a_zero_head() -> None:
    model = a.Denoiser()
    assert_silent(start(model, adam(model, 5e-3), noisy(), F.mse_loss))


def test_experts_that_get_no_sample() -> None:
    model = a.Experts()
    nn.init.zeros_(model.router.weight)
    with torch.no_grad():
        model.router.bias.copy_(torch.tensor([2.0, 1.9] + [0.0] * 6))
    assert_silent(start(model, adam(model, 5e-3), vectors()))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks(kind: type[nn.RNNBase]) -> None:
    model = a.Recurrent(kind)
    for name, parameter in model.cell.named_parameters():
        if "weight_hh" in name:
            nn.init.orthogonal_(parameter)
    assert_silent(start(model, adam(model, 1e-2), sequences(), next_token))


def test_a_unet_with_a_concatenated_skip() -> None:
    model = a.UNet()

    def pairs() -> Iterator[Batch]:
        for x, _ in images():
            yield x + 0.3 * torch.randn(x.shape), x

    assert_silent(start(model, adam(model, 5e-3), pairs(), F.mse_loss))


def test_a_tied_embedding() -> None:
    model = Gpt(vocabulary=24, blocks=3)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.08)
    assert_silent(start(model, torch.optim.AdamW(model.parameters(), lr=3e-3), sequences(), next_token))


def test_the_steps_that_a_gradient_scaler_skips_at_first() -> None:
    model = a.plain_mlp()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=1_000)
    skipped: list[bool] = []

    def step_of(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        scale = scaler.get_scale()
        scaler.scale(loss * 64).backward()
        scaler.step(optimizer)
        scaler.update()
        skipped.append(scaler.get_scale() < scale)

    seen = start(model, adam(model, 5e-3), vectors(), steps=30, step_of=step_of)
    assert any(skipped)
    assert not all(skipped)
    assert_silent(seen)


def test_a_long_warm_up() -> None:
    model = a.plain_mlp()
    optimizer = adam(model, 1e-2)
    ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 100))
    assert_silent(start(model, optimizer, vectors(), steps=60, after=lambda _: ramp.step()))


def test_clipped_gradients() -> None:
    model = a.plain_mlp()

    def step_of(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    assert_silent(start(model, torch.optim.SGD(model.parameters(), 0.5), vectors(), steps=60, step_of=step_of))


def test_sparse_embeddings() -> None:
    model = a.Bag()
    g = torch.Generator().manual_seed(2)

    def words() -> Iterator[Batch]:
        while True:
            y = torch.randint(4, (32,), generator=g)
            yield y[:, None] * 500 + torch.randint(500, (32, 12), generator=g), y

    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    assert_silent(start(model, optimizer, words(), steps=40), gain=0.01)


def test_selu_behind_sigmoid_gates() -> None:
    model = a.Highway()
    assert_silent(start(model, adam(model, 5e-3), vectors()))


class Gan(nn.Module):
    """A generator and a discriminator in one module; `forward` is told which of them is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
        self.discriminator = nn.Sequential(
            nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)
        )

    def forward(self, noise: Tensor, real: Tensor | None = None) -> tuple[Tensor, ...]:
        fake = self.generator(noise)
        if real is None:
            return (self.discriminator(fake),)
        return self.discriminator(real), self.discriminator(fake.detach())


def test_two_players_with_an_optimizer_each() -> None:
    model, seen = Gan(), Seen()
    first = torch.optim.Adam(model.generator.parameters(), 1e-3, betas=(0.5, 0.99))
    second = torch.optim.Adam(model.discriminator.parameters(), 1e-3, betas=(0.5, 0.99))
    with watch(model, [first, second], url="") as monitor:
        for _ in range(25):
            real = torch.randn(64, 2) * 0.3 + torch.tensor([2.0, 1.0])
            on_real, on_fake = model(torch.randn(64, 4), real)
            loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
            second.zero_grad()
            loss.backward()
            second.step()
            (verdict,) = model(torch.randn(64, 4))
            first.zero_grad()
            F.softplus(-verdict).mean().backward()
            first.step()
            monitor.log(d_loss=loss)
            seen.add(monitor.findings)
    assert seen.alarms == []


def test_ten_thousand_steps_of_a_healthy_run() -> None:
    model = a.plain_mlp(depth=4)
    optimizer = adam(model, 1e-3)
    batches = [next(vectors(seed=s)) for s in range(50)]
    seen = Seen()
    with watch(model, optimizer, url="") as monitor:
        for step in range(10_000):
            x, y = batches[step % 50]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            if step % 100 == 0:
                monitor.log(loss=loss)
                seen.losses.append(float(loss.detach()))
                seen.add(monitor.findings)
    assert_silent(seen, gain=0.5)


def test_the_suite_would_see_an_alarm() -> None:
    """The same harness on a start that is broken: what is silent above is not silent by accident."""
    model = a.plain_mlp(depth=12)
    broken = copy.deepcopy(model)
    for layer in broken:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=1.0)
    assert start(broken, adam(broken), vectors(), steps=5).of(Severity.CRITICAL)
    assert start(model, adam(model), vectors(), steps=5).of(Severity.CRITICAL) == []
