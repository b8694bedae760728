"""Gains of norms and layer scales: a zero that blocks, one that wakes up, one that is meant."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from initscope.hooks.vocabulary import Cause, Severity
from tests.support import started
from tests.support.models import Cnn, Gpt, images, tokens


def plain(activation: type[nn.Module] = nn.ReLU, norm: type[nn.Module] = nn.LayerNorm) -> nn.Sequential:
    """Three normalized layers; the norm of layer i is module 3·i + 1."""
    layers = [m for _ in range(3) for m in (nn.Linear(16, 16), norm(16), activation())]
    return nn.Sequential(*layers, nn.Linear(16, 4))


def test_a_zero_gain_in_front_of_a_relu_is_critical_and_stays_zero() -> None:
    model = plain()
    nn.init.zeros_(model[4].weight)
    found = started.findings(model, torch.randn(32, 16), steps=5)
    gain = started.of("norm-gain", found)
    assert (gain.severity, gain.cause, gain.module_path) == (Severity.CRITICAL, Cause.NORM_GAIN, "4")
    assert gain.remedy == "nn.init.ones_(model[4].weight)"
    assert not model[4].weight.any()


def test_a_zero_gain_in_front_of_a_gelu_wakes_up_and_is_info() -> None:
    model = plain(nn.GELU)
    nn.init.zeros_(model[4].weight)
    found = started.findings(model, torch.randn(32, 16))
    assert started.of("norm-gain", found).severity is Severity.INFO
    started.findings(model, torch.randn(32, 16), steps=3)
    assert model[4].weight.any()


def test_a_zero_gain_in_front_of_a_head_of_zeros_waits_for_the_head() -> None:
    model = plain(nn.GELU)
    nn.init.zeros_(model[4].weight)
    nn.init.zeros_(model[-1].weight)
    nn.init.constant_(model[4].bias, 0.5)
    found = [f for f in started.findings(model, torch.randn(32, 16), steps=1) if f.rule == "norm-gain"]
    assert [f.severity for f in found] == [Severity.INFO]


def test_a_zero_gain_that_gets_no_gradient_once_the_head_has_moved_is_critical() -> None:
    model = plain()
    nn.init.zeros_(model[4].weight)
    nn.init.zeros_(model[-1].weight)
    first = started.of("norm-gain", started.findings(model, torch.randn(32, 16), steps=1))
    assert first.severity is Severity.INFO
    later = started.of(
        "norm-gain", [f for f in started.findings(model, torch.randn(32, 16), steps=3) if f.subject == "zero"]
    )
    assert later.severity is Severity.CRITICAL


def test_the_last_norm_of_a_residual_branch_may_start_at_zero() -> None:
    model = Cnn()
    for block in model.blocks:
        nn.init.zeros_(block.bn2.weight)
    found = started.findings(model, images(16)[0], steps=1)
    assert started.of("norm-gain", found).severity is Severity.INFO
    assert started.alarms(started.findings(model, images(16)[0], steps=5)) == []


def test_a_final_norm_of_zeros_recovers_and_is_info() -> None:
    model = Gpt()
    nn.init.zeros_(model.ln_f.weight)
    found = started.findings(model, tokens()[0])
    assert started.of("norm-gain", found).severity is Severity.INFO


class FromOne(nn.Module):
    """A norm whose gain is stored as its distance from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


class FromOneRMSNorm(FromOne):
    """Known as a norm by its name."""


def test_a_gain_stored_as_its_distance_from_one_is_silent() -> None:
    model = nn.Sequential(nn.Linear(16, 16), FromOneRMSNorm(), nn.ReLU(), nn.Linear(16, 4))
    assert not [f for f in started.findings(model, torch.randn(32, 16)) if f.rule == "norm-gain"]


def test_a_gain_far_from_one_is_info() -> None:
    model = plain()
    nn.init.constant_(model[1].weight, 30.0)
    found = started.of("norm-gain", started.findings(model, torch.randn(32, 16), steps=4))
    assert (found.severity, found.evidence["mean"]) == (Severity.INFO, 30.0)


class LayerScale(nn.Module):
    """A factor for each channel of a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((16,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Scaled(nn.Module):
    """Residual branches with layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU(), LayerScale()) for _ in range(3)
        )
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.head(x)
        return out


@pytest.mark.parametrize(("zeros", "severity"), [(1, Severity.WARNING), (3, Severity.INFO)])
def test_layer_scales_that_a_reset_left_out(zeros: int, severity: Severity) -> None:
    model = Scaled()
    for block in list(model.blocks)[:zeros]:
        nn.init.zeros_(block[3].gamma)
    found = started.of("norm-gain", started.findings(model, torch.randn(32, 16), steps=4))
    assert found.severity is severity
    assert "nn.init.constant_(model.blocks[0][3].gamma, 1e-05)" in found.remedy


def test_layer_scales_as_they_should_be_are_silent() -> None:
    assert not [f for f in started.findings(Scaled(), torch.randn(32, 16)) if f.rule == "norm-gain"]
