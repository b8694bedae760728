"""Formulas with a slip: the wrong fan, a variance in the place of a std."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from initscope.hooks.rules import Finding
from initscope.hooks.vocabulary import Cause, Severity
from tests.support import networks as n
from tests.support import started
from tests.support.decoder import Decoder
from tests.support.models import tokens


def taper(sizes: Sequence[int] = (16, 256, 192, 128, 96, 64, 48)) -> nn.Sequential:
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 4))


def convs(norm: bool = False) -> nn.Sequential:
    sizes = (4, 16, 32, 48, 64)
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Conv2d(a, b, 3, padding=1), *([nn.BatchNorm2d(b)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], 4))


def fill(model: nn.Sequential, std: Callable[[Tensor], float]) -> nn.Sequential:
    with torch.no_grad():
        for layer in list(model)[:-1]:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.normal_(layer.weight, std=std(layer.weight))
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return model


def he(w: Tensor) -> float:
    return math.sqrt(2 / w[0].numel())


def judged(rule: str, model: nn.Module, x: Tensor) -> list[Finding]:
    return [f for f in started.findings(model, x) if f.rule == rule]


VECTORS = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_number_of_elements_in_the_place_of_fan_in_is_a_warning() -> None:
    (found,) = judged("wrong-fan", fill(taper(), lambda w: math.sqrt(2 / w.numel())), VECTORS)
    assert (found.severity, found.cause) == (Severity.WARNING, Cause.WRONG_FAN_MODE)
    assert found.evidence["slip"] == "all_elements"
    assert float(found.evidence["octaves"]) == pytest.approx(-0.5 * math.log2(256), abs=0.3)


def test_a_convolution_without_its_kernel_is_a_warning_and_in_front_of_a_norm_info() -> None:
    without = lambda w: math.sqrt(2 / w.shape[1])  # noqa: E731 - a formula
    (plain,) = judged("wrong-fan", fill(convs(), without), IMAGES)
    assert (plain.severity, plain.evidence["slip"]) == (Severity.WARNING, "no_kernel")
    assert float(plain.evidence["octaves"]) == pytest.approx(math.log2(3), abs=0.1)
    (normed,) = judged("wrong-fan", fill(convs(norm=True), without), IMAGES)
    assert normed.severity is Severity.INFO


def test_fan_out_is_a_choice_and_info() -> None:
    (found,) = judged("wrong-fan", fill(taper(), lambda w: math.sqrt(2 / w.shape[0])), VECTORS)
    assert (found.severity, found.evidence["slip"]) == (Severity.INFO, "fan_out")


def test_the_remedy_gives_each_layer_its_own_std() -> None:
    model = fill(taper(), lambda w: math.sqrt(2 / w.numel()))
    (found,) = judged("wrong-fan", model, VECTORS)
    exec(found.remedy, {"nn": nn, "model": model})  # noqa: S102 - what a person would paste
    assert float(model[2].weight.detach().std()) == pytest.approx(math.sqrt(2 / 256), rel=0.03)
    assert judged("wrong-fan", model, VECTORS) == []


def test_a_variance_in_the_place_of_a_std_is_a_warning() -> None:
    (found,) = judged("variance-as-std", fill(taper(), lambda w: 2 / w[0].numel()), VECTORS)
    assert (found.severity, found.evidence["slip"]) == (Severity.WARNING, "variance_as_std")
    assert found.cause is Cause.TOO_SMALL_VANISH


@pytest.mark.parametrize("std", [he, lambda w: math.sqrt(1 / w[0].numel()), lambda _: 0.02, lambda _: 0.05])
@pytest.mark.parametrize("model", [taper, convs])
def test_right_formulas_and_fixed_stds_have_no_slip(
    model: Callable[[], nn.Sequential], std: Callable[[Tensor], float]
) -> None:
    x = VECTORS if model is taper else IMAGES
    found = started.findings(fill(model(), std), x)
    assert not [f for f in found if f.rule in ("wrong-fan", "variance-as-std")]


def test_fan_out_is_no_square_of_another_formula() -> None:
    # Among many sizes the square of some other formula is always near.
    for sizes in ((16, 32, 64), (24, 48, 72)):
        layers = [m for a, b in pairwise((4, *sizes)) for m in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], 4))
        model = fill(net, lambda w: math.sqrt(2 / (w.shape[0] * 9)))
        assert judged("variance-as-std", model, IMAGES) == []


def test_frameworks_and_transformers_have_no_slip() -> None:
    for model, x in ((taper(), VECTORS), (convs(), IMAGES), (Decoder(4), tokens()[0]), (n.mlp(6), VECTORS)):
        assert not [f for f in started.findings(model, x) if f.rule in ("wrong-fan", "variance-as-std")]
