"""Real bugs of scale over depth and of fans, in miniature: each is named, its clean twin is silent.

The numbers in the tests' names are those of the public issues and pull requests where the bugs were reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.vocabulary import Cause, Severity
from tests.support.decoder import Decoder
from tests.support.gpt2 import Gpt2
from tests.support.models import loss_of, tokens
from tests.support.starts import next_token, sequences
from tests.support.wild import learns, look, mended, told_apart

BATCH = tokens()


def test_gpt2_lost_the_scaling_of_its_projections_in_a_refactor() -> None:
    """transformers 47458, 47478: 0.02 where 0.02/√24 = 0.0041 was meant."""
    model = Gpt2(scaled=("no such name",))
    found = told_apart(look(model, BATCH, loss_of), look(Gpt2(), BATCH, loss_of), "residual-scale")
    assert (found.cause, found.module_path) == (Cause.MISSING_RESIDUAL_SCALING, "h.0.attn.c_proj")
    assert "mlp.c_proj" in found.diagnosis
    mended(model, found, BATCH, loss_of)
    sizes = [float(model.get_parameter(f"h.7.{p}.c_proj.weight").detach().std()) for p in ("attn", "mlp")]
    assert sizes == pytest.approx([0.0041] * 2, rel=0.1)


def test_only_the_attention_was_scaled_for_depth() -> None:
    """The pattern named one of two projections of the same name."""
    model = Gpt2(scaled=("attn.c_proj",), blocks=6)
    found = told_apart(look(model, BATCH, loss_of), look(Gpt2(blocks=6), BATCH, loss_of), "residual-scale")
    assert (found.severity, found.module_path) == (Severity.WARNING, "h.0.mlp.c_proj")
    mended(model, found, BATCH, loss_of)
    learns(model, sequences(), next_token)


def test_the_gate_was_scaled_where_the_output_was_meant() -> None:
    """llama2.c 579: `w3` instead of `w2`."""
    model = Decoder(6, scaled=("o", "w3"))
    found = told_apart(look(model, BATCH, loss_of), look(Decoder(6), BATCH, loss_of), "residual-scale")
    assert (found.severity, found.module_path) == (Severity.WARNING, "blocks.0.w2")
    assert "w3.weight was scaled, which adds to no stream" in found.diagnosis
    mended(model, found, BATCH, loss_of)


def feed_forward(down: Callable[[int, int], float]) -> nn.Module:
    """A decoder whose matrices follow 1/√fan_in, and whose down-projections have the std that `down` gives.

    `down` is called with the width of the stream and the one inside.
    """
    torch.manual_seed(4)
    model = Decoder(6, width=32, std=None)
    for block in model.blocks:
        for part in block.children():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=part.in_features**-0.5)
        nn.init.normal_(block.w2.weight, std=down(32, 96))  # type: ignore[union-attr, arg-type]
    return model


def test_the_down_projection_took_the_fan_of_the_stream() -> None:
    """tt-metal 48716: the std of `hidden` inputs where there are `intermediate` ones, 1.7 times too large."""
    model = feed_forward(lambda stream, _: stream**-0.5)
    twin = feed_forward(lambda _, inside: inside**-0.5)
    found = told_apart(look(model, BATCH, loss_of), look(twin, BATCH, loss_of), "wrong-fan")
    assert (found.cause, found.module_path) == (Cause.WRONG_FAN_MODE, "blocks.0.w2")
    mended(model, found, BATCH, loss_of)


# -- convolutions ------------------------------------------------------------------------------------------------------


class Tower(nn.Module):
    """3 × 3 convolutions of growing width without normalization, a head; [batch, 3, 8, 8] inputs, five classes."""

    WIDTHS = (3, 24, 32, 40, 48, 56)

    def __init__(self, std: Callable[[int, int, int], float]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(self.WIDTHS))
        self.head = nn.Linear(4 * self.WIDTHS[-1], 5)
        for layer in self.body:
            nn.init.normal_(layer.weight, std=std(layer.in_channels, layer.out_channels, 9))  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body:
            x = F.relu(layer(x))
        out: Tensor = self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))
        return out


def pictures() -> tuple[Tensor, Tensor]:
    """[32, 3, 8, 8] images of large patches, labels of five classes."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(32, 3, 2, 2, generator=g)
    return F.interpolate(x, scale_factor=4), x.flatten(1)[:, :5].argmax(1)


def test_xavier_of_channels_without_the_positions_of_the_kernel() -> None:
    """lczero-training 43: √(2/(in + out)) for 3 × 3 convolutions, three times too large in each layer."""
    model = Tower(lambda a, b, _: math.sqrt(2 / (a + b)))
    twin = Tower(lambda a, b, k: math.sqrt(2 / ((a + b) * k)))
    found = told_apart(look(model, pictures()), look(twin, pictures()), "wrong-fan")
    assert (found.severity, found.cause) == (Severity.WARNING, Cause.WRONG_FAN_MODE)
    assert found.evidence["slip"] == "no_kernel"
    mended(model, found, pictures())


