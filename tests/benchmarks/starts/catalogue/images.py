"""Networks on images and waves that are not residual: VGG-like, dense, depthwise, over time, up and down."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import nn

from tests.benchmarks.starts import data
from tests.benchmarks.starts.case import Case, Group
from tests.benchmarks.starts.faults import constant, drawn, each, fill, he, normal, orthogonal, scale, times
from tests.benchmarks.starts.loops import adam, adamw, rmsprop, sgd
from tests.benchmarks.starts.nets_image import Autoencoder, DenseNet, MobileNet, Plain, UNet, Wave

vgg = Group("vgg", "vgg", partial(Plain, depth=8), data.digits(), F.cross_entropy, adam(2e-3), steps=200, start=he())
_VGG = (
    vgg.case("he", reference=True),
    vgg.case("orthogonal", start=orthogonal(2**0.5), reference=True),
    vgg.case("default", start=None, cause="too_small_vanish", also="wrong_gain_for_activation"),
    vgg.case("std001", normal(0.01), cause="too_small_vanish"),
    vgg.case(
        "no_k2",
        each(lambda w: nn.init.normal_(w, std=(2 / w.shape[1]) ** 0.5)),
        cause="too_large_explode",
        also="wrong_fan_mode",
    ),
    vgg.case("n1", normal(1.0), cause="too_large_explode"),
    vgg.case("ones", fill(1.0), cause="constant_symmetric", also="too_large_explode"),
    vgg.case("dead", constant("features.9", -30.0, "bias"), cause="dead_relu", also="bad_bias", layers="features.9"),
    vgg.case("fc_x100", scale("classifier.1", 100), cause="too_large_explode", layers="classifier.1"),
    vgg.case("fc_div100", scale("classifier.1", 0.01), cause="too_small_vanish", layers="classifier.1"),
    vgg.case("lr_high", optimizer=adam(0.3), cause="lr_too_high", also="dead_relu"),
)

elu = Group(
    "plain_elu",
    "activations",
    partial(Plain, act=nn.ELU),
    data.digits(),
    F.cross_entropy,
    sgd(0.01),
    steps=200,
    start=he(),
)
_ELU = (
    elu.case("he", reference=True),
    elu.case("default", start=None),
    elu.case("x10", times(10), cause="too_large_explode", also="saturated_activations"),
    elu.case("div10", times(0.1), cause="too_small_vanish"),
)

dense = Group(
    "densenet", "densenet", DenseNet, data.digits(), F.cross_entropy, sgd(0.03), steps=150, start=he("classifier")
)
_DENSE = (
    dense.case("he", reference=True),
    dense.case("default", start=None, reference=True),
    dense.case("convs_x100", scale("convs.0 convs.1 convs.2 convs.3 convs.4", 100), harmless=True),
    dense.case("convs_zero", constant("convs.0 convs.1 convs.2 convs.3 convs.4 stem", 0.0), cause="zero_symmetric"),
    dense.case(
        "last_gamma0",
        constant("norms.5", 0.0),
        cause="zero_symmetric",
        also="too_small_vanish dead_relu",
        layers="norms.5",
    ),
    dense.case(
        "head_x100", scale("classifier", 100), cause="bad_output_head", also="too_large_explode", layers="classifier"
    ),
)

mobile = Group("mobilenet", "mobilenet", MobileNet, data.digits(), F.cross_entropy, rmsprop(2e-3), steps=150)
_MOBILE = (
    mobile.case("default", reference=True),
    mobile.case("he", start=he("fc"), reference=True),
    mobile.case(
        "fan_out_of_depthwise",
        each(lambda w: nn.init.normal_(w, std=(2 / (w.shape[0] * w[0][0].numel())) ** 0.5), "fc"),
        harmless=True,
        cause="wrong_fan_mode",
    ),
    mobile.case(
        "zero_last_gamma", constant("blocks.0.project.1 blocks.1.project.1 blocks.2.project.1", 0.0), harmless=True
    ),
    mobile.case("convs_n1", normal(1.0, "fc"), harmless=True, cause="too_large_explode"),
    mobile.case(
        "stem_gamma0",
        constant("stem.1", 0.0),
        cause="zero_symmetric",
        also="dead_relu too_small_vanish",
        layers="stem.1",
    ),
    mobile.case("lr_high", optimizer=rmsprop(1.0), cause="lr_too_high"),
)

wave = Group("conv1d", "conv1d", Wave, data.waves(), F.cross_entropy, adam(2e-3), steps=200, start=he())
_WAVE = (
    wave.case("he", reference=True),
    wave.case("default", start=None),
    wave.case("div10", times(0.1), cause="too_small_vanish"),
    wave.case("x10", times(10), cause="too_large_explode"),
    wave.case("x3", times(3), cause="too_large_explode"),
    wave.case("zero", fill(0.0), cause="zero_symmetric"),
    wave.case(
        "input_x1000", data=data.waves(scale=1000.0), cause="unscaled_input", also="too_large_explode", layers="net.0"
    ),
    wave.case(
        "input_div1000", data=data.waves(scale=0.001), cause="unscaled_input", also="too_small_vanish", layers="net.0"
    ),
    wave.case("dead_third", constant("net.4", -30.0, "bias"), cause="dead_relu", also="bad_bias", layers="net.4"),
)
wave_bn = Group(
    "conv1d_bn", "conv1d", partial(Wave, nn.BatchNorm1d), data.waves(), F.cross_entropy, sgd(0.02), steps=150
)
_WAVE_BN = (
    wave_bn.case("default", reference=True),
    wave_bn.case("convs_x100", times(100, "head"), harmless=True),
    wave_bn.case("input_x1000", data=data.waves(scale=1000.0), harmless=True, cause="unscaled_input"),
    wave_bn.case("beta_neg", constant("net.4", -10.0, "bias"), cause="dead_relu", also="bad_bias", layers="net.4"),
)

auto = Group("autoencoder", "autoencoder", Autoencoder, data.reconstruction(), F.mse_loss, adam(3e-3), steps=180)
_AUTO = (
    auto.case("default", reference=True),
    auto.case("he", start=he(), reference=True),
    auto.case("div10", times(0.1), cause="too_small_vanish"),
    auto.case("std001", normal(0.01), cause="too_small_vanish"),
    auto.case("x10", times(10), cause="too_large_explode"),
    auto.case(
        "code_zero", constant("encoder.5", 0.0), cause="zero_symmetric", also="too_small_vanish", layers="encoder.5"
    ),
    auto.case("last_zero", constant("decoder.5", 0.0), harmless=True),
    auto.case("dead", constant("decoder.0", -20.0, "bias"), cause="dead_relu", also="bad_bias", layers="decoder.0"),
    auto.case("constant", fill(0.05), cause="constant_symmetric"),
    auto.case(
        "last_n1", drawn("decoder.5", 3.0), cause="bad_output_head", also="too_large_explode", layers="decoder.5"
    ),
)

unet = Group(
    "unet", "unet", UNet, data.shapes(), F.binary_cross_entropy_with_logits, adamw(3e-3), steps=150, start=he()
)
_UNET = (
    unet.case("he", reference=True),
    unet.case("default", start=None),
    unet.case(
        "middle_zero",
        constant("middle.0 middle.2", 0.0),
        harmless=True,
        cause="zero_symmetric",
        layers="middle.0 middle.2",
    ),
    unet.case("zero", fill(0.0), cause="zero_symmetric"),
    unet.case("x10", times(10), cause="too_large_explode"),
    unet.case("div10", times(0.1), cause="too_small_vanish"),
    unet.case("out_bias", constant("out", 30.0, "bias"), cause="bad_bias", also="bad_output_head", layers="out"),
)

CASES: tuple[Case, ...] = (*_VGG, *_ELU, *_DENSE, *_MOBILE, *_WAVE, *_WAVE_BN, *_AUTO, *_UNET)
