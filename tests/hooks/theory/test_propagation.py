from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from initscope.hooks import theory

Z = torch.randn(2_000_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
GRID = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
DENSITY = torch.exp(-GRID.square() / 2) / math.sqrt(2 * math.pi) * (GRID[1] - GRID[0])
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
    assert constants.mean == pytest.approx(float(y.detach().mean()), abs=0.003)


@pytest.mark.parametrize("q", [0.003, 0.37, 1.0, 2.9, 50.0])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_an_activation_keeps_equals_the_integral_at_any_size(name: str, q: float) -> None:
    z = (GRID * math.sqrt(q)).requires_grad_()
    y = FUNCTIONS[name](z)
    (slope,) = torch.autograd.grad(y.sum(), z)
    mean, square = float(y.detach() @ DENSITY), float(y.detach().square() @ DENSITY)
    kept = theory.kept(name, q)
    assert kept is not None
    assert kept.mean == pytest.approx(mean, rel=0.01, abs=1e-3 * math.sqrt(q))
    assert kept.square == pytest.approx(square, rel=0.01)
    assert kept.slope == pytest.approx(float(slope.square() @ DENSITY), rel=0.04)
    assert kept.variance == pytest.approx(square - mean * mean, rel=0.02)


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


@pytest.mark.parametrize(
    ("name", "q", "scale", "bias_square"),
    [
        ("tanh", 0.1, 1.085, 0.0008), ("tanh", 0.5, 1.299, 0.038), ("tanh", 1.0, 1.467, 0.151),
        ("tanh", 2.0, 1.692, 0.512), ("gelu", 1.0, 1.481, 0.067), ("gelu", 2.0, 1.429, 0.116),
        ("silu", 1.0, 1.623, 0.0625), ("selu", 1.0, 0.966, 0.067), ("elu", 1.0, 1.223, 0.035),
        ("relu", 1.0, 2**0.5, 0.0),
    ],
)  # fmt: skip
def test_the_critical_line_is_the_known_one_and_a_fixed_point(
    name: str, q: float, scale: float, bias_square: float
) -> None:
    critical = theory.critical_scale(name, q)
    assert critical is not None
    assert critical[0] == pytest.approx(scale, abs=0.003)
    assert critical[1] == pytest.approx(bias_square, abs=0.003)
    assert theory.susceptibility(name, critical[0], q) == pytest.approx(1.0, abs=1e-9)
    if name not in ("gelu", "silu"):  # theirs is unstable
        assert theory.fixed_point(name, critical[0], math.sqrt(critical[1]), q) == pytest.approx(q, rel=1e-3)


@pytest.mark.parametrize("q", [0.3, 1.0, 4.0])
def test_sigmoid_has_no_critical_point(q: float) -> None:
    assert theory.critical_scale("sigmoid", q) is None


def test_tanh_with_gain_five_thirds_settles_and_is_chaotic() -> None:
    q = theory.fixed_point("tanh", 5 / 3)
    assert q == pytest.approx(1.178, abs=0.01)
    assert theory.susceptibility("tanh", 5 / 3, q) == pytest.approx(1.21, abs=0.01)
    assert theory.depth_scale(math.e) == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "scale"), [("relu", 1.0), ("relu", 2.0), ("unheard", 1.0)])
def test_no_fixed_point_where_the_signal_dies_or_explodes(name: str, scale: float) -> None:
    assert theory.fixed_point(name, scale) is None


# Octaves a layer over 20 layers of 256: (forward, backward), measured for diagnosis' table of slopes.
SLOPES = [
    ("relu", 2**0.5, 0.0, -0.03, -0.01), ("silu", 2**0.5, 0.0, -0.42, -0.40),
    ("tanh", 2**0.5, 0.0, -0.02, 0.06), ("relu", 1.0, 0.0, -0.53, -0.51), ("tanh", 1.0, 0.0, -0.11, -0.10),
    ("gelu", 1.0, 0.0, -0.98, -0.97), ("silu", 1.0, 0.0, -0.99, -0.99), ("relu", 0.32, 0.0, -2.17, -2.15),
    ("tanh", 0.32, 0.0, -1.65, -1.65), ("tanh", 5 / 3, 0.0, -0.01, 0.13), ("sigmoid", 2**0.5, 0.0, None, -1.66),
    ("sigmoid", 1.0, 0.0, None, -2.09), ("relu", 3**-0.5, 3**-0.5 / 16, -0.11, -1.30),
    ("tanh", 3**-0.5, 3**-0.5 / 16, -0.12, -0.80), ("gelu", 3**-0.5, 3**-0.5 / 16, -0.10, -1.78),
]  # fmt: skip


