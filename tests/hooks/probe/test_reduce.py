"""Reductions against the float64 twin: every shape of number that a training can show."""

from __future__ import annotations

import math

import pytest
import torch

from initscope.hooks.moments import Moments, merge_all
from initscope.hooks.probe import reduce
from tests.support.oracle import moments_of

NAN, INF = math.nan, math.inf
G = torch.Generator().manual_seed(3)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=G)


CASES = {
    "normal": normal(1000),
    "more than a block": normal(200_003),
    "mean far above std": 1000 + 0.1 * normal(5000),
    "mean far above std, many": 1000 + 0.1 * normal(150_000),
    "squares underflow": 1e-25 * normal(3000),
    "denormal": 1e-40 * normal(3000),
    "fourth powers overflow": 1e15 * normal(3000),
    "sums overflow": 5e37 * normal(3000),
    "heavy tails": normal(100_000) ** 5,
    "bfloat16": normal(3000).bfloat16(),
    "float16": (normal(70_000) * 1000).half(),
    "float16 small": (normal(700) * 1e-6).half(),
    "float64": normal(3000).double() * 1e-60,
    "constant": torch.full((77,), 0.1),
    "zeros": torch.zeros(50),
    "half zeros": normal(1000).relu(),
    "negative zeros": torch.tensor([-0.0, 0.0, 1.0]),
    "one": torch.tensor([3.0]),
    "two": torch.tensor([3.0, -1.0]),
    "scalar": torch.tensor(2.0),
    "every class": torch.tensor([1.0, NAN, INF, -INF, 0.0, 2.0, 5.0]),
    "only NaN": torch.full((9,), NAN),
    "one NaN in many": torch.cat([normal(100_000), torch.tensor([NAN])]),
    "inf in bfloat16": torch.tensor([INF, 1.0, -2.0]).bfloat16(),
    "transposed": normal(30, 50).t(),
    "channels last": normal(4, 5, 6, 7).contiguous(memory_format=torch.channels_last),
    "expanded": normal(5, 1).expand(5, 9),
    "sliced": normal(50, 50)[::2, 3:9],
    "small spread": 1e-3 + 1e-9 * normal(1000),
    "two levels": torch.cat([torch.zeros(70_000), 1000 + 0.1 * normal(70_000)]),
}


def assert_equal(found: Moments, twin: Moments) -> None:
    """1e-5 relative; mean, m3 and m4 relative to their scale."""
    counts = ("count", "nan_count", "posinf_count", "neginf_count", "zero_count")
    assert [getattr(found, c) for c in counts] == [getattr(twin, c) for c in counts]
    n = twin.finite_count
    if not n:
        assert math.isnan(found.mean)
        return
    assert [found.min, found.max] == pytest.approx([twin.min, twin.max], rel=1e-6)
    assert found.mean == pytest.approx(twin.mean, abs=1e-5 * max(abs(twin.mean), twin.std), rel=0)
    assert found.rms == pytest.approx(twin.rms, rel=1e-5)
    # A constant has no spread; float64 leaves a rounding error of its own.
    floor = abs(twin.mean) * 1e-12
    assert found.std == pytest.approx(twin.std, rel=1e-5, abs=floor)
    if twin.std > floor:
        assert found.m3 == pytest.approx(twin.m3, rel=0, abs=1e-5 * n * twin.std**3 * max(1.0, abs(twin.skewness)))
        assert found.m4 == pytest.approx(twin.m4, rel=1e-5)


def merged(parts: list[reduce.Part]) -> Moments:
    rows = [(n, p.tolist() if isinstance(p, torch.Tensor) else p) for n, p in parts]
    return merge_all(reduce.to_moments(n, p) for n, p in rows)


@pytest.mark.parametrize("name", CASES)
def test_a_part_gives_the_moments_of_the_float64_twin(name: str) -> None:
    assert_equal(merged(reduce.measure(CASES[name])), moments_of(CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_tensors_reduced_together_give_the_same(name: str) -> None:
    other = torch.ones_like(CASES[name])
    found = reduce.measure_all([other, CASES[name], normal(17)])
    assert_equal(merged(found[1]), moments_of(CASES[name]))
    assert_equal(merged(found[0]), moments_of(other))


@pytest.mark.parametrize("name", CASES)
def test_the_branch_free_way_of_other_devices_gives_the_same(name: str) -> None:
    flat = reduce.flatten(CASES[name])
    assert_equal(merged([(flat.numel(), reduce._masked(flat))]), moments_of(CASES[name]))


def test_an_empty_tensor_has_no_part() -> None:
    assert reduce.measure(torch.empty(0, 3)) == []
    assert reduce.measure_all([torch.empty(0), torch.ones(2)])[0] == []


def test_nothing_of_the_global_random_state_is_used() -> None:
    before = torch.get_rng_state()
    reduce.measure_all([normal(100), normal(100)])
    assert torch.equal(before, torch.get_rng_state())
