from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from initscope.hooks.comparison import Comparison, Snapshot, compare
from initscope.hooks.comparison.luck import luck_of, sampling_error
from initscope.hooks.rules import Window
from initscope.hooks.vocabulary import Kind, Role
from tests.support import networks as n
from tests.support.collector import absent, info, stats
from tests.support.twins import moments_of


def start_of(model: nn.Module, *, seed: int = 5, **options) -> Window:
    """The first step of a real training."""
    return n.watched(model, seed=seed, steps=1, **options)[0]


def snapshot(window: Window) -> Snapshot:
    return Snapshot(window.model.tensors, window.now)


def compared(a: Window, b: Window, **options) -> Comparison:
    return compare(snapshot(a), snapshot(b), **options)


def octaves(comparison: Comparison, kind: Kind) -> dict[str, float | None]:
    return {d.a.module_path: d.octaves for d in comparison.differences if d.kind is kind and d.a.name != "bias"}


def test_octaves_are_those_of_the_numbers_themselves() -> None:
    window = start_of(n.mlp(2))
    again = n.mlp(2)
    torch.manual_seed(5)
    for layer in again:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()

    def triple(model: nn.Module) -> None:
        model[2].weight.mul_(3.0)  # type: ignore[index,operator,union-attr]

    comparison = compared(window, start_of(n.mlp(2), start=triple))
    before = again[2].weight.detach().double().numpy()
    twin = np.log2(np.sqrt(np.mean((3 * before) ** 2)) / np.sqrt(np.mean(before**2)))
    (weight,) = [d for d in comparison.differences if d.kind is Kind.WEIGHT and d.octaves]
    assert (weight.a.module_path, weight.a.name) == ("2", "weight")
    assert weight.octaves == pytest.approx(twin)
    assert weight.stats_a is not None
    assert weight.stats_a.moments.rms == pytest.approx(np.sqrt(np.mean(before**2)))


def test_he_and_xavier_part_in_the_weights_by_half_an_octave_and_in_the_outputs_from_layer_to_layer() -> None:
    xavier = start_of(n.mlp(10), start=n.draw(lambda m: nn.init.xavier_normal_(m.weight)))
    he = start_of(n.mlp(10), start=n.draw(n.he))
    comparison = compared(xavier, he)
    weights = octaves(comparison, Kind.WEIGHT)
    assert all(weights[str(2 * i)] == pytest.approx(0.5, abs=0.1) for i in range(1, 10))
    outputs = octaves(comparison, Kind.ACTIVATION)
    assert outputs["18"] == pytest.approx(0.5 * math.log2(5) + 9 * 0.5, abs=1.0)
    by_kind = {summary.kind: summary for summary in comparison.kinds}
    first = by_kind[Kind.ACTIVATION].first
    assert first is not None
    # Sixteen inputs and 64 outputs: √(2/80) against √(2/16).
    assert first.a.module_path == "0"
    assert outputs["0"] == pytest.approx(0.5 * math.log2(5), abs=0.1)
    assert by_kind[Kind.ACTIVATION].largest is not None
    assert by_kind[Kind.ACTIVATION].largest.a.depth >= 16
    assert not comparison.is_equal


def test_a_gradient_parts_first_where_it_comes_from() -> None:
    he = start_of(n.mlp(6), start=n.draw(n.he))

    def small_head(model: nn.Module) -> None:
        n.draw(n.he)(model)
        model[-1].weight.mul_(0.01)  # type: ignore[index,operator,union-attr]

    comparison = compared(he, start_of(n.mlp(6), start=small_head), kinds=[Kind.ACTIVATION_GRADIENT, Kind.ACTIVATION])
    by_kind = {summary.kind: summary for summary in comparison.kinds}
    assert set(by_kind) == {Kind.ACTIVATION, Kind.ACTIVATION_GRADIENT}
    back, forward = by_kind[Kind.ACTIVATION_GRADIENT].first, by_kind[Kind.ACTIVATION].first
    assert back is not None
    assert forward is not None
    assert (back.a.module_path, forward.a.module_path) == ("11", "12")


@pytest.mark.parametrize("seeds", [(1, 2), (3, 4), (5, 6), (7, 8)])
@pytest.mark.parametrize(
    "make",
    [lambda: n.mlp(12), lambda: n.mlp(6, nn.Tanh), lambda: n.mlp(8, norm=nn.LayerNorm)],
    ids=["relu", "tanh", "ln"],
)
def test_two_seeds_of_one_scheme_are_equal(make, seeds: tuple[int, int]) -> None:
    start = n.xavier if isinstance(make()[1], nn.Tanh) else n.he
    a, b = (start_of(make(), start=n.draw(start), seed=seed) for seed in seeds)
    comparison = compared(a, b)
    assert comparison.is_equal, [
        (d.a.module_path, d.kind, d.octaves, d.luck) for d in comparison.differences if d.parts
    ]


