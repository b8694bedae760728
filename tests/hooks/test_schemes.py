"""Recognition of schemes: a short form of the grid of `make bench ARGS=scheme_grid`, and what single weights say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from initscope.hooks.schemes import Family
from tests.benchmarks.scheme_grid import judge_grid, total
from tests.support.known_models import KNOWN
from tests.support.recognition import recognised
from tests.support.scheme_grid import MAKERS, EveryShape, weights_of

init = nn.init


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_weights_of_every_scheme_and_shape_are_recognised_and_so_are_their_models() -> None:
    rates = judge_grid(MAKERS, [7])
    whole = total(rates.values())
    assert whole.family.total > 400
    assert whole.family.share >= 0.99
    assert whole.scale.share >= 0.97
    assert whole.fresh.share >= 0.99
    assert all(one.models.share == 1.0 for one in rates.values())


@pytest.mark.parametrize("title", KNOWN)
def test_architectures_are_named_as_their_authors_start_them(title: str) -> None:
    torch.manual_seed(21)
    known = KNOWN[title]
    seen = recognised(known.make())
    matrices = [name for name, key in seen.names.items() if key in seen.found.by_key]
    wrong = [name for name in matrices if seen.scheme(name).name not in known.names(name)]
    assert len(wrong) <= max(1, 0.03 * len(matrices)), wrong
    assert not seen.found.is_trained
    assert known.scheme is None or seen.found.scheme == known.scheme


def test_pytorch_s_own_modules_are_named() -> None:
    torch.manual_seed(5)
    seen = recognised(EveryShape())
    assert seen.found.scheme == "pytorch_default"
    names = {
        "square.weight": "pytorch_default",
        "conv3.weight": "pytorch_default",
        "transposed.weight": "pytorch_default",
        "embedding.weight": "pytorch_embedding",
        "lstm.weight_ih_l0": "pytorch_lstm",
        "gru.weight_hh_l0": "pytorch_gru",
        "attention.in_proj_weight": "pytorch_attention",
    }
    assert {name: seen.scheme(name).name for name in names} == names


def test_a_square_weight_alone_has_alternatives_and_the_others_settle_it() -> None:
    torch.manual_seed(2)
    square, tall = nn.Linear(256, 256), nn.Linear(256, 64)
    init.normal_(square.weight, std=1 / 16)
    alone = recognised(nn.Sequential(square)).scheme("0.weight")
    assert {"lecun_normal", "xavier_normal"} <= {alone.name, *alone.alternatives}
    init.xavier_normal_(tall.weight)
    assert recognised(nn.Sequential(square, tall)).scheme("0.weight").name == "xavier_normal"
    init.kaiming_normal_(tall.weight, nonlinearity="linear")
    assert recognised(nn.Sequential(square, tall)).scheme("0.weight").name == "lecun_normal"


def test_a_truncated_normal_tells_whether_it_was_compensated() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 300))
    for factor, is_compensated in ((1.0, False), (1 / 0.87962566, True)):
        for module in model:
            std = factor / math.sqrt(module.in_features)
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        for i in (0, 1):
            scheme = recognised(model).scheme(f"{i}.weight")
            assert (scheme.name, scheme.is_compensated) == ("lecun_truncated_normal", is_compensated)


def test_outliers_at_the_bounds_of_a_truncation_are_no_tail() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256))
    init.normal_(model[0].weight, std=0.02)
    with torch.no_grad():
        model[0].weight.view(-1)[[5, 5_000, 50_000]] = torch.tensor([-2.0, 2.0, -2.0])
        model[1].weight.copy_(torch.distributions.StudentT(2.5).sample((256, 256)) * 0.02)
    seen = recognised(model)
    assert seen.scheme("0.weight").family is Family.BROKEN_TRUNCATION
    assert seen.scheme("1.weight").family is not Family.BROKEN_TRUNCATION


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_storage_in_half_precision_changes_no_name(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    model = EveryShape()
    names = {name: recognised(model).scheme(name).name for name, _ in weights_of(model)}
    seen = recognised(model.to(dtype))
    assert {name: seen.scheme(name).name for name in names} == names
    assert not seen.found.is_trained


def test_a_scale_that_no_formula_has_stays_without_one() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 170))
    for module, std in zip(model, (0.137, 0.3331), strict=True):
        init.normal_(module.weight, std=std)
    for i in (0, 1):
        scheme = recognised(model).scheme(f"{i}.weight")
        assert (scheme.family, scheme.name, scheme.expected_std) == (Family.NORMAL, "normal", None)
        assert str(scheme) == "normal"


def test_weights_that_are_not_finite_or_tiny_are_survived() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(1, 1), nn.Linear(64, 64))
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
        model[3].weight.fill_(math.inf)
    seen = recognised(model)
    assert seen.scheme("0.weight").family is Family.UNKNOWN
    assert not seen.found.is_trained
    assert recognised(nn.ReLU()).found.by_key == {}
