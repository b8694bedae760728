"""Perceptrons: regression on tables, norms, every activation, bags of words, several heads, named inputs."""

from __future__ import annotations

import math
from functools import partial

import torch.nn.functional as F
from torch import nn

from tests.benchmarks.starts import data
from tests.benchmarks.starts.case import Case, Group
from tests.benchmarks.starts.faults import (
    constant,
    drawn,
    fill,
    he,
    lecun,
    normal,
    orthogonal,
    scale,
    sparse,
    times,
    xavier,
)
from tests.benchmarks.starts.loops import adagrad, adam, adamw, by_head, by_name, rmsprop, sgd, sign_momentum
from tests.benchmarks.starts.nets_vector import Bag, GluMlp, Mlp, Named, TwoHeads

flat = data.digits(image=False)

houses = Group(
    "regression_houses", "regression", partial(Mlp, 8, 1, depth=3), data.houses(), F.mse_loss, adam(2e-3), steps=250
)
_HOUSES = (
    houses.case("default", reference=True),
    houses.case("he", start=he(), reference=True),
    houses.case("raw", data=data.houses(raw=True), cause="unscaled_input", also="too_large_explode", layers="body.0"),
    houses.case("x10", times(10), cause="too_large_explode"),
    houses.case("div10", times(0.1), cause="too_small_vanish"),
    houses.case("head_zero", constant("head", 0.0), harmless=True),
    houses.case("head_x100", scale("head", 100), cause="bad_output_head", also="too_large_explode", layers="head"),
    houses.case("dead", constant("body.2", -30.0, "bias"), cause="dead_relu", also="bad_bias", layers="body.2"),
    houses.case("constant", fill(0.1), cause="constant_symmetric"),
)
diabetes = Group(
    "regression_diabetes",
    "regression",
    partial(Mlp, 10, 1, nn.SiLU, depth=4, width=32, dropout=0.1),
    data.table("diabetes"),
    F.mse_loss,
    adamw(3e-3),
    steps=250,
)
_DIABETES = (
    diabetes.case("default", reference=True),
    diabetes.case("xavier", start=xavier(), reference=True),
    diabetes.case("n002", normal(0.02), cause="too_small_vanish"),
    diabetes.case("x30", times(30), cause="too_large_explode"),
    diabetes.case(
        "head_bias", constant("head", 100.0, "bias"), cause="bad_bias", also="bad_output_head", layers="head"
    ),
)
iris = Group(
    "iris_small_batch",
    "tables",
    partial(Mlp, 4, 3, nn.Tanh, depth=3, width=16),
    data.table("iris", 8),
    F.cross_entropy,
    sgd(0.02),
    steps=250,
)
_IRIS = (
    iris.case("default"),
    iris.case("xavier", start=xavier(5 / 3), reference=True),
    iris.case("zero", fill(0.0), cause="zero_symmetric"),
    iris.case("x30", times(30), cause="saturated_activations", also="too_large_explode"),
    iris.case(
        "raw_wine",
        model=partial(Mlp, 13, 3, nn.Tanh, depth=3, width=16),
        data=data.table("wine", 8, raw=True),
        cause="unscaled_input",
        also="saturated_activations",
        layers="body.0",
    ),
)

layer_norm = Group(
    "mlp_ln", "mlp_norm", partial(Mlp, norm=nn.LayerNorm, depth=8), flat, F.cross_entropy, adamw(2e-3), steps=150
)
_LAYER_NORM = (
    layer_norm.case("default", reference=True),
    layer_norm.case("x100", times(100, "head"), harmless=True, cause="too_large_explode"),
    layer_norm.case("div100", times(0.01, "head"), harmless=True, cause="too_small_vanish"),
    layer_norm.case(
        "gain_zero",
        constant("body.10", 0.0),
        cause="zero_symmetric",
        also="dead_relu too_small_vanish",
        layers="body.10",
    ),
    layer_norm.case("constant", fill(0.1), cause="constant_symmetric"),
    layer_norm.case("bias_neg", constant("body.7", -10.0, "bias"), cause="dead_relu", also="bad_bias", layers="body.7"),
)
batch_norm = Group(
    "mlp_bn", "mlp_norm", partial(Mlp, norm=nn.BatchNorm1d, depth=5), flat, F.cross_entropy, sgd(0.05), steps=150
)
_BATCH_NORM = (
    batch_norm.case("default", reference=True),
    batch_norm.case("n1", normal(1.0, "head"), harmless=True, cause="too_large_explode"),
    batch_norm.case("raw_bytes", data=data.digits(image=False, scale=255.0), harmless=True, cause="unscaled_input"),
    batch_norm.case("lr_high", optimizer=sgd(50.0), cause="lr_too_high"),
)


def activation(name: str, act: type[nn.Module], gain: float, depth: int = 8) -> Group:
    """Perceptrons of an activation, by its own gain."""
    start = lecun() if name == "selu" else xavier(gain)
    return Group(
        f"mlp_{name}",
        "activations",
        partial(Mlp, act=act, depth=depth),
        flat,
        F.cross_entropy,
        adam(1e-3),
        steps=200,
        start=start,
    )


