"""Language models of characters: deep and narrow, and with gated feed-forward and RMSNorm."""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from tests.benchmarks.starts import data
from tests.benchmarks.starts.case import Case, Change, Group
from tests.benchmarks.starts.faults import constant, drawn, fill, matrices, normal, scale, times, xavier
from tests.benchmarks.starts.loops import adamw, by_token, sgd
from tests.benchmarks.starts.nets_sequence import DeepGpt, Llama

_BLOCKS = range(8)
_ENDS = " ".join(f"h.{i}.{name}" for i in _BLOCKS for name in ("c_proj", "proj"))


def gpt2(std: float = 0.02, *, scaled: bool = True) -> Change:
    """N(0, std²), biases zero; the ends of the branches ÷ √(2 · blocks)."""

    def change(model: nn.Module) -> None:
        normal(std)(model)
        drawn("wte wpe", std)(model)
        if scaled:
            scale(_ENDS, 1 / math.sqrt(16))(model)

    return change


gpt = Group("gpt_deep", "deep_gpt", DeepGpt, data.text(), by_token, adamw(3e-3), steps=120, start=gpt2())
_GPT = (
    gpt.case("gpt2", reference=True),
    gpt.case("unscaled", start=gpt2(scaled=False), harmless=True, cause="missing_residual_scaling"),
    gpt.case("default", start=None),
    gpt.case(
        "std_0_2",
        start=gpt2(0.2, scaled=False),
        cause="missing_residual_scaling",
        also="too_large_explode wrong_gain_for_activation",
    ),
    gpt.case(
        "std_1",
        start=gpt2(1.0, scaled=False),
        cause="too_large_explode",
        also="missing_residual_scaling attention_logit_blowup bad_output_head",
    ),
    gpt.case("std_0_001", start=gpt2(0.001), harmless=True, cause="too_small_vanish"),
    gpt.case("ends_zero", constant(_ENDS, 0.0), harmless=True),
    gpt.case("ends_x100", scale(_ENDS, 100), cause="missing_residual_scaling", also="too_large_explode"),
    gpt.case(
        "attn_x100",
        scale(" ".join(f"h.{i}.attn" for i in _BLOCKS), 100),
        cause="attention_logit_blowup",
        layers=" ".join(f"h.{i}.attn" for i in _BLOCKS),
    ),
    gpt.case("positions_n5", drawn("wpe", 5.0), cause="bad_embedding_scale", layers="wpe"),
    gpt.case("head_n1", drawn("head", 3.0), cause="bad_output_head", layers="head"),
    gpt.case("head_zero", constant("head", 0.0), harmless=True),
    gpt.case("lr_high", optimizer=adamw(0.3), cause="lr_too_high"),
)
post = Group(
    "gpt_post", "deep_gpt", partial(DeepGpt, post=True), data.text(), by_token, adamw(1e-3), steps=150, start=gpt2()
)
_POST = (
    post.case("gpt2", reference=True),
    post.case("x10", times(10, "head"), cause="too_large_explode", also="attention_logit_blowup"),
    post.case(
        "final_gain_0",
        constant("ln_f", 0.0),
        cause="zero_symmetric",
        also="too_small_vanish",
        layers="ln_f",
        harmless=True,
    ),
)

_L = range(3)


def small(model: nn.Module) -> None:
    """N(0, 0.02²) everywhere, tables too."""
    normal(0.02)(model)
    drawn("embed places", 0.02)(model)


llama = Group("llama", "llama", Llama, data.text(), by_token, adamw(5e-3), steps=150, start=small)
_LLAMA = (
    llama.case("n002", reference=True),
    llama.case("default", start=None),
    llama.case("xavier", xavier()),
    llama.case("table_n1", drawn("embed", 1.0), harmless=True),
    llama.case("table_x1000", scale("embed", 1000), cause="bad_embedding_scale", layers="embed"),
    llama.case("down_zero", constant(" ".join(f"layers.{i}.mlp.down_proj" for i in _L), 0.0), harmless=True),
    llama.case("gate_zero", constant(" ".join(f"layers.{i}.mlp.gate_proj" for i in _L), 0.0), harmless=True),
    llama.case(
        "gate_and_down_zero",
        constant(" ".join(f"layers.{i}.mlp.{n}" for i in _L for n in ("gate_proj", "down_proj")), 0.0),
        cause="zero_symmetric",
        layers=" ".join(f"layers.{i}.mlp.gate_proj" for i in _L),
        harmless=True,
    ),
    llama.case(
        "qk_x100",
        scale(" ".join(f"layers.{i}.self_attn.{n}" for i in _L for n in ("q_proj", "k_proj")), 100),
        cause="attention_logit_blowup",
        layers=" ".join(f"layers.{i}.self_attn.{n}" for i in _L for n in ("q_proj", "k_proj")),
    ),
    llama.case(
        "n1",
        normal(1.0),
        cause="too_large_explode",
        also="attention_logit_blowup bad_output_head missing_residual_scaling",
    ),
    llama.case("lm_head_x300", scale("lm_head", 300), cause="bad_output_head", layers="lm_head"),
    llama.case("constant", fill(0.02), constant("embed places", 0.02), cause="constant_symmetric"),
    llama.case("lr_high", optimizer=adamw(1.0), cause="lr_too_high"),
    llama.case("sgd_tiny", optimizer=sgd(0.0001), cause="none"),
    llama.case("norm_gain_x100", scale("norm", 100), cause="bad_output_head", also="too_large_explode", layers="norm"),
)


def identical_blocks(model: nn.Module) -> None:
    """Every block is a copy of the first, as a stack of deep copies is."""
    assert isinstance(model, DeepGpt)
    for block in list(model.h)[1:]:
        block.load_state_dict(model.h[0].state_dict())


def var_as_std(model: nn.Module) -> None:
    """The variance where the standard deviation belongs."""
    for _, module in matrices(model):
        module.weight.normal_(0, 1 / module.weight[0].numel())  # type: ignore[operator, index, union-attr]


_COPIES = (
    gpt.case("copied_blocks", identical_blocks, harmless=True, cause="constant_symmetric"),
    llama.case("variance_as_std", var_as_std, harmless=True, cause="too_small_vanish"),
)

CASES: tuple[Case, ...] = (*_GPT, *_POST, *_LLAMA, *_COPIES)
