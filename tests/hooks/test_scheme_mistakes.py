"""Formulas with a slip in them, on the weights of real modules."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from initscope.hooks.schemes import Mistake, Slip, find_mistakes
from tests.support.recognition import recognised


def mistakes(model: nn.Module) -> dict[str, Mistake]:
    seen = recognised(model)
    found = find_mistakes(seen.tensors, seen.stats, seen.found)
    return {name: found[key] for name, key in seen.names.items() if key in found}


def convolutions() -> nn.Sequential:
    return nn.Sequential(*[nn.Conv2d(a, b, 3) for a, b in ((24, 40), (40, 72), (72, 72), (72, 136))])


def linears() -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(a, b) for a, b in ((80, 300), (300, 80), (80, 300), (300, 60))])


def draw(model: nn.Sequential, std: Callable[[torch.Tensor], float]) -> nn.Sequential:
    torch.manual_seed(3)
    for module in model:
        nn.init.normal_(module.weight, std=std(module.weight))
    return model


CASES = {
    "xavier without the kernel": (convolutions, lambda w: math.sqrt(2 / (w.shape[0] + w.shape[1])), Slip.NO_KERNEL),
    "He without the kernel": (convolutions, lambda w: math.sqrt(2 / w.shape[1]), Slip.NO_KERNEL),
    "LeCun of the outputs": (linears, lambda w: 1 / math.sqrt(w.shape[0]), Slip.FAN_OUT),
    "the variance passed as std": (linears, lambda w: 2 / w.shape[1], Slip.VARIANCE_AS_STD),
    "the root of a fixed std": (linears, lambda _: math.sqrt(0.02), Slip.STD_AS_VARIANCE),
    "all elements as the fan": (linears, lambda w: math.sqrt(2 / w.numel()), Slip.ALL_ELEMENTS),
}


@pytest.mark.parametrize(("make", "std", "slip"), CASES.values(), ids=CASES)
def test_a_slip_is_named_with_the_std_that_was_meant(
    make: Callable[[], nn.Sequential], std: Callable[[torch.Tensor], float], slip: Slip
) -> None:
    found = mistakes(draw(make(), std))
    assert len(found) >= 3
    assert {m.slip for m in found.values()} == {slip}
    for m in found.values():
        assert m.agreeing >= 3
        assert abs(math.log(m.expected_std / m.std)) > 0.05


def test_the_std_that_was_meant_is_the_effective_one() -> None:
    found = mistakes(draw(convolutions(), lambda w: math.sqrt(2 / w.shape[1])))
    assert found["1.weight"].expected_std == pytest.approx(math.sqrt(2 / (40 * 9)))


def test_a_fused_projection_drawn_as_one_matrix_is_too_small() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(128, 384)
            self.c_attn = nn.Linear(96, 288)

    torch.manual_seed(0)
    model = Attention()
    for module in model.children():
        nn.init.xavier_normal_(module.weight)
    found = mistakes(model)
    assert {m.slip for m in found.values()} == {Slip.FUSED}
    assert found["qkv.weight"].expected_std == pytest.approx(1 / math.sqrt(128))


def test_pytorch_s_fan_out_of_a_depthwise_convolution_counts_all_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Conv2d(c, c, 3, groups=c) for c in (200, 300, 400)])
    for module in model:
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    assert {m.slip for m in mistakes(model).values()} == {Slip.NO_GROUPS}


@pytest.mark.parametrize("draw_one", [
    lambda w: nn.init.kaiming_normal_(w),
    lambda w: nn.init.xavier_uniform_(w),
    lambda w: nn.init.normal_(w, std=0.02),
    lambda w: nn.init.orthogonal_(w),
    lambda w: nn.init.zeros_(w),
    lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)),
])  # fmt: skip
@pytest.mark.parametrize("make", [linears, convolutions])
def test_a_formula_without_a_slip_is_no_mistake(
    make: Callable[[], nn.Sequential], draw_one: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        model = make()
        for module in model:
            draw_one(module.weight)
        assert mistakes(model) == {}
