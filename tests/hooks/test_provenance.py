"""Fresh against trained, on networks that are trained here."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import nn

from initscope.hooks.schemes import Family
from initscope.hooks.wire import RunDescription
from tests.support.recognition import recognised
from tests.support.trained_nets import NETS, train


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def pair(title: str) -> tuple[nn.Module, nn.Module]:
    fresh, trained, loss = train(NETS[title], 31)
    assert loss < 1.3, "the net has not learned: it says nothing of trained weights"
    return fresh, trained


SHORT = (
    "MLP, Adam",
    "MLP, He, SGD",
    "MLP, orthogonal, Adam",
    "CNN with BatchNorm, He, Adam",
    "LSTM, Adam",
    "Transformer, Adam",
)


@pytest.mark.parametrize("title", SHORT)
def test_a_network_is_fresh_before_its_training_and_trained_after_it(title: str) -> None:
    fresh, trained = (recognised(model).found for model in pair(title))
    assert (fresh.is_trained, fresh.trained_share) == (False, 0.0)
    assert trained.is_trained
    assert trained.trained_share > 0.5


def test_a_fresh_head_on_a_trained_body_is_told_apart() -> None:
    model = copy.deepcopy(pair("Transformer, Adam")[1])
    torch.manual_seed(0)
    model.head = nn.Linear(48, 300)
    seen = recognised(model)
    assert seen.trained("head.weight") < 0.5
    assert seen.scheme("head.weight").name == "pytorch_default"
    assert seen.scheme("encoder.layers.0.linear1.weight").family is Family.TRAINED
    assert seen.found.is_trained


def test_fresh_adapters_beside_frozen_trained_weights_are_told_apart() -> None:
    model = nn.ModuleDict({"base": copy.deepcopy(pair("MLP, Adam")[1])})
    model.requires_grad_(False)
    torch.manual_seed(0)
    model["lora_A"], model["lora_B"] = nn.Linear(96, 8, bias=False), nn.Linear(8, 96, bias=False)
    nn.init.zeros_(model["lora_B"].weight)
    seen = recognised(model)
    assert seen.scheme("lora_A.weight").name == "pytorch_default"
    assert seen.scheme("lora_B.weight").family is Family.ZERO
    assert seen.found.is_trained


def test_a_trained_layer_in_a_fresh_model_does_not_make_it_trained() -> None:
    body = pair("MLP, Adam")[1]
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(96, 96) for _ in range(4)], copy.deepcopy(body[3]))
    seen = recognised(model)
    assert seen.trained("4.weight") > 0.5
    assert all(seen.trained(f"{i}.weight") < 0.5 for i in range(4))
    assert not seen.found.is_trained


def test_what_was_said_decides() -> None:
    fresh, trained = pair("MLP, Adam")
    assert recognised(fresh, RunDescription(pretrained=True)).found.is_trained
    assert not recognised(trained, RunDescription(pretrained=False)).found.is_trained
    assert recognised(fresh, RunDescription(first_step=1_000)).found.is_trained


def _shifted(w: torch.Tensor) -> None:
    nn.init.uniform_(w, 0.0, 0.1)


BROKEN = {
    "all of one sign": _shifted,
    "far too large": lambda w: nn.init.normal_(w, std=3.7),
    "far too small": lambda w: nn.init.normal_(w, std=1e-4),
    "constant": lambda w: nn.init.constant_(w, 0.3),
    "scaled He": lambda w: nn.init.normal_(w, std=0.31),
}


@pytest.mark.parametrize("draw", BROKEN.values(), ids=BROKEN)
def test_a_bad_start_is_not_taken_for_a_trained_one(draw) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(*[nn.Linear(128, 128) for _ in range(5)])
    for module in model:
        draw(module.weight)
        nn.init.normal_(module.bias, std=1.0)
    found = recognised(model).found
    assert not found.is_trained
    assert found.trained_share == 0.0
