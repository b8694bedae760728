"""Residual networks of convolutions: with batch norm, with other norms, with none."""

from __future__ import annotations

import math
from functools import partial

import torch.nn.functional as F
from torch import nn

from tests.benchmarks.starts import data
from tests.benchmarks.starts.case import Case, Change, Group
from tests.benchmarks.starts.faults import constant, drawn, each, freeze, he, normal, one_nan, scale, times
from tests.benchmarks.starts.loops import adamw, sgd
from tests.benchmarks.starts.nets_image import ResNet, group_norm, instance_norm, none

_BLOCKS = range(4)
_GAMMAS = " ".join(f"layers.{i}.norm2" for i in _BLOCKS)
_SECOND = " ".join(f"layers.{i}.conv2" for i in _BLOCKS)
_CONVS = " ".join(f"layers.{i}.conv{j}" for i in _BLOCKS for j in (1, 2))

bn = Group("resnet_bn", "resnet", ResNet, data.digits(), F.cross_entropy, sgd(0.1), steps=120, start=he("fc"))
_BN = (
    bn.case("he"),
    bn.case("default", start=None, reference=True),
    bn.case("zero_gamma", constant(_GAMMAS, 0.0), harmless=True),
    bn.case("convs_x100", times(100, "fc"), harmless=True, cause="too_large_explode"),
    bn.case("convs_div10", times(0.1, "fc"), harmless=True, cause="too_small_vanish"),
    bn.case("fan_out", each(lambda w: nn.init.kaiming_normal_(w, mode="fan_out"), "fc"), harmless=True),
    bn.case(
        "stem_gamma0",
        constant("norm", 0.0),
        cause="zero_symmetric",
        also="dead_relu too_small_vanish bad_bias",
        layers="norm",
    ),
    bn.case(
        "gamma_x30", constant(_GAMMAS, 30.0), cause="too_large_explode", also="missing_residual_scaling", layers=_GAMMAS
    ),
    bn.case("convs_zero", constant(_CONVS + " stem", 0.0), cause="zero_symmetric", layers=_CONVS + " stem"),
    bn.case("convs_constant", constant(_CONVS + " stem", 0.05), cause="constant_symmetric", layers=_CONVS + " stem"),
    bn.case("stem_beta_neg", constant("norm", -6.0, "bias"), cause="dead_relu", also="bad_bias", layers="norm"),
    bn.case("head_x300", scale("fc", 300), cause="bad_output_head", also="too_large_explode", layers="fc"),
    bn.case("lr_high", optimizer=sgd(8.0), cause="lr_too_high"),
    bn.case("nan", one_nan("layers.1.conv1"), cause="nonfinite", layers="layers.1.conv1"),
    bn.case("head_zero", constant("fc", 0.0), harmless=True),
)

bare = Group(
    "resnet_bare",
    "resnet_no_norm",
    partial(ResNet, none, blocks=6, scaled=True),
    data.digits(),
    F.cross_entropy,
    sgd(0.02),
    steps=150,
)
_DEEP = range(6)


def branches(factor: float) -> Change:
    """He everywhere, and the second convolution of each block × factor."""

    def change(model: nn.Module) -> None:
        he("fc")(model)
        scale(" ".join(f"layers.{i}.conv2" for i in _DEEP), factor)(model)

    return change


_BARE = (
    bare.case("he_by_depth", branches(1 / math.sqrt(6)), reference=True),
    bare.case("fixup", branches(0.0), harmless=True),
    bare.case("skip_init", branches(1.0), constant(" ".join(f"layers.{i}.gain" for i in _DEEP), 0.0), harmless=True),
    bare.case("he_unscaled", branches(1.0), cause="missing_residual_scaling", also="too_large_explode"),
    bare.case("he_x3", branches(3.0), cause="missing_residual_scaling", also="too_large_explode"),
    bare.case("default", cause="none"),
    bare.case("n1", normal(1.0, "fc"), cause="too_large_explode", also="missing_residual_scaling"),
    bare.case("n002", normal(0.02), cause="too_small_vanish"),
    bare.case("stem_div1000", branches(1 / math.sqrt(6)), scale("stem", 1e-3), cause="too_small_vanish", layers="stem"),
    bare.case(
        "bytes",
        branches(1 / math.sqrt(6)),
        data=data.digits(scale=255.0),
        cause="unscaled_input",
        also="too_large_explode",
        layers="stem",
    ),
)

gn = Group(
    "resnet_gn",
    "norms",
    partial(ResNet, group_norm, pre=True),
    data.digits(),
    F.cross_entropy,
    adamw(2e-3),
    steps=150,
    start=he("fc"),
)
_GN = (
    gn.case("he", reference=True),
    gn.case("zero_conv2", constant(_SECOND, 0.0), harmless=True),
    gn.case("convs_x30", times(30, "fc stem"), cause="too_large_explode", also="missing_residual_scaling"),
    gn.case("n1", normal(1.0), cause="too_large_explode", also="missing_residual_scaling bad_output_head"),
    gn.case("head_n10", drawn("fc", 10.0), cause="bad_output_head", also="too_large_explode", layers="fc"),
    gn.case("frozen", freeze("layers", "stem", "norm"), cause="frozen_or_disconnected_layer", layers="layers stem"),
)
inorm = Group(
    "resnet_in",
    "norms",
    partial(ResNet, instance_norm),
    data.digits(),
    F.cross_entropy,
    sgd(0.02),
    steps=150,
    start=he("fc"),
)
_IN = (
    inorm.case("he", reference=True),
    inorm.case("convs_x10", times(10, "fc"), harmless=True, cause="too_large_explode"),
    inorm.case(
        "gamma0", constant("norm", 0.0), cause="zero_symmetric", also="dead_relu too_small_vanish", layers="norm"
    ),
)

CASES: tuple[Case, ...] = (*_BN, *_BARE, *_GN, *_IN)
