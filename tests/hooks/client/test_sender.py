from __future__ import annotations

import json

import pytest

from initscope.hooks.vocabulary import RunStatus
from tests.support.bench_sender import BenchSender
from tests.support.telemetry import balance, rows, tensors


@pytest.mark.parametrize("fate", ["unreachable", "garbage", "lost_answer", 408, 429, 500, 503, 302, 204])
def test_a_batch_without_a_decision_is_sent_again_with_the_same_bytes(fate: str | int) -> None:
    bench = BenchSender()
    bench.transport.fate = fate
    bench.record(0, 3, rows(3))
    bench.turn(6)
    assert bench.books.pending == 3
    assert bench.transport.posts > 2
    bench.transport.fate = "stored"
    bench.drain()  # the transport itself compares the bytes
    assert bench.books.acknowledged == 3
    assert len(bench.transport.rows) == 3
    assert bool(bench.transport.duplicates) == (fate == "lost_answer")


@pytest.mark.parametrize("status", [400, 404, 409, 415, 422])
def test_a_refused_batch_is_dropped_with_one_line_that_says_why(status: int, caplog: pytest.LogCaptureFixture) -> None:
    bench = BenchSender()
    bench.transport.fate = status
    for step in range(3):
        bench.record(step, 2, rows(2))
        bench.turn(4)
    assert bench.books.dropped == {f"rejected_{status}": 6}
    assert sum(f"with {status}" in r.getMessage() for r in caplog.records) == 1
    bench.transport.fate = "stored"
    bench.record(4, 2, rows(2))
    bench.drain()
    assert bench.books.acknowledged == 2


@pytest.mark.parametrize("status", [401, 403])
def test_without_permission_it_tries_once_a_minute(status: int, caplog: pytest.LogCaptureFixture) -> None:
    bench = BenchSender(max_items=5)
    bench.transport.fate = status
    for step in range(20):
        bench.record(step, 1, rows(1))
        bench.turn(2, seconds=5.0)
    assert 2 <= bench.transport.posts <= 200 / 60 + 1
    assert bench.books.dropped[f"rejected_{status}"] > 0
    assert bench.books.dropped["queue_full"] > 0
    assert balance(bench.books) == 0
    assert "token" in caplog.text
    bench.transport.fate = "stored"
    bench.drain()
    assert bench.books.acknowledged > 0


def test_it_says_that_the_queue_is_full(caplog: pytest.LogCaptureFixture) -> None:
    bench = BenchSender(max_items=2)
    bench.transport.fate = "unreachable"
    for step in range(9):
        bench.record(step, 1, rows(1))
        bench.turn()
    assert "queue is full" in caplog.text


def test_a_collector_that_asks_for_time_gets_it_even_at_the_end() -> None:
    bench = BenchSender()
    bench.transport.fate = 429
    bench.record(0, 1, rows(1))
    bench.turn(3)
    tries = bench.transport.posts
    bench.sender._pace.failed(bench.now, after=200.0)
    bench.sender.finish(RunStatus.FINISHED, bench.now + 5.0)
    assert not bench.turn(seconds=0.1)
    assert bench.transport.posts == tries


def test_the_end_of_a_run_does_not_wait_out_a_back_off() -> None:
    bench = BenchSender()
    bench.transport.fate = "unreachable"
    bench.record(0, 2, rows(2))
    bench.turn(12)
    bench.assembler.hurry = False
    bench.sender._pace.rest = bench.now + 25.0
    bench.transport.fate = "stored"
    bench.sender.finish(RunStatus.FINISHED, bench.now + 5.0)
    while bench.turn(seconds=0.01):
        pass
    assert bench.books.acknowledged == 2
    assert bench.now < 100 + 1_200 + 5


def test_a_final_batch_that_is_refused_ends_the_run_all_the_same() -> None:
    bench = BenchSender()
    bench.transport.fate = 422
    bench.outline.tell(None, tensors(3))
    bench.record(0, 2, rows(2))
    assert bench.finish() < 60
    assert bench.books.dropped == {"rejected_422": 2}


def test_heartbeats_go_every_five_seconds_and_carry_the_books() -> None:
    bench = BenchSender()
    bench.sender._beat_seconds, bench.sender._next_beat = 5.0, bench.now
    bench.sender._beat_body = lambda: json.dumps({"recorded": bench.books.recorded}).encode()
    bench.record(0, 1, rows(1))
    bench.turn(30, seconds=1.0)
    assert [beat["recorded"] for beat in bench.transport.heartbeats] == [1] * 6


def test_heartbeats_do_not_pile_up_while_the_collector_is_away() -> None:
    bench = BenchSender()
    bench.sender._beat_seconds, bench.sender._next_beat = 5.0, bench.now
    bench.record(0, 1, rows(1))
    bench.transport.fate = "unreachable"
    bench.turn(200, seconds=5.0)
    bench.transport.fate = "stored"
    bench.turn(2, seconds=40.0)
    assert bench.books.acknowledged == 1
    bench.turn(1, seconds=0.1)
    bench.turn(3, seconds=0.1)
    assert len(bench.transport.heartbeats) <= 1


def test_a_collector_without_heartbeats_still_gets_batches(caplog: pytest.LogCaptureFixture) -> None:
    bench = BenchSender()
    bench.sender._beat_seconds, bench.sender._next_beat = 5.0, bench.now
    bench.transport.fate = 404
    bench.turn(1)
    bench.transport.fate = "stored"
    bench.record(0, 1, rows(1))
    bench.turn(4, seconds=0.5)
    assert bench.books.acknowledged == 1
    assert "heartbeats are lost" in caplog.text


def test_an_answer_that_does_not_account_for_all_rows_is_told(caplog: pytest.LogCaptureFixture) -> None:
    bench = BenchSender()
    bench.record(0, 4, rows(4))
    bench.transport.batches[("0" * 31 + "1", 0)] = {"accepted": 1, "rejected": 1}
    original = bench.transport._batch

    def forgetful(body: bytes):
        answer = original(body)
        return type(answer)(200, answer.body.replace(b'"duplicate": true', b'"duplicate": false'))

    bench.transport._batch = forgetful  # type: ignore[method-assign]
    bench.turn(3)
    assert bench.books.acknowledged == 1
    assert bench.books.dropped == {"rejected_record": 1, "unaccounted": 2}
    assert "does not account for 2 of 4" in caplog.text