selu = activation("selu", nn.SELU, 1.0)
silu = activation("silu", nn.SiLU, 1.7)
mish = activation("mish", nn.Mish, 1.6)
leaky = activation("leaky", nn.LeakyReLU, math.sqrt(2))
softplus = activation("softplus", nn.Softplus, 1.0, depth=3)
_ACTIVATIONS = (
    selu.case("lecun", reference=True),
    selu.case("he", start=he(), cause="wrong_gain_for_activation"),
    selu.case("x5", times(5), cause="too_large_explode", also="saturated_activations"),
    selu.case("n001", normal(0.01), cause="too_small_vanish"),
    silu.case("gain", reference=True),
    silu.case("default", start=None, cause="too_small_vanish", also="wrong_gain_for_activation"),
    silu.case("orthogonal", start=orthogonal(1.7)),
    silu.case("x5", times(5), cause="too_large_explode"),
    mish.case("gain", reference=True),
    mish.case("div10", times(0.1), cause="too_small_vanish"),
    mish.case("bias_neg", constant("body.6", -30.0, "bias"), cause="bad_bias", also="dead_relu", layers="body.6"),
    leaky.case("gain", reference=True),
    leaky.case("sparse", sparse(), harmless=True),
    leaky.case("identity_like", start=orthogonal(1.0), harmless=True),
    leaky.case("x10", times(10), cause="too_large_explode"),
    softplus.case("xavier", reference=True),
    softplus.case("x30", times(30), cause="too_large_explode"),
    softplus.case("zero", fill(0.0), cause="zero_symmetric"),
)
glu = Group("mlp_glu", "activations", GluMlp, flat, F.cross_entropy, adam(3e-3), steps=200, start=he())
_GLU = (
    glu.case("he", reference=True),
    glu.case("x10", times(10), cause="too_large_explode", also="saturated_activations"),
    glu.case("div10", times(0.1), cause="too_small_vanish"),
    glu.case("zero", fill(0.0), cause="zero_symmetric"),
)

bag = Group("bag_sparse", "embeddings", partial(Bag, data.WORDS), data.bags(), F.cross_entropy, adagrad(0.1), steps=250)
_BAG = (
    bag.case("default", reference=True),
    bag.case("table_small", drawn("table", 0.05), harmless=True),
    bag.case("table_x300", scale("table", 300), cause="bad_embedding_scale", also="too_large_explode", layers="table"),
    bag.case(
        "table_zero",
        constant("table", 0.0),
        harmless=True,
        cause="zero_symmetric",
        also="bad_embedding_scale",
        layers="table",
    ),
    bag.case("fc_zero", constant("fc", 0.0), cause="zero_symmetric", layers="fc", harmless=True),
    bag.case("dead", constant("fc", -30.0, "bias"), cause="dead_relu", also="bad_bias", layers="fc"),
)
heads = Group("two_heads", "outputs", TwoHeads, data.two_targets(), by_head, adam(1e-3), steps=200, start=he())
_HEADS = (
    heads.case("he", reference=True),
    heads.case("default", start=None),
    heads.case("digit_zero", constant("digit", 0.0), harmless=True),
    heads.case("digit_x100", scale("digit", 100), cause="bad_output_head", layers="digit"),
    heads.case("trunk_div30", scale("trunk.0 trunk.2 trunk.4", 1 / 30), cause="too_small_vanish"),
    heads.case("trunk_x30", scale("trunk.0 trunk.2 trunk.4", 30), cause="too_large_explode"),
)
named = Group("named_inputs", "outputs", Named, data.named(flat), by_name, rmsprop(5e-4), steps=200, start=xavier(1.7))
_NAMED = (
    named.case("xavier", reference=True),
    named.case("constant", fill(0.05), cause="constant_symmetric"),
    named.case("div30", times(1 / 30), cause="too_small_vanish"),
    named.case("x30", times(30), cause="too_large_explode"),
    named.case("lr_high", optimizer=rmsprop(1.0), cause="lr_too_high"),
)
signed = Group(
    "sign_momentum",
    "optimizers",
    partial(Mlp, depth=5),
    flat,
    F.cross_entropy,
    sign_momentum(3e-4),
    steps=200,
    start=he(),
)
_SIGNED = (
    signed.case("he", reference=True),
    signed.case("lr_high", optimizer=sign_momentum(0.1), cause="lr_too_high", also="dead_relu"),
    signed.case("div10", times(0.1), cause="too_small_vanish"),
    signed.case("x10", times(10), cause="too_large_explode"),
)

CASES: tuple[Case, ...] = (
    *_HOUSES,
    *_DIABETES,
    *_IRIS,
    *_LAYER_NORM,
    *_BATCH_NORM,
    *_ACTIVATIONS,
    *_GLU,
    *_BAG,
    *_HEADS,
    *_NAMED,
    *_SIGNED,
)
