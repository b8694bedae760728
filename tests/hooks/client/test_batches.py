from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initscope.hooks.vocabulary import RunStatus
from tests.support.bench_sender import BenchSender
from tests.support.telemetry import STATS, rows, tensors


def headers(bench: BenchSender) -> list[dict]:
    return list(bench.transport.batches.values())


def test_a_batch_waits_for_others_but_not_longer_than_its_patience() -> None:
    bench = BenchSender(limit=100)
    bench.record(0, 3, rows(3))
    assert not bench.assembler.due(bench.now)
    assert not bench.assembler.due(bench.now + 0.1)
    assert bench.assembler.due(bench.now + 1.0)
    bench.record(1, 97, rows(97))
    assert bench.assembler.due(bench.now)


def test_a_step_that_is_larger_than_a_batch_is_cut_into_several() -> None:
    bench = BenchSender(limit=8)
    bench.record(3, 20, rows(20))
    bench.queue.reached(3)
    bench.drain()
    assert [header["accepted"] for header in headers(bench)] == [8, 8, 4]
    assert [header.get("last_step") for header in headers(bench)] == [None, None, 3]
    assert [header.get("sequence", 0) for header in headers(bench)] == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["record", "reach", "turn", "again"]), st.integers(1, 12)), max_size=40),
    st.integers(0, 2**32),
)
def test_last_step_never_claims_a_row_that_comes_later(actions: list[tuple[str, int]], seed: int) -> None:
    bench, step = BenchSender(limit=6), 0
    chance = random.Random(seed)
    for action, number in actions:
        if action == "record":
            bench.record(step, number, rows(number, first_key=chance.randrange(2**40)))
        elif action == "reach":
            bench.queue.reached(step)
            step += 1
        elif action == "again":
            bench.queue.new_attempt()
            step = 0
        elif bench.assembler.due(bench.now + 100):
            bench.transport.fate = chance.choice(["stored", "lost_answer", 413, 422])
            bench.turn(min(number, 4))
    bench.transport.fate = "stored"
    bench.finish()
    claimed: dict[int, int] = {}
    for (_, sequence), header in sorted(bench.transport.batches.items()):
        attempt = header["run"].get("attempt", 0)
        steps = bench.transport.steps[sequence]
        assert min(steps, default=math.inf) > claimed.get(attempt, -1)
        claimed[attempt] = max(claimed.get(attempt, -1), header.get("last_step", -1))
    if step and bench.books.recorded:
        newest = bench.queue.progress.attempt
        assert claimed.get(newest, step - 1) == step - 1


def test_a_step_that_ends_after_its_rows_were_sent_is_told_without_rows() -> None:
    bench = BenchSender()
    bench.record(0, 2, rows(2))
    bench.turn(2)
    bench.queue.reached(0)
    bench.turn(4, seconds=1.0)
    assert [(header["accepted"], header.get("last_step")) for header in headers(bench)] == [(2, None), (0, 0)]
    for step in range(1, 50):  # steps without rows: heartbeats tell them
        bench.queue.reached(step)
    assert not bench.assembler.due(bench.now + 100)


def test_attempts_do_not_share_a_batch() -> None:
    bench = BenchSender(limit=100)
    bench.record(5, 1, rows(1))
    bench.scalar(5, "loss", 1.0)
    bench.queue.new_attempt()
    bench.record(3, 2, rows(2))
    bench.drain()
    assert [(h["run"].get("attempt", 0), h["accepted"]) for h in headers(bench)] == [(0, 2), (1, 2)]


def test_the_final_batch_carries_the_status() -> None:
    bench = BenchSender(limit=4)
    bench.record(0, 6, rows(6))
    bench.finish(RunStatus.FAILED)
    assert [header.get("status") for header in headers(bench)] == [None, "failed"]


