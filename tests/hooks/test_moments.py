from __future__ import annotations

import math
import random
from dataclasses import astuple
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initscope.hooks.moments import ABSENT, ChannelStats, Moments, TensorStats, from_standardized, merge_all
from tests.support.twins import moments_of

COUNTS = ("count", "nan_count", "posinf_count", "neginf_count", "zero_count")

# The range in which fourth powers stay inside float64; what lies beyond has tests of its own below.
numbers = st.floats(-1e15, 1e15).map(lambda x: 0.0 if abs(x) < 1e-60 else x)
elements = st.one_of(numbers, numbers, numbers, st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0]))
sets = st.lists(elements, max_size=12)


def assert_close(got: Moments, want: Moments, rel: float = 1e-9) -> None:
    """Equal counts, and moments equal up to rounding on the scale of the numbers themselves."""
    assert [getattr(got, c) for c in COUNTS] == [getattr(want, c) for c in COUNTS]
    if not want.finite_count:
        assert all(math.isnan(getattr(got, name)) for name in ("mean", "m2", "m3", "m4", "min", "max"))
        return
    scale, n = max(want.abs_max, 1e-300), want.finite_count
    assert (got.min, got.max) == (want.min, want.max)
    assert got.mean == pytest.approx(want.mean, rel=rel, abs=rel * scale)
    for power in (2, 3, 4):
        name = f"m{power}"
        assert getattr(got, name) == pytest.approx(getattr(want, name), rel=rel, abs=rel * n * scale**power), name


@given(sets, sets)
def test_a_merge_equals_the_moments_of_both_sets_together(a: list[float], b: list[float]) -> None:
    assert_close(moments_of(a).merge(moments_of(b)), moments_of(a + b))


@given(sets, sets)
def test_a_merge_does_not_depend_on_the_order_of_the_two(a: list[float], b: list[float]) -> None:
    assert_close(moments_of(a).merge(moments_of(b)), moments_of(b).merge(moments_of(a)))


@given(sets, sets, sets)
def test_a_merge_does_not_depend_on_the_grouping(a: list[float], b: list[float], c: list[float]) -> None:
    x, y, z = moments_of(a), moments_of(b), moments_of(c)
    assert_close(x.merge(y).merge(z), x.merge(y.merge(z)))


@given(st.lists(sets, max_size=6))
def test_any_number_of_parts_merges_to_the_whole(parts: list[list[float]]) -> None:
    whole = [x for part in parts for x in part]
    assert_close(merge_all(moments_of(p) for p in parts), moments_of(whole))


@given(sets)
def test_nothing_merged_in_changes_nothing(a: list[float]) -> None:
    m = moments_of(a)
    assert repr(m.merge(Moments())) == repr(m) == repr(Moments().merge(m))


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1.0, 1e15, 5e37])
def test_merging_keeps_five_digits_at_any_scale_a_tensor_has(scale: float) -> None:
    rng = random.Random(7)
    values = [rng.gauss(0.3, 1.0) * scale for _ in range(400)]
    merged = reduce(Moments.merge, (moments_of(values[i : i + 37]) for i in range(0, 400, 37)))
    twin = moments_of(values)
    for name in ("mean", "rms", "std", "skewness", "kurtosis", "norm"):
        assert getattr(merged, name) == pytest.approx(getattr(twin, name), rel=1e-9), name
    assert twin.kurtosis == pytest.approx(3.0, abs=1.0)


def test_a_small_spread_about_a_large_mean_survives_merging() -> None:
    rng = random.Random(3)
    values = [1000.0 + rng.gauss(0.0, 0.1) for _ in range(300)]
    merged = merge_all(moments_of(values[i::7]) for i in range(7))
    assert merged.std == pytest.approx(moments_of(values).std, rel=1e-9)
    assert merged.std == pytest.approx(0.1, rel=0.2)


def test_counts_of_whole_models_do_not_overflow_the_merge() -> None:
    part = Moments(count=2**61, mean=1.0, m2=2.0**61, m3=0.0, m4=3.0 * 2.0**61, min=-4.0, max=6.0)
    merged = part.merge(part)
    assert (merged.count, merged.std, merged.kurtosis) == (2**62, 1.0, 3.0)


