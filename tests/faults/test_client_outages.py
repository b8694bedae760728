"""Reliability goals C1, C2, C5 and C9 of the client: every kind of outage, at the start and in the middle."""

from __future__ import annotations

import time

import pytest

from initscope.hooks.client.client import Client
from tests.support.collector_stub import CollectorStub, Mode, closed_port
from tests.support.telemetry import balance, client, rows

LASTING = [mode for mode in Mode if mode not in (Mode.OK, Mode.TOO_LARGE, Mode.REJECT_FIRST)]
REFUSING = {Mode.UNAUTHORIZED: "401", Mode.FORBIDDEN: "403", Mode.NOT_FOUND: "404", Mode.UNPROCESSABLE: "422"}
STORING = (Mode.STORE_THEN_RESET, Mode.STORE_THEN_GARBAGE)


def work(job: Client, steps: range, count: int = 10) -> None:
    for step in steps:
        job.record(step, count, rows(count))
        job.scalar(step, "loss", 1.0)
        job.reached(step)
        assert balance(job.books) == 0


def close_in_time(job: Client, timeout: float) -> None:
    start = time.monotonic()
    books = job.close(timeout=timeout)
    assert time.monotonic() - start < timeout + 0.5 + 2  # two seconds for a busy machine
    assert books.pending == 0
    assert balance(books) == 0


@pytest.mark.parametrize("mode", LASTING)
def test_an_outage_from_the_start_costs_rows_that_are_counted_and_no_time(mode: Mode) -> None:
    with CollectorStub(mode) as stub:
        job = client(stub.url)
        work(job, range(20))
        assert stub.wait_until(lambda log: log.seen(mode))
        close_in_time(job, 0.6)
        books = job.books
        assert books.acknowledged <= len(stub.log.rows) + len(stub.log.scalars)
        assert books.acknowledged == 0 or mode in STORING
        reasons = {f"rejected_{REFUSING[mode]}", "flush_timeout"} if mode in REFUSING else {"flush_timeout"}
        assert set(books.dropped) <= reasons
        assert len(set(stub.log.rows)) == len(stub.log.rows)
        assert not stub.log.changed


@pytest.mark.parametrize("mode", LASTING)
def test_an_outage_in_the_middle_ends_and_nothing_is_lost_or_doubled(mode: Mode) -> None:
    with CollectorStub() as stub:
        job = client(stub.url, batch_records=30)
        work(job, range(10))
        assert stub.wait_until(lambda log: len(log.rows) == 100)
        stub.behave(mode, Mode.OK)
        work(job, range(10, 30))
        assert stub.wait_until(lambda log: log.seen(mode))
        if mode is Mode.BLACK_HOLE:
            stub.released.set()
        job.close(timeout=30 if mode not in (Mode.UNAUTHORIZED, Mode.FORBIDDEN) else 1)
        books = job.books
        assert books.acknowledged == len(stub.log.rows) + len(stub.log.scalars)
        assert len(set(stub.log.rows)) == len(stub.log.rows)
        assert not stub.log.changed
        assert bool(stub.log.duplicates) == (mode in STORING)
        if mode in REFUSING:
            assert 0 < books.dropped[f"rejected_{REFUSING[mode]}"] <= 30
        else:
            assert (books.recorded, books.dropped) == (330, {})
            assert books.acknowledged == 330


def test_a_collector_that_was_never_there_costs_rows_only() -> None:
    job = client(f"http://127.0.0.1:{closed_port()}")
    work(job, range(20))
    close_in_time(job, 0.5)
    assert job.books.dropped == {"flush_timeout": 220}


def test_a_name_that_does_not_resolve_costs_rows_only() -> None:
    job = client("http://no-such-host.invalid:8642")
    work(job, range(5))
    close_in_time(job, 0.5)
    assert job.books.dropped == {"flush_timeout": 55}


def test_a_resolver_that_hangs_delays_no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    asked = []

    def hangs(*question: object, **options: object) -> list[object]:  # noqa: ARG001
        asked.append(question)
        time.sleep(4)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    job = client("http://collector.example:8642")
    start = time.monotonic()
    work(job, range(5))
    assert time.monotonic() - start < 2
    while not asked:
        time.sleep(0.01)
    close_in_time(job, 0.3)
    assert job.books.dropped == {"flush_timeout": 55}


def test_a_collector_that_comes_late_gets_everything() -> None:
    port = closed_port()
    job = client(f"http://127.0.0.1:{port}")
    work(job, range(20))
    time.sleep(0.3)
    with CollectorStub(port=port) as stub:
        books = job.close(timeout=30)
        assert books.acknowledged == 220
        assert len(set(stub.log.rows)) == 200


def test_batches_that_are_too_large_are_split_until_they_fit() -> None:
    with CollectorStub(Mode.TOO_LARGE, most_rows=7) as stub:
        job = client(stub.url)
        work(job, range(10))
        books = job.close(timeout=30)
        assert books.acknowledged == 110
        assert sorted(stub.log.rows) == sorted((0, key, step) for step in range(10) for key in range(10))
        assert len(stub.log.treated) > len(stub.log.stored)


def test_a_record_that_the_collector_rejects_is_counted() -> None:
    with CollectorStub(Mode.REJECT_FIRST) as stub:
        job = client(stub.url)
        work(job, range(3))
        books = job.close(timeout=30)
        batches = sum(bool(len(batch.records)) for batch in stub.log.batches)
        assert books.dropped == {"rejected_record": batches}
        assert books.acknowledged == 33 - batches


def test_retry_after_is_honoured() -> None:
    with CollectorStub(Mode.SLOW_DOWN, Mode.OK, retry_after="1") as stub:
        job = client(stub.url)
        start = time.monotonic()
        work(job, range(1))
        assert stub.wait_until(lambda log: log.stored)
        assert time.monotonic() - start >= 1.0
        job.close(timeout=30)
        assert job.books.acknowledged == 11


def test_a_dead_collector_costs_bounded_memory() -> None:
    job = client(f"http://127.0.0.1:{closed_port()}", queue_bytes=2**20)
    work(job, range(2_000), count=50)
    assert job.books.dropped["queue_full"] > 0
    assert job.books.pending <= 2**20 / 192 + job.config.batch_records
    close_in_time(job, 0.2)
