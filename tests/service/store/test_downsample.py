from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from initscope.service.store.downsample import MIN_POINTS, thin

_point = st.tuples(st.none() | st.floats(-1e30, 1e30), st.sampled_from([0, 0, 0, 1, 7]))
_curves = st.lists(_point, max_size=300)


@given(_curves, st.integers(MIN_POINTS, 80))
def test_a_thinned_curve_keeps_ends_extremes_and_every_non_finite_element(curve, max_points):
    values, nonfinite = [v for v, _ in curve], [n for _, n in curve]
    thinned = thin(range(len(curve)), values, nonfinite, max_points)

    assert len(thinned.steps) <= max_points
    assert sum(thinned.nonfinite) == sum(nonfinite)
    assert thinned.total_points == len(curve)
    assert thinned.steps == sorted(set(thinned.steps))
    assert thinned.values == [values[step] for step in thinned.steps]
    present = [v for v in values if v is not None]
    if present:
        kept = [v for v in thinned.values if v is not None]
        assert (min(kept), max(kept)) == (min(present), max(present))
    if curve:
        assert (thinned.steps[0], thinned.steps[-1]) == (0, len(curve) - 1)


@given(_curves)
def test_a_curve_that_fits_is_not_touched(curve):
    values, nonfinite = [v for v, _ in curve], [n for _, n in curve]
    thinned = thin(range(len(curve)), values, nonfinite, max(len(curve), MIN_POINTS))
    assert (thinned.steps, thinned.values, thinned.nonfinite) == (list(range(len(curve))), values, nonfinite)


def test_one_bad_record_among_thousands_is_still_at_its_own_step():
    values: list[float | None] = [math.sin(i) for i in range(5000)]
    nonfinite = [0] * 5000
    values[3210], nonfinite[3210] = None, 64
    thinned = thin(range(5000), values, nonfinite, 50)
    assert [s for s, n in zip(thinned.steps, thinned.nonfinite, strict=True) if n] == [3210]


def test_a_spike_of_one_record_survives():
    values: list[float | None] = [1.0] * 5000
    values[1234] = 1e6
    assert 1e6 in thin(range(5000), values, [0] * 5000, 20).values
