from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initscope.hooks import theory
from initscope.hooks.vocabulary import Kind
from tests.support import networks as n

Z = torch.randn(2_000_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
FUNCTIONS = {
    "relu": F.relu, "leakyrelu": F.leaky_relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": F.gelu,
    "silu": F.silu, "mish": F.mish, "elu": F.elu, "selu": F.selu, "softplus": F.softplus, "hardtanh": F.hardtanh,
    "softsign": F.softsign,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_constants_of_activations_equal_their_integrals(name: str) -> None:
    y = FUNCTIONS[name](Z)
    (slope,) = torch.autograd.grad(y.sum(), Z)
    constants = theory.ACTIVATIONS[name]
    assert constants.mean_square == pytest.approx(float(y.detach().square().mean()), rel=0.01)
    assert constants.slope_square == pytest.approx(float(slope.square().mean()), rel=0.01)


@pytest.mark.parametrize("written", ["ReLU", "relu", "torch.nn.functional.relu", "re_lu"])
def test_activations_have_one_spelling(written: str) -> None:
    assert theory.activation_name(written) == "relu"


def test_expected_std_is_he_for_relu_and_lecun_without_activation() -> None:
    assert theory.expected_std(256, "relu") == pytest.approx(math.sqrt(2 / 256))
    assert theory.expected_std(256) == pytest.approx(1 / 16)
    assert theory.expected_std(100, input_rms=4.0) == pytest.approx(0.025)


@pytest.mark.parametrize(("fan_in", "activation"), [(0, "relu"), (math.nan, "relu"), (8, "sigmoid"), (8, "unheard")])
def test_no_std_where_theory_has_none(fan_in: float, activation: str) -> None:
    assert theory.expected_std(fan_in, activation) is None


def test_residual_outputs_are_divided_by_the_root_of_their_number() -> None:
    assert theory.residual_std(64, 8) == pytest.approx(1 / 8 / 4)


def test_the_predicted_step_of_pytorchs_default_is_the_known_one() -> None:
    assert theory.forward_step(1 / math.sqrt(3 * 64), 64, "relu") == pytest.approx(-1.292, abs=1e-3)


def test_width_tolerance_covers_the_luck_of_real_nets() -> None:
    torch.manual_seed(0)
    ends = []
    for _ in range(60):
        x = torch.randn(1, 32)
        x = x / x.square().mean().sqrt()
        for _ in range(16):
            x = F.relu(x) @ torch.randn(32, 32) * math.sqrt(2 / 32)
        ends.append(float(x.square().mean().sqrt().log2()))
    measured = float(torch.tensor(ends).std())
    assert theory.width_tolerance([32] * 16) == pytest.approx(measured, rel=0.35)


@pytest.mark.parametrize("std", [0.0, 0.3, 1.0, 4.0, 20.0])
def test_initial_loss_is_that_of_random_logits(std: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(20_000, 50) * std
    measured = float(F.cross_entropy(logits, torch.randint(0, 50, (20_000,))))
    assert theory.initial_loss(50, std) == pytest.approx(measured, rel=0.25)
    assert theory.logit_std_of_loss(50, theory.initial_loss(50, std)) == pytest.approx(std)


def test_a_healthy_net_lies_inside_its_predicted_band() -> None:
    window = n.watched(n.mlp(10), start=n.draw(n.he), steps=1)[0]
    profile = theory.predicted_profile(window.model.tensors, window.now)
    kinds = {window.model.tensors[key].kind for key in profile}
    assert kinds == {Kind.ACTIVATION, Kind.ACTIVATION_GRADIENT}
    assert len(profile) == 20
    for key, expected in profile.items():
        assert expected.low <= window.now[key].moments.rms <= expected.high


def test_a_fading_net_leaves_its_predicted_band() -> None:
    window = n.watched(n.mlp(10), start=n.draw(n.normal(0.02)), steps=1)[0]
    profile = theory.predicted_profile(window.model.tensors, window.now)
    last = window.model.find("18", "output", Kind.ACTIVATION)
    first = window.model.find("0", "output", Kind.ACTIVATION_GRADIENT)
    assert last is not None
    assert first is not None
    assert window.now[last.key].moments.rms < profile[last.key].low
    assert window.now[first.key].moments.rms < profile[first.key].low


def test_the_band_widens_with_the_distance_from_its_anchor() -> None:
    window = n.watched(n.mlp(10), start=n.draw(n.he), steps=1)[0]
    profile = theory.predicted_profile(window.model.tensors, window.now)
    widths = [
        profile[t.key].high / profile[t.key].low for t in window.model.by_kind[Kind.ACTIVATION] if t.key in profile
    ]
    assert widths == sorted(widths)


@pytest.mark.parametrize(
    "model", [n.mlp(6, norm=nn.BatchNorm1d), n.mlp(6, nn.Sigmoid), nn.Linear(16, 4)], ids=["norm", "sigmoid", "one"]
)
def test_nothing_is_predicted_where_theory_is_silent(model: nn.Module) -> None:
    wrapped = model if isinstance(model, nn.Sequential) else nn.Sequential(model)
    window = n.watched(wrapped, steps=1)[0]
    assert theory.predicted_profile(window.model.tensors, window.now) == {}


def test_an_empty_model_has_no_profile() -> None:
    assert theory.predicted_profile({}, {}) == {}


@pytest.mark.parametrize(
    ("name", "scale", "layers", "forward", "backward"),
    [
        ("relu", 2**0.5, 30, 0.0, 0.0),
        ("relu", 3**-0.5, 12, -15.5, -15.5),
        ("tanh", 1.0, 20, -2.6, -2.4),
        ("tanh", 5 / 3, 20, 0.1, 2.8),
        ("selu", 1.0, 20, 0.0, 1.0),
    ],
)
def test_growth_follows_the_recursion_of_mean_squares(
    name: str, scale: float, layers: int, forward: float, backward: float
) -> None:
    assert theory.growth([(scale, name)] * layers) == pytest.approx((forward, backward), abs=0.06)


def test_growth_agrees_with_a_wide_network_of_random_weights() -> None:
    torch.manual_seed(3)
    x = torch.randn(16, 1000)
    for _ in range(8):
        x = F.silu(x) @ torch.randn(1000, 1000) * (1.2 / 1000**0.5)
    assert math.log2(x.square().mean().sqrt()) == pytest.approx(theory.growth([(1.2, "SiLU")] * 8)[0], abs=0.1)