def test_the_status_is_told_even_if_nothing_is_left() -> None:
    bench = BenchSender()
    bench.record(0, 2, rows(2))
    bench.drain()
    bench.finish()
    assert [(header["accepted"], header.get("status")) for header in headers(bench)] == [(2, None), (0, "finished")]


def test_a_batch_that_is_too_large_goes_in_halves_under_new_numbers() -> None:
    bench = BenchSender(limit=16)
    bench.transport.most_rows = 3
    bench.record(0, 10, rows(10))
    for i in range(5):
        bench.scalar(0, f"s{i}", 1.0)
    bench.queue.reached(0)
    bench.drain()
    assert sorted(key for _, key, _ in bench.transport.rows) == list(range(10))
    assert len(bench.transport.scalars) == 5
    assert bench.books.acknowledged == 15
    assert not bench.books.dropped
    assert bench.transport.posts > len(bench.transport.batches)
    assert [h.get("last_step") for h in headers(bench)][-1] == 0
    assert all(h.get("last_step") is None for h in headers(bench)[:-1])


def test_a_single_row_that_is_too_large_is_dropped() -> None:
    bench = BenchSender()
    bench.transport.most_rows = 0
    bench.record(0, 3, rows(3))
    bench.turn(20)
    assert bench.books.dropped == {"rejected_413": 3}


def test_the_status_survives_a_final_batch_that_is_too_large() -> None:
    bench = BenchSender(limit=16)
    bench.transport.most_rows = 2
    bench.record(0, 7, rows(7))
    bench.finish()
    assert [header.get("status") for header in headers(bench)][-1] == "finished"
    assert bench.books.acknowledged == 7


def test_a_source_that_breaks_off_costs_its_missing_rows_only(caplog: pytest.LogCaptureFixture) -> None:
    bench = BenchSender()

    def breaking():
        yield 1, STATS
        raise RuntimeError("the device is gone")

    bench.record(0, 4, breaking)
    bench.record(0, 2, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    bench.record(0, 3, lambda: [(1, STATS), (2, None), (2**70, STATS)])  # type: ignore[list-item]
    bench.scalar(0, "loss", lambda: float("text"))
    bench.record(1, 2, rows(2))
    bench.drain()
    assert bench.books.acknowledged == 4
    assert bench.books.dropped == {"conversion_error": 3 + 2 + 2 + 1}
    assert "the device is gone" in caplog.text


def test_rows_beyond_the_announced_count_are_counted_too() -> None:
    bench = BenchSender()
    bench.record(0, 1, rows(3))
    bench.drain()
    assert (bench.books.recorded, bench.books.acknowledged) == (3, 3)


def test_scalars_keep_their_values_and_get_a_name_that_the_wire_takes() -> None:
    bench = BenchSender()
    bench.scalar(0, "lo\nss", lambda: 2)
    bench.scalar(1, "x" * 500, math.nan)
    bench.scalar(2, "", -math.inf)
    bench.drain()
    scalars = [(s["step"], s["name"], s["value"]) for h in headers(bench) for s in h["scalars"]]
    assert scalars == [(0, "lo?ss", 2.0), (1, "x" * 128, "NaN"), (2, "?", "-Infinity")]


def test_a_batch_that_cannot_be_written_is_dropped_and_counted() -> None:
    bench = BenchSender()
    unwritable = tensors(1)[0]
    object.__setattr__(unwritable, "shape", [object()])
    bench.outline.tell(None, [unwritable])
    bench.record(0, 2, rows(2))
    bench.turn(2)
    bench.record(1, 2, rows(2))
    bench.drain()
    assert bench.books.dropped == {"encoding_error": 2}
    assert bench.books.acknowledged == 2


def test_the_books_travel_with_every_batch() -> None:
    bench = BenchSender(limit=4)
    bench.record(0, 6, rows(6))
    bench.drain()
    first, second = (header["books"] for header in headers(bench))
    assert (first["recorded"], first["pending"]) == (6, 6)
    assert (second["recorded"], second["acknowledged"], second["pending"]) == (6, 4, 2)