@pytest.mark.parametrize(("name", "scale", "bias", "forward", "backward"), SLOPES)
def test_the_slopes_of_twenty_layers_are_the_measured_ones(
    name: str, scale: float, bias: float, forward: float | None, backward: float
) -> None:
    start = math.hypot(scale, bias)  # the first layer sees data of rms 1, without an activation
    down = theory.growth([(scale, name)] * 19, start, bias)[1]
    tolerance = 2 * theory.width_tolerance([256] * 19) / 19
    if forward is not None:
        # A straight line through all depths: with biases the first layers fall to a floor, the others stay there.
        ups = [theory.growth([(scale, name)] * depth, start, bias)[0] for depth in range(20)]
        slope = sum((depth - 9.5) * up for depth, up in enumerate(ups)) / sum((d - 9.5) ** 2 for d in range(20))
        assert slope == pytest.approx(forward, abs=tolerance + 0.06)
    assert down / 19 == pytest.approx(backward, abs=tolerance + 0.03)


@pytest.mark.parametrize(("scaled", "times"), [(1.0, 1.732**20), (20**-0.5, 2.6)])
def test_residual_streams_grow_as_measured(scaled: float, times: float) -> None:
    rms = 1.0
    for _ in range(20):
        rms = theory.stream_rms(rms, [rms * math.sqrt(2.0) * scaled])  # a He branch without norm
    assert rms == pytest.approx(times, rel=0.05)


def test_the_stream_of_a_gpt_grows_as_measured() -> None:
    """Pre-LN, 12 blocks, d = 768: × 53 with unscaled outputs, the MLP's part of it by theory (attention averages)."""
    d, std, gelu = 768, 0.02, theory.kept("gelu", 768 * 0.02**2)
    assert gelu is not None
    branch = std * math.sqrt(4 * d * gelu.square)
    values = std * math.sqrt(d) * std * math.sqrt(d)  # where attention looks at one position only
    assert theory.stream_rms(0.02, [branch, values] * 12) / 0.02 == pytest.approx(76, rel=0.35)


@pytest.mark.parametrize(("std", "width", "expected"), [(0.02, 256, 0.102), (0.02, 768, 0.301), (0.0884, 256, 2.0)])
def test_attention_logits_have_the_measured_size(std: float, width: int, expected: float) -> None:
    assert theory.attention_logit_std(std, std, width) == pytest.approx(expected, rel=0.03)


def test_attention_logits_agree_with_real_ones() -> None:
    torch.manual_seed(1)
    d, heads = 256, 4
    x = F.layer_norm(torch.randn(64, d, dtype=torch.float64), (d,))
    q, k = (x @ torch.randn(d, d, dtype=torch.float64) * 0.05 for _ in range(2))
    size = d // heads
    logits = torch.einsum("ihd,jhd->hij", q.view(64, heads, size), k.view(64, heads, size)) / size**0.5
    off = logits[:, ~torch.eye(64, dtype=torch.bool)]
    assert float(off.std()) == pytest.approx(theory.attention_logit_std(0.05, 0.05, d), rel=0.1)


@pytest.mark.parametrize(
    ("name", "scale", "bias", "depth"),
    [
        ("relu", 2**0.5, 0.0, 16),
        ("tanh", 1.2, 0.3, 16),
        ("sigmoid", 2.0, 0.1, 16),
        # These have no stable fixed point: over many layers luck is not only added up but magnified.
        ("gelu", 2**0.5, 0.0, 6),
        ("silu", 1.6765, 0.0, 6),
    ],
)
def test_the_recursion_agrees_with_real_networks_within_its_tolerance(
    name: str, scale: float, bias: float, depth: int
) -> None:
    width = 128
    ups, downs = [], []
    for seed in range(6):
        torch.manual_seed(seed)
        x = torch.randn(32, width, dtype=torch.float64)
        zs = [(x / x.square().mean().sqrt()).requires_grad_()]
        for _ in range(depth):
            w = torch.randn(width, width, dtype=torch.float64) * scale / math.sqrt(width)
            zs.append(FUNCTIONS[name](zs[-1]) @ w + bias * torch.randn(width, dtype=torch.float64))
        (back,) = torch.autograd.grad(zs[-1], zs[0], torch.randn_like(zs[-1]))
        ups.append(0.5 * math.log2(zs[-1].detach().square().mean().item()))
        downs.append(0.5 * math.log2(back.square().mean().item()))
    up, down = theory.growth([(scale, name)] * depth, 1.0, bias)
    tolerance = 2 * theory.width_tolerance([width] * depth)
    assert all(abs(u - up) < tolerance + 0.1 for u in ups)
    assert all(abs(d - down) < tolerance + 0.1 for d in downs)
    assert sum(ups) / 6 == pytest.approx(up, abs=tolerance / 2)
    assert sum(downs) / 6 == pytest.approx(down, abs=tolerance / 2)
