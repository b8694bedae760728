"""Replicas that start different, as the rule sees them and as the probe reads them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from initscope.hooks.probe.replicas import ALL, read_digests
from initscope.hooks.probe.walk import walk
from initscope.hooks.rules import Finding, Model, Window, diagnose
from initscope.hooks.rules.replicas import REPLICAS_DIFFER
from initscope.hooks.vocabulary import MAX_DIGESTS, Cause, Severity


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 4))


def judged(*models: nn.Module) -> list[Finding]:
    told = {rank: read_digests(walk(model)) for rank, model in enumerate(models)}
    window = Window(Model({}), {0: {}}, expected_ranks=len(models), replicas=told)
    return diagnose(window, [REPLICAS_DIFFER])


def test_the_odd_rank_and_its_parameters_are_named() -> None:
    odd = net(0)
    nn.init.normal_(odd[3].weight)
    (found,) = judged(net(0), net(0), odd, net(0))
    assert (found.severity, found.cause) == (Severity.CRITICAL, Cause.REPLICAS_DIFFER)
    assert (found.module_path, found.tensor_name, found.evidence["ranks"]) == ("3", "weight", "2")
    assert "Rank 2 of 4 started with other parameters than rank 0: 3.weight" in found.diagnosis


def test_seeds_that_differ_name_every_drawn_parameter() -> None:
    (found,) = judged(net(0), net(1))
    assert found.evidence["parameters"] == "0.weight, 0.bias, 3.weight"  # four biases are too few, gains are all one


def test_equal_replicas_and_a_single_rank_are_silent() -> None:
    assert judged(net(0), net(0)) == []
    assert judged(net(0)) == []
    assert judged() == []


def test_stages_of_a_pipeline_are_not_compared() -> None:
    assert judged(net(0), nn.Sequential(nn.Linear(8, 16))) == []


class ColumnParallelLinear(nn.Linear):
    """A part of a layer: every rank has its own."""


def test_parts_of_a_parallel_layer_are_not_compared() -> None:
    def build(seed: int) -> nn.Sequential:
        torch.manual_seed(7)
        shared = nn.Linear(8, 8)
        torch.manual_seed(seed)
        marked = nn.Linear(8, 8)
        marked.weight.tensor_model_parallel = True  # type: ignore[attr-defined]
        nn.init.zeros_(marked.bias)
        return nn.Sequential(shared, ColumnParallelLinear(8, 8), marked)

    assert judged(build(0), build(1)) == []


def test_a_difference_beyond_what_is_told_is_found_by_the_digest_over_all() -> None:
    def build(odd: bool) -> nn.ModuleList:
        torch.manual_seed(0)
        made = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(2 * MAX_DIGESTS))
        names = read_digests(walk(made))
        hidden = next(i for i in range(len(made)) if f"{i}.weight" not in names)
        if odd:
            nn.init.normal_(made[hidden].weight)  # type: ignore[arg-type]
        return made

    assert len(read_digests(walk(build(False)))) == MAX_DIGESTS
    (found,) = judged(build(False), build(True))
    assert "not told one by one" in found.diagnosis


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_equal_content_has_an_equal_digest_and_other_content_has_not(dtype: torch.dtype) -> None:
    one, same, other = net(0).to(dtype), net(0).to(dtype), net(0).to(dtype)
    with torch.no_grad():
        other[0].weight[0, 0] += 0.5
    a, b, c = (read_digests(walk(m)) for m in (one, same, other))
    assert a == b
    assert {name for name in a if a[name] != c[name]} == {ALL, "0.weight"}
