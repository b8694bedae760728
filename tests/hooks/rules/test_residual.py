"""The scale of residual branches in deep stacks."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from initscope.hooks.vocabulary import Cause, Severity
from tests.support import started
from tests.support.decoder import Decoder
from tests.support.models import tokens


def test_scaling_one_matrix_of_two_is_a_warning_that_names_the_other() -> None:
    found = started.of("residual-scale", started.findings(Decoder(6, scaled=("o",)), tokens()[0]))
    assert (found.severity, found.cause, found.module_path) == (
        Severity.WARNING,
        Cause.MISSING_RESIDUAL_SCALING,
        "blocks.0.w2",
    )
    line = re.fullmatch(
        r"for block in model.blocks: nn.init.normal_\(block.w2.weight, std=(.*)\)  # .*/√12", found.remedy
    )
    assert line is not None
    assert float(line[1]) == pytest.approx(0.02 / math.sqrt(12), rel=0.03)


def test_scaling_the_wrong_matrix_is_a_warning_that_names_both() -> None:
    found = started.of("residual-scale", started.findings(Decoder(6, scaled=("o", "w3")), tokens()[0]))
    assert found.severity is Severity.WARNING
    assert "w3.weight was scaled" in found.diagnosis
    assert "w2.weight was not" in found.diagnosis
    line = re.search(r"block.w3.weight, std=(\S*)\)  # .*·√12", found.remedy)
    assert line is not None
    assert float(line[1]) == pytest.approx(0.02, rel=0.03)


def test_the_remedy_mends_it() -> None:
    model = Decoder(6, scaled=("o", "w3"))
    found = started.of("residual-scale", started.findings(model, tokens()[0]))
    exec(found.remedy, {"nn": nn, "model": model})  # noqa: S102 - what a person would paste
    assert not [f for f in started.findings(model, tokens()[0]) if f.rule == "residual-scale"]


def test_a_deep_stack_without_scaling_is_only_noted() -> None:
    found = started.of("residual-scale", started.findings(Decoder(8, scaled=()), tokens()[0]))
    assert found.severity is Severity.INFO
    assert found.evidence["residual_sums"] == 16.0


def test_pytorchs_default_counts_as_unscaled() -> None:
    found = started.of("residual-scale", started.findings(Decoder(8, std=None, scaled=()), tokens()[0]))
    assert found.severity is Severity.INFO


def test_stacks_that_are_scaled_or_short_are_silent() -> None:
    for model in (Decoder(8), Decoder(4, scaled=()), Decoder(8, std=None)):
        assert not [f for f in started.findings(model, tokens()[0]) if f.rule == "residual-scale"]


def test_branches_of_zeros_and_deepnorm_are_silent() -> None:
    zeros = Decoder(8, scaled=("o",))
    with torch.no_grad():
        for block in zeros.blocks:
            nn.init.zeros_(block.w2.weight)
    deepnorm = Decoder(8, scaled=())
    with torch.no_grad():
        for block in deepnorm.blocks:
            for part in (block.v, block.o, block.w1, block.w2, block.w3):
                part.weight.mul_((8 * 8) ** -0.25)
    for model in (zeros, deepnorm):
        assert not [f for f in started.findings(model, tokens()[0]) if f.rule == "residual-scale"]
