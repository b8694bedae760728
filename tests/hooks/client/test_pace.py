from __future__ import annotations

import random

from initscope.hooks.client.pace import Pace


def longest(low: float, high: float) -> float:  # noqa: ARG001 - the signature of random.uniform
    return high


def test_waits_double_from_half_a_second_to_thirty() -> None:
    pace, waits = Pace(longest), []
    for _ in range(9):
        pace.failed(100.0)
        waits.append(pace.rest - 100.0)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    for _ in range(5_000):
        pace.failed(100.0)
    assert pace.rest == 130.0


def test_jitter_is_full() -> None:
    pace, waits = Pace(), []
    for _ in range(400):
        pace.failures = 6
        pace.failed(0.0)
        waits.append(pace.rest)
    assert min(waits) < 3
    assert max(waits) > 27


def test_success_starts_anew() -> None:
    pace = Pace(longest)
    pace.failed(0.0)
    pace.failed(0.0)
    pace.succeeded()
    pace.failed(0.0)
    assert pace.rest == 0.5


def test_a_wait_that_the_collector_asks_for_is_kept_and_capped() -> None:
    pace = Pace(longest)
    pace.failed(0.0, after=7.0)
    assert 7.0 <= pace.rest <= 7.5
    pace.hasten(1.0)
    assert pace.rest >= 7.0
    pace.failed(0.0, after=1e9)
    assert 300.0 <= pace.rest <= 300.5
    pace.failed(0.0, after=-5.0)
    assert pace.rest <= 0.5


def test_the_end_of_a_run_does_not_wait_out_a_back_off() -> None:
    pace = Pace(longest)
    for _ in range(9):
        pace.failed(0.0)
    pace.hasten(1.0)
    assert pace.rest == 1.0
    pace.failed(1.0, closing=True)
    assert pace.rest == 1.5


def test_jitter_leaves_the_training_s_random_numbers_alone() -> None:
    random.seed(3)
    before = random.getstate()
    Pace().failed(0.0)
    assert random.getstate() == before
