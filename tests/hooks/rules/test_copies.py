"""Matrices that are copies: which stay one for ever, which are a bug, which are meant."""

from __future__ import annotations

import copy
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from initscope.hooks.vocabulary import Cause, Severity
from tests.support import started
from tests.support.decoder import Decoder
from tests.support.models import Gpt, tokens


class Experts(nn.Module):
    """A dense mixture: every expert sees every input, by the weights of a router."""

    def __init__(self, count: int = 4, *, routed: bool = True) -> None:
        super().__init__()
        self.router = nn.Linear(16, count) if routed else None
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)) for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.stack([expert(x) for expert in self.experts], -1)
        if self.router is None:
            return outputs.mean(-1)
        shares = self.router(x).softmax(-1)[:, None]
        return (outputs * shares).sum(-1)


class TwoTowers(nn.Module):
    """An online tower that learns and another one."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
        self.target = copy.deepcopy(self.online)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.online(x) + 0.1 * self.target(x * x))


def clone(modules: nn.ModuleList) -> None:
    for module in list(modules)[1:]:
        module.load_state_dict(modules[0].state_dict())


def test_experts_that_are_all_the_same_are_named() -> None:
    model = Experts()
    clone(model.experts)
    found = started.of("copied-tensors", started.findings(model, torch.randn(32, 16)))
    assert (found.severity, found.cause) == (Severity.WARNING, Cause.DUPLICATED_TENSORS)
    assert found.module_path == "experts.0.0"
    assert "experts" in found.diagnosis
    assert "model.experts[i][0].weight" in found.remedy


def test_copies_that_get_the_same_gradient_never_part_and_are_critical() -> None:
    model = Experts(routed=False)
    clone(model.experts)
    found = started.of("copied-tensors", started.findings(model, torch.randn(32, 16)))
    assert found.severity is Severity.CRITICAL
    # Not a guess: after fifty steps they are still one.
    started.findings(model, torch.randn(32, 16), steps=50)
    first, *others = [expert[0].weight for expert in model.experts]
    assert all(torch.allclose(first, other, atol=1e-5) for other in others)


@pytest.mark.parametrize("routed", [True, False])
def test_experts_drawn_one_by_one_are_silent(routed: bool) -> None:
    found = started.findings(Experts(routed=routed), torch.randn(32, 16))
    assert not [f for f in found if f.rule == "copied-tensors"]


def test_the_remedy_parts_the_experts() -> None:
    model = Experts(routed=False)
    clone(model.experts)
    found = started.of("copied-tensors", started.findings(model, torch.randn(32, 16)))
    exec(found.remedy, {"nn": nn, "model": model})  # noqa: S102 - what a person would paste
    assert not [f for f in started.findings(model, torch.randn(32, 16)) if f.rule == "copied-tensors"]


def test_parts_of_a_block_that_were_drawn_with_one_random_state_are_a_warning() -> None:
    model = Decoder()
    for name, parameter in model.named_parameters():
        if "blocks" in name and parameter.dim() > 1:
            torch.manual_seed(7)
            nn.init.normal_(parameter, std=0.02)
    found = started.of("copied-tensors", started.findings(model, tokens()[0]))
    assert (found.severity, found.cause) == (Severity.WARNING, Cause.DUPLICATED_TENSORS)
    assert "random state" in found.diagnosis
    assert found.evidence["groups"] == 3.0  # q to o, w1 and w3, w2


def test_a_decoder_drawn_in_one_go_is_silent() -> None:
    assert started.alarms(started.findings(Decoder(), tokens()[0], steps=3)) == []


def test_torchs_encoder_copies_its_layer_and_is_only_noted() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(32, 5))
    found = started.findings(model, torch.randn(8, 6, 32), steps=3)
    assert started.of("copied-tensors", found).severity is Severity.INFO
    assert started.alarms(found) == []


@pytest.mark.parametrize("frozen", [True, False])
def test_a_target_that_starts_as_a_copy_is_no_alarm(frozen: bool) -> None:
    model = TwoTowers()
    model.target.requires_grad_(not frozen)
    copied = [f for f in started.findings(model, torch.randn(32, 16), steps=3) if f.rule == "copied-tensors"]
    assert started.alarms(copied) == []
    assert len(copied) == (0 if frozen else 1)


def test_patterns_and_tied_weights_are_no_copies() -> None:
    model = Gpt()
    with torch.no_grad():
        for block in model.blocks:
            nn.init.eye_(block.attn.out.weight)
            nn.init.zeros_(block.fc2.weight)
    assert not [f for f in started.findings(model, tokens()[0]) if f.rule == "copied-tensors"]
