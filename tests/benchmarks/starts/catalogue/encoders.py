"""Transformers that classify, mixers, experts."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import nn

from tests.benchmarks.starts import data
from tests.benchmarks.starts.case import Case, Change, Group
from tests.benchmarks.starts.faults import (
    constant,
    drawn,
    everything,
    fill,
    freeze,
    lecun,
    normal,
    scale,
    times,
    xavier,
)
from tests.benchmarks.starts.loops import adam, adamw
from tests.benchmarks.starts.nets_sequence import Encoder, Mixer, MoeNet, Vit

_LAYERS = range(3)
_IN = " ".join(f"encoder.layers.{i}.self_attn.in_proj_weight" for i in _LAYERS)
_OUT = " ".join(f"encoder.layers.{i}.{name}" for i in _LAYERS for name in ("self_attn.out_proj", "linear2"))


def qkv_x(factor: float, where: str = "encoder") -> Change:
    """Queries and keys of torch's own attention × factor."""

    def change(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name.startswith(where) and name.endswith("in_proj_weight"):
                parameter[: 2 * len(parameter) // 3] *= factor

    return change


post = Group(
    "encoder_post", "encoder", partial(Encoder, pre=False), data.counting(), F.cross_entropy, adam(1e-3), steps=150
)
_POST = (
    post.case("default", reference=True),
    post.case("tokens_gpt", drawn("tokens", 0.02), harmless=True),
    post.case(
        "linears_x100", scale(" ".join(f"encoder.layers.{i}.linear1" for i in _LAYERS), 100), cause="too_large_explode"
    ),
    post.case(
        "qk_x30",
        qkv_x(30),
        cause="attention_logit_blowup",
        layers=" ".join(f"encoder.layers.{i}.self_attn" for i in _LAYERS),
    ),
    post.case(
        "gains_zero",
        constant("encoder.layers.2.norm2", 0.0),
        cause="zero_symmetric",
        also="too_small_vanish",
        layers="encoder.layers.2.norm2",
    ),
    post.case("zero", everything(0.0), cause="zero_symmetric"),
    post.case("lr_high", optimizer=adam(0.3), cause="lr_too_high"),
)
pre = Group(
    "encoder_pre", "encoder", partial(Encoder, pre=True), data.counting(), F.cross_entropy, adamw(1e-3), steps=150
)
_PRE = (
    pre.case("default", reference=True),
    pre.case("branches_zero", constant(_OUT, 0.0), harmless=True),
    pre.case("xavier", xavier(), reference=True),
    pre.case("branches_x30", scale(_OUT, 30), cause="missing_residual_scaling", also="too_large_explode"),
    pre.case("tokens_x300", scale("tokens", 300), cause="bad_embedding_scale", layers="tokens"),
    pre.case("constant", fill(0.02), cause="constant_symmetric"),
    pre.case("qkv_constant", constant(_IN, 0.02), cause="constant_symmetric", harmless=True),
    pre.case(
        "tokens_constant",
        constant("tokens", 0.5),
        cause="constant_symmetric",
        also="bad_embedding_scale",
        layers="tokens",
    ),
)

vit = Group("vit", "vit", Vit, data.digits(), F.cross_entropy, adamw(2e-3), steps=150)
_VIT = (
    vit.case("default", reference=True),
    vit.case("trunc02", normal(0.02), drawn("cls_token pos_embed", 0.02), reference=True),
    vit.case("head_zero", constant("head", 0.0), harmless=True),
    vit.case("x10", times(10), cause="too_large_explode", also="missing_residual_scaling bad_output_head"),
    vit.case("positions_x300", scale("pos_embed", 1500), cause="bad_embedding_scale"),
    vit.case(
        "qk_x100",
        qkv_x(100, "blocks"),
        cause="attention_logit_blowup",
        layers=" ".join(f"blocks.layers.{i}.self_attn" for i in _LAYERS),
    ),
    vit.case("patch_zero", constant("patch", 0.0), cause="zero_symmetric", layers="patch", harmless=True),
    vit.case("bytes", data=data.digits(scale=255.0), cause="unscaled_input", layers="patch", harmless=True),
    vit.case("frozen", freeze("blocks"), cause="frozen_or_disconnected_layer", layers="blocks", harmless=True),
    vit.case("lr_high", optimizer=adamw(0.5), cause="lr_too_high"),
)

mixer = Group("mixer", "mixer", Mixer, data.digits(), F.cross_entropy, adamw(2e-3), steps=150)
_MIXER = (
    mixer.case("default", reference=True),
    mixer.case("lecun", lecun(), reference=True),
    mixer.case(
        "second_zero",
        constant(" ".join(f"blocks.{i}.{m}.2" for i in _LAYERS for m in ("tokens", "channels")), 0.0),
        harmless=True,
    ),
    mixer.case("x10", times(10), cause="too_large_explode", also="missing_residual_scaling bad_output_head"),
    mixer.case("x100", times(100), cause="too_large_explode", also="missing_residual_scaling bad_output_head"),
    mixer.case("div10", times(0.1), cause="too_small_vanish"),
    mixer.case(
        "norm_gain_zero",
        constant("norm", 0.0),
        cause="zero_symmetric",
        also="too_small_vanish",
        layers="norm",
        harmless=True,
    ),
)

moe = Group("moe", "moe", MoeNet, data.digits(image=False), F.cross_entropy, adamw(2e-3), steps=150)


def twins(model: nn.Module) -> None:
    """All experts of a layer begin equal."""
    assert isinstance(model, MoeNet)
    for layer in model.moe:
        for expert in list(layer.experts)[1:]:  # type: ignore[arg-type]
            expert.load_state_dict(layer.experts[0].state_dict())  # type: ignore[index]


_MOE = (
    moe.case("default", reference=True),
    moe.case("idle", model=partial(MoeNet, idle=True), harmless=True),
    moe.case("router_zero", constant("moe.0.router moe.1.router", 0.0), harmless=True),
    moe.case("equal_experts", twins, harmless=True, cause="constant_symmetric"),
    moe.case(
        "experts_zero",
        constant(" ".join(f"moe.{i}.experts.{e}.2" for i in (0, 1) for e in range(4)), 0.0),
        harmless=True,
    ),
    moe.case("zero", everything(0.0), cause="zero_symmetric"),
    moe.case("x30", times(30), cause="too_large_explode", also="bad_output_head"),
    moe.case("router_x1000", scale("moe.0.router moe.1.router", 1000), harmless=True, cause="attention_logit_blowup"),
)

CASES: tuple[Case, ...] = (*_POST, *_PRE, *_VIT, *_MIXER, *_MOE)