def test_a_variance_was_passed_as_std() -> None:
    """Modalities 161: `normal_(w, std=variance)`."""
    model = Tower(lambda a, _, k: 2 / (a * k))
    twin = Tower(lambda a, _, k: math.sqrt(2 / (a * k)))
    found = told_apart(look(model, pictures()), look(twin, pictures()), "variance-as-std")
    assert (found.severity, found.module_path) == (Severity.WARNING, "body.1")
    mended(model, found, pictures())


class Mobile(nn.Module):
    """Depthwise and pointwise convolutions with batch norm, as phones run them."""

    def __init__(self, *, counts_groups: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        widths = (64, 96, 128, 192)
        self.stem = nn.Conv2d(3, widths[0], 1)
        self.depth = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False) for c in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in widths)
        self.point = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in pairwise((*widths, 64)))
        self.head = nn.Linear(64, 5)
        for layer in (*self.depth, *self.point):
            groups = layer.groups if counts_groups else 1
            fan = layer.out_channels * math.prod(layer.kernel_size) / groups  # type: ignore[operator, arg-type]
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for depth, norm, point in zip(self.depth, self.norms, self.point, strict=True):
            x = point(F.relu(norm(depth(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def test_fan_out_of_depthwise_convolutions_without_their_groups() -> None:
    """pytorch 23854, timm 84: `kaiming_normal_(mode="fan_out")` counts all channels."""
    model = Mobile(counts_groups=False)
    twin = look(Mobile(counts_groups=True), pictures())
    bug = look(model, pictures())
    found = next(f for f in bug if f.rule == "wrong-fan" and f.evidence["slip"] == "no_groups")
    assert found.module_path == "depth.0"
    assert not [f for f in twin if f.severity is not Severity.INFO or f.evidence.get("slip") == "no_groups"]


class Upscaler(nn.Module):
    """Transposed convolutions from many channels to few, as decoders have them."""

    def __init__(self, *, swapped: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        widths = (120, 72, 40, 24)
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.stem, self.head = nn.Conv2d(3, widths[0], 1), nn.Linear(4 * widths[-1], 5)
        for layer in self.up:
            taps = math.prod(layer.kernel_size) / math.prod(layer.stride)  # type: ignore[arg-type]
            fan = layer.out_channels * 16 if swapped else layer.in_channels * taps  # type: ignore[operator]
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan))  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(F.adaptive_avg_pool2d(x, 2))
        for layer in self.up:
            x = F.relu(layer(x))
        out: Tensor = self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))
        return out


def test_fans_of_a_transposed_convolution_are_swapped() -> None:
    """keras 31192: the weight is stored as (inputs, outputs, …), and its second axis was taken for the inputs."""
    model = Upscaler(swapped=True)
    found = told_apart(look(model, pictures()), look(Upscaler(swapped=False), pictures()), "wrong-fan")
    assert found.cause is Cause.WRONG_FAN_MODE
    assert found.evidence["slip"] == "swapped"
    mended(model, found, pictures())


# -- truncation --------------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """Linear layers of growing width with GELU, drawn by `draw`."""

    def __init__(self, draw: Callable[[Tensor, float], object]) -> None:
        super().__init__()
        torch.manual_seed(6)
        widths = (48, 64, 96, 128)
        self.body = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(widths[-1], 5)
        with torch.no_grad():
            for layer in self.body:
                draw(layer.weight, layer.in_features**-0.5)  # type: ignore[arg-type, operator]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body:
            x = F.gelu(layer(x))
        out: Tensor = self.head(x)
        return out


def rows() -> tuple[Tensor, Tensor]:
    """[64, 48] normal vectors; the class is the strongest of the first five."""
    x = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    return x, x[:, :5].argmax(1)


def with_broken_erfinv(weight: Tensor, std: float) -> None:
    """Inverse error functions of ±1 are infinite and were clamped to the bounds, two units of the standard normal."""
    weight.normal_(std=std)
    at = torch.randperm(weight.numel())[:3]
    weight.view(-1)[at] = torch.tensor([2.0, -2.0, 2.0])


def test_truncated_draws_with_outliers_at_their_bounds() -> None:
    """pytorch 145498, 155588; torchtitan 2269; fms-extras 38."""
    model = Encoder(with_broken_erfinv)
    twin = Encoder(lambda w, std: nn.init.trunc_normal_(w, std=std))
    found = told_apart(look(model, rows()), look(twin, rows()), "truncation")
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.TRUNCATION, "body.0")
    mended(model, found, rows())


def test_what_truncation_takes_was_not_given_back() -> None:
    """tensorflow 18706, HRM 91: cut at two stds, 12 % of the std are gone."""
    model = Encoder(lambda w, std: nn.init.trunc_normal_(w, std=std, a=-2 * std, b=2 * std))
    twin = Encoder(lambda w, std: nn.init.trunc_normal_(w, std=std / 0.8796, a=-2 * std / 0.8796, b=2 * std / 0.8796))
    found = told_apart(look(model, rows()), look(twin, rows()), "truncation")
    assert (found.severity, found.module_path) == (Severity.INFO, "body.0")
    mended(model, found, rows())
