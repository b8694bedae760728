from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from initscope.hooks.moments import ChannelStats, Moments, TensorStats
from initscope.hooks.vocabulary import Kind, Statistic
from initscope.service.store import read_stats, schema
from initscope.service.store.derived import value_of, values_of
from initscope.service.store.engine import Database
from initscope.service.store.read_grid import read_grid, split
from tests.support import seeds


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    database = Database(database_url)
    schema.ensure(database)
    with database.write() as connection:
        yield connection
    database.close()


def moments_of(values: list[float]) -> Moments:
    """The slow and obvious twin."""
    finite = [x for x in values if math.isfinite(x)]
    n = len(finite)
    mean = math.fsum(finite) / n
    m2, m3, m4 = (math.fsum((x - mean) ** power for x in finite) for power in (2, 3, 4))
    nan = sum(math.isnan(x) for x in values)
    return Moments(
        len(values), nan, values.count(math.inf), values.count(-math.inf), values.count(0.0),
        mean, m2, m3, m4, min(finite), max(finite),
    )  # fmt: skip


def _samples() -> list[Moments]:
    chance = random.Random(7)
    usual = [[chance.gauss(chance.uniform(-1, 1), 10.0**e) for _ in range(50)] for e in (-30, -12, -3, 0, 6, 30)]
    skewed = [chance.expovariate(1.0) for _ in range(99)]
    odd = [[0.0] * 8, [3.0] * 8, [1.0, math.nan, -2.0, math.inf, -math.inf, 0.0], [-5.0, -4.0], skewed]
    return [moments_of(values) for values in [*usual, *odd]]


@pytest.mark.parametrize("statistic", list(Statistic))
def test_the_database_derives_statistics_as_moments_do(conn, statistic):
    run_no, _ = seeds.add_run(conn)
    expected = []
    for depth, moments in enumerate([*_samples(), Moments(5, 5), Moments()]):
        stats = TensorStats(moments, ChannelStats(0.25, 0.5, 0.125, 0.75) if depth % 2 else ChannelStats())
        number = seeds.add_tensor(conn, run_no, f"l{depth}", "weight", "weight", depth=depth)
        seeds.add_records(conn, [seeds.record_row(run_no, number, 0, stats)])
        expected.append(value_of(stats, statistic))
    grid = read_grid(conn, run_no, 0, Kind.WEIGHT, statistic)
    for row, want in zip(grid.high, expected, strict=True):
        if want is None:
            assert row == [None]
        else:
            assert row == [pytest.approx(want, rel=1e-9, abs=1e-300)]


def test_a_record_reads_back_as_it_was_written(conn):
    run_no, _ = seeds.add_run(conn)
    number = seeds.add_tensor(conn, run_no, "a", "weight", "weight")
    for step, moments in enumerate(_samples()):
        seeds.add_moments(conn, run_no, number, {step: moments})
        (record,) = read_stats.step_records(conn, run_no, 0, step).values()
        assert record.moments == moments
        want = {s.value: getattr(moments, s.value) for s in Statistic if hasattr(moments, s.value)}
        assert {**values_of(record), **want} == values_of(record)


def test_a_grid_is_the_lowest_and_highest_of_the_records_in_each_cell(conn):
    run_no, _ = seeds.add_run(conn)
    chance = random.Random(3)
    steps = sorted(chance.sample(range(1000), 23))
    rms = {(d, s): 2.0 ** chance.uniform(-20, 20) for d in range(17) for s in steps if chance.random() < 0.9}
    bad = {key for key in rms if chance.random() < 0.05}
    numbers = [seeds.add_tensor(conn, run_no, f"l{d}", "output", "activation", depth=d) for d in range(17)]
    other = seeds.add_tensor(conn, run_no, "l0", "weight", "weight", depth=0)
    rows = [
        seeds.record_row(run_no, numbers[d], s, seeds.normal(x, posinf_count=int((d, s) in bad)))
        for (d, s), x in rms.items()
    ]
    rows += [seeds.record_row(run_no, other, s, seeds.normal(1e9)) for s in steps]
    seeds.add_records(conn, rows)

    grid = read_grid(conn, run_no, 0, Kind.ACTIVATION, Statistic.RMS, max_rows=5, max_steps=7)

    assert [[t.module_path for t in group] for group in grid.rows] == [
        [f"l{d}" for d in g] for g in split(range(17), 5)
    ]
    assert grid.steps == [(group[0], group[-1]) for group in split(steps, 7)]
    marked = {(cell.row, cell.column): cell.nonfinite_count for cell in grid.nonfinite}
    for i, depths in enumerate(split(range(17), 5)):
        for j, group in enumerate(split(steps, 7)):
            cell = [(d, s) for d in depths for s in group if (d, s) in rms]
            assert grid.low[i][j] == pytest.approx(min(rms[key] for key in cell))
            assert grid.high[i][j] == pytest.approx(max(rms[key] for key in cell))
            assert marked.get((i, j), 0) == sum(key in bad for key in cell)


def test_a_grid_without_records_is_empty(conn):
    run_no, _ = seeds.add_run(conn)
    grid = read_grid(conn, run_no, 0, Kind.WEIGHT, Statistic.RMS)
    assert (grid.rows, grid.steps, grid.high) == ([], [], [])


def test_attempts_do_not_mix(conn):
    run_no, _ = seeds.add_run(conn, attempt=1)
    number = seeds.add_tensor(conn, run_no, "a", "weight", "weight", depth=0)
    rows = [
        seeds.record_row(run_no, number, s, seeds.normal(1.0 + attempt), attempt)
        for attempt in (0, 1)
        for s in range(4 - 2 * attempt)
    ]
    seeds.add_records(conn, rows)
    assert read_stats.sampled_steps(conn, run_no, 0) == [0, 1, 2, 3]
    assert read_stats.sampled_steps(conn, run_no, 1) == [0, 1]
    assert read_stats.step_at(conn, run_no, 1, None) == 1
    (records,) = read_stats.tensor_records(conn, run_no, 1, [number]).values()
    assert [s.moments.rms for s in records.stats] == [pytest.approx(2.0)] * 2
    assert read_grid(conn, run_no, 1, Kind.WEIGHT, Statistic.RMS).high == [[pytest.approx(2.0)] * 2]


def test_the_step_of_a_profile_is_the_newest_sampled_one_not_later(conn):
    run = seeds.add_mlp(conn, layers=2, steps=[0, 10, 20])
    at = [read_stats.step_at(conn, run.run_no, 0, step) for step in (None, 0, 9, 10, 19, 500)]
    assert at == [20, 0, 0, 10, 10, 20]
    assert read_stats.step_at(conn, run.run_no, 1, None) is None
