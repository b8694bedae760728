"""The rule that says what a loss curve alone shows."""

import math

import pytest

from initscope.hooks.demo.judge import final_loss, has_failed, loss_step, running_median, twin_of

TRIVIAL = 2.0


def falling(steps=200, to=0.2, rate=0.05):
    return [to + (TRIVIAL - to) * math.exp(-rate * i) for i in range(steps)]


@pytest.fixture
def twin():
    return twin_of([falling()], TRIVIAL)


def test_the_twin_is_the_healthy_run_that_ends_lowest():
    best = twin_of([falling(to=1.0), falling(to=0.1), [math.nan] * 200], TRIVIAL)
    assert best.final == pytest.approx(0.1, abs=0.01)
    assert best.gain == pytest.approx(1.9, abs=0.01)


def test_half_way_is_where_the_running_median_has_half_of_the_gain(twin):
    median = running_median(falling())
    half = TRIVIAL - twin.gain / 2
    assert median[twin.half_way_step] <= half < median[twin.half_way_step - 1]


def test_one_spike_does_not_move_the_running_median():
    curve = falling()
    spiked = [*curve[:100], 1e9, *curve[101:]]
    assert max(running_median(spiked)) < TRIVIAL + 1e-9


def test_a_run_that_learns_has_not_failed_and_never_shows_a_failure(twin):
    assert not has_failed(falling(rate=0.03), TRIVIAL, twin)
    assert loss_step(falling(rate=0.03), TRIVIAL, twin) is None


def test_a_flat_run_fails_and_shows_it_when_fifty_steps_are_done(twin):
    flat = [TRIVIAL] * 200
    assert has_failed(flat, TRIVIAL, twin)
    assert loss_step(flat, TRIVIAL, twin) == 50


def test_a_slow_twin_postpones_the_judgement():
    slow = twin_of([falling(steps=600, rate=0.005)], TRIVIAL)
    assert slow.half_way_step > 50
    assert loss_step([TRIVIAL] * 600, TRIVIAL, slow) == slow.half_way_step


def test_a_gain_of_a_tenth_is_the_border(twin):
    border = TRIVIAL - 0.1 * twin.gain
    assert not has_failed([border - 1e-6] * 200, TRIVIAL, twin)
    assert has_failed([border + 1e-6] * 200, TRIVIAL, twin)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_fails_and_shows_it_at_once(twin, bad):
    curve = [*falling()[:7], bad, *falling()[8:]]
    assert final_loss(curve) == math.inf
    assert has_failed(curve, TRIVIAL, twin)
    assert loss_step(curve, TRIVIAL, twin) == 7


def test_a_loss_above_three_times_its_start_is_a_divergence(twin):
    curve = [TRIVIAL] * 6 + [7 * TRIVIAL] * 194
    shown = loss_step(curve, TRIVIAL, twin)
    assert shown is not None
    assert 6 < shown < 20


def test_a_high_first_loss_sets_its_own_measure(twin):
    curve = [50.0] * 12 + falling()
    assert loss_step(curve, TRIVIAL, twin) is None