def test_numbers_beyond_any_training_overflow_to_infinity_instead_of_raising() -> None:
    huge = Moments(count=2, mean=1e300, m2=1e308, m3=0.0, m4=1e308, min=-1e308, max=1e308)
    merged = huge.merge(Moments(count=1, mean=-1e300, m2=0.0, m3=0.0, m4=0.0, min=-1e300, max=-1e300))
    assert merged.std == math.inf
    assert (merged.count, merged.abs_max) == (3, 1e308)
    assert not math.isfinite(merged.kurtosis)


def test_non_finite_elements_are_counted_by_class_and_left_out_of_the_moments() -> None:
    m = moments_of([1.0, math.nan, 3.0, math.inf, -math.inf, math.inf])
    assert (m.count, m.nan_count, m.posinf_count, m.neginf_count) == (6, 1, 2, 1)
    assert (m.nonfinite_count, m.finite_count, m.mean, m.m2) == (4, 2, 2.0, 2.0)


def test_without_a_finite_element_every_derived_number_is_absent() -> None:
    m = moments_of([math.nan, math.inf])
    assert m.zero_fraction == 0.0
    for name in ("mean", "rms", "std", "norm", "mean_square", "abs_max", "skewness", "kurtosis"):
        assert math.isnan(getattr(m, name)), name
    assert math.isnan(Moments().zero_fraction)


def test_derived_numbers_follow_their_definitions() -> None:
    values = [-3.0, 0.0, 1.0, 2.0, -0.0, 9.0]
    m, n = moments_of(values), len(values)
    mean = sum(values) / n
    std = math.sqrt(sum((x - mean) ** 2 for x in values) / n)
    assert m.rms == pytest.approx(math.sqrt(sum(x * x for x in values) / n))
    assert m.norm == pytest.approx(math.sqrt(sum(x * x for x in values)))
    assert m.std == pytest.approx(std)
    assert m.skewness == pytest.approx(sum((x - mean) ** 3 for x in values) / n / std**3)
    assert m.kurtosis == pytest.approx(sum((x - mean) ** 4 for x in values) / n / std**4)
    assert (m.abs_max, m.zero_fraction) == (9.0, 2 / 6)


def test_a_constant_has_no_shape() -> None:
    m = moments_of([0.1] * 5)
    assert (m.skewness, m.kurtosis) == (0.0, 0.0)


@given(sets)
def test_the_standardized_form_gives_the_moments_back(a: list[float]) -> None:
    m = moments_of(a)
    back = from_standardized(
        count=m.count,
        nan_count=m.nan_count,
        posinf_count=m.posinf_count,
        neginf_count=m.neginf_count,
        zero_count=m.zero_count,
        mean=m.mean,
        std=m.std,
        skewness=m.skewness,
        kurtosis=m.kurtosis,
        min=m.min,
        max=m.max,
    )
    assert_close(back, m)


shares = st.one_of(st.floats(0, 1), st.just(ABSENT))
channels = st.builds(ChannelStats, shares, shares, shares, shares)
weights = st.integers(1, 10**6)


@given(channels, channels, weights, weights)
def test_channels_merge_in_any_order_and_stay_shares(a: ChannelStats, b: ChannelStats, m: int, n: int) -> None:
    ab, ba = a.merge(b, m, n), b.merge(a, n, m)
    assert astuple(ab) == pytest.approx(astuple(ba), nan_ok=True)
    assert all(math.isnan(x) or -1e-12 <= x <= 1 + 1e-12 for x in astuple(ab))


def test_channel_statistics_weigh_by_count_and_take_the_least_dead_and_most_similar() -> None:
    merged = ChannelStats(0.5, 0.2, 0.0, 0.9).merge(ChannelStats(0.1, 0.6, 0.4, 0.3), 3, 1)
    assert astuple(merged) == pytest.approx((0.4, 0.2, 0.1, 0.9))


def test_a_channel_statistic_that_one_side_lacks_is_the_other_sides() -> None:
    assert astuple(ChannelStats().merge(ChannelStats(0.1, 0.6, 0.4, 0.3), 3, 1)) == (0.1, 0.6, 0.4, 0.3)


def test_a_record_merges_moments_and_channels_together() -> None:
    a = TensorStats(moments_of([1.0, 2.0, 3.0]), ChannelStats(signal_fraction=0.5))
    b = TensorStats(moments_of([5.0]), ChannelStats(signal_fraction=0.1))
    merged = a.merge(b)
    assert_close(merged.moments, moments_of([1.0, 2.0, 3.0, 5.0]))
    assert merged.channels.signal_fraction == pytest.approx(0.4)