def test_a_run_equals_itself() -> None:
    window = start_of(n.cnn(4), batches=n.images())
    comparison = compared(window, window, threshold=0.0)
    assert comparison.is_equal
    assert {d.octaves for d in comparison.differences} == {0.0}
    assert all(summary.largest is not None and summary.largest.octaves == 0.0 for summary in comparison.kinds)


def single(*records) -> Comparison:
    weight = info()
    sides = [Snapshot({weight.key: weight}, {} if r is None else {weight.key: r}) for r in records]
    return compare(*sides)


ZERO = stats(mean=0.0, std=0.0, kurtosis=0.0, min=0.0, max=0.0, zero_count=1000)


@pytest.mark.parametrize(
    ("a", "b", "difference", "parts"),
    [
        (stats(), stats(std=4.0), 2.0, True),
        (stats(), stats(std=2**0.2), 0.2, False),
        (stats(std=4.0), stats(), -2.0, True),
        (ZERO, stats(), math.inf, True),
        (stats(), ZERO, -math.inf, True),
        (ZERO, ZERO, 0.0, False),
        (stats(), stats(nan_count=1), 0.0, True),
        (stats(nan_count=3), stats(nan_count=1), 0.0, False),
        (stats(), absent(), None, True),
        (absent(), absent(), None, False),
        (stats(std=1e-100), stats(std=1e-90), math.log2(1e10), True),
    ],
)
def test_numbers_at_the_edge_have_a_difference_too(a, b, difference, parts: bool) -> None:
    (found,) = single(a, b).differences
    assert found.octaves == (None if difference is None else pytest.approx(difference, abs=0.01))
    assert found.parts is parts


def test_a_record_that_only_one_run_has_is_shown_and_not_judged() -> None:
    comparison = single(stats(), None)
    (found,) = comparison.differences
    assert (found.octaves, found.parts, found.stats_b, comparison.kinds) == (None, False, None, ())
    assert single(None, None).differences == ()


def test_the_sampling_error_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(0)
    for draw in (lambda: rng.normal(0.3, 1.0, 400), lambda: rng.uniform(-1, 1, 400), lambda: rng.laplace(size=400)):
        logs = [np.log2(np.sqrt(np.mean(draw() ** 2))) for _ in range(2_000)]
        error = np.mean([sampling_error(moments_of(draw())) for _ in range(20)])
        assert error == pytest.approx(np.std(logs), rel=0.12)


def test_the_sampling_error_survives_numbers_of_any_size() -> None:
    sizes = [sampling_error(stats(std=10.0**e, mean=10.0**e).moments) for e in (-60, 0, 60)]
    assert sizes == [pytest.approx(sizes[1])] * 3
    assert sampling_error(absent().moments) == sampling_error(ZERO.moments) == 0.0


def test_luck_grows_from_where_the_signal_starts() -> None:
    tensors = sorted(start_of(n.mlp(6)).model.tensors.values(), key=lambda t: t.depth or 0)
    luck = luck_of({t.key: t for t in tensors})
    forward = [luck.of(t) for t in tensors if t.kind is Kind.ACTIVATION]
    backward = [luck.of(t) for t in tensors if t.kind is Kind.ACTIVATION_GRADIENT]
    assert forward == sorted(forward)
    assert backward == sorted(backward, reverse=True)
    assert forward[0] > 0.0
    assert backward[-1] > forward[0]  # four classes are fewer than 64 units


def test_a_norm_ends_the_luck_of_outputs() -> None:
    lucks = []
    for norm in (None, nn.LayerNorm):
        tensors = start_of(n.mlp(6, norm=norm)).model.tensors
        luck = luck_of(tensors)
        hidden = [t for t in tensors.values() if t.kind is Kind.ACTIVATION and t.role is Role.HIDDEN]
        lucks.append([luck.of(t) for t in sorted(hidden, key=lambda t: t.depth or 0)])
    assert lucks[0][-1] > 1.5 * lucks[0][0]
    assert lucks[1] == [lucks[1][0]] * len(lucks[1])


def test_schemes_of_real_networks_are_laid_beside_each_other() -> None:
    windows = [start_of(n.mlp(6), start=n.draw(start)) for start in (n.he, n.xavier, n.he)]
    he, xavier, again = (Snapshot(w.model.tensors, w.now, w.recognition) for w in windows)
    different = compare(he, xavier).schemes
    assert [pair.name for pair in different] == ["weight"] * 7
    assert not any(pair.is_same for pair in different)
    assert all(pair.is_same for pair in compare(he, again).schemes)
    assert compare(he, snapshot(windows[1])).schemes == ()
