"""Loops that are not the plain one: accumulation, clipping, lower precision, skipped steps, schedules, averages."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.benchmarks.starts import data
from tests.benchmarks.starts.case import Case, Group, Loop
from tests.benchmarks.starts.faults import constant, fill, he, scale, times
from tests.benchmarks.starts.loops import adam, adamw, sgd
from tests.benchmarks.starts.nets_image import Plain, ResNet
from tests.benchmarks.starts.nets_vector import Mlp

flat = data.digits(image=False)
mlp = Group("loop", "loops", partial(Mlp, depth=5), flat, F.cross_entropy, adam(1e-3), steps=150, start=he())


def loop(name: str, change: Loop, **other: Any) -> Group:
    """The perceptron in another loop."""
    return replace(mlp, name=f"loop_{name}", loop=change, **other)


accumulate = loop("accumulate", Loop(accumulate=4))
clip = loop("clip", Loop(clip=0.1), optimizer=sgd(0.1))
half = loop("bfloat16", Loop(autocast=torch.bfloat16))
skipping = loop("skipped", Loop(skip=frozenset({0, 1, 2, 7})))
slow = loop("warmup", Loop(warmup=60), optimizer=adamw(2e-3), steps=250)
decay = loop("cosine", Loop(cosine=150), optimizer=adamw(2e-3, 0.1))
average = loop("average", Loop(average=0.99))
dropout = loop("dropout", Loop(), model=partial(Mlp, depth=4, width=64, dropout=0.1), steps=250)
long = Group(
    "long",
    "loops",
    partial(ResNet, blocks=2, width=8),
    data.digits(),
    F.cross_entropy,
    sgd(0.02, weight_decay=1e-4),
    steps=300,
    start=he("fc"),
)
bf_cnn = Group(
    "loop_bfloat16_cnn",
    "loops",
    partial(Plain, nn.BatchNorm2d),
    data.digits(),
    F.cross_entropy,
    adam(2e-3),
    steps=150,
    loop=Loop(autocast=torch.bfloat16, clip=1.0),
)
_CASES = (
    accumulate.case("he", reference=True),
    accumulate.case("div10", times(0.1), cause="too_small_vanish"),
    clip.case("he", reference=True),
    clip.case("x10", times(10), cause="too_large_explode"),
    clip.case("head_x30", scale("head", 30), cause="bad_output_head", layers="head"),
    half.case("he", reference=True),
    half.case("x30", times(30), cause="too_large_explode"),
    half.case("div30", times(1 / 30), cause="too_small_vanish"),
    skipping.case("he", reference=True),
    skipping.case("dead", constant("body.4", -30.0, "bias"), cause="dead_relu", also="bad_bias", layers="body.4"),
    slow.case("he", reference=True),
    slow.case("x30", times(30), cause="too_large_explode"),
    slow.case("zero", fill(0.0), cause="zero_symmetric"),
    decay.case("he", reference=True),
    decay.case("constant", fill(0.1), cause="constant_symmetric"),
    average.case("he", reference=True),
    dropout.case("he", reference=True),
    dropout.case("div10", times(0.1), cause="too_small_vanish"),
    long.case("he", reference=True),
    bf_cnn.case("default", reference=True),
    bf_cnn.case("convs_x100", times(100, "classifier"), harmless=True),
)

CASES: tuple[Case, ...] = _CASES
