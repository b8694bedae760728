from __future__ import annotations

import threading
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from initscope.hooks.client.books import Ledger
from tests.support.bench_sender import BenchSender
from tests.support.telemetry import STATS, balance, rows, tensors

FATES: list[str | int] = [
    "stored", "stored", "lost_answer", "unreachable", "reject", "garbage", 400, 404, 401, 413, 422, 429, 500, 503,
]  # fmt: skip


class Account(RuleBasedStateMachine):
    """Whatever happens between the job and the collector, every row is in exactly one place."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = BenchSender(limit=5, max_items=12, max_bytes=24 * 1024)
        self.next_key = 0
        self.announced = 0
        self.settled = False

    def key(self, count: int) -> int:
        self.next_key += count
        self.announced += count
        return self.next_key - count

    @rule(count=st.integers(1, 12), step=st.integers(0, 5))
    def record(self, count: int, step: int) -> None:
        self.bench.record(step, count, rows(count, self.key(count)))

    @rule(value=st.sampled_from([1.0, lambda: 2.0, lambda: 1 / 0, float("nan")]))
    def log_a_scalar(self, value: Any) -> None:
        self.announced += 1
        self.bench.scalar(1, "loss", value)

    @rule(count=st.integers(2, 6), good=st.integers(0, 5))
    def record_rows_that_break_off(self, count: int, good: int) -> None:
        first = self.key(count)

        def breaking() -> Any:
            yield from [(first + i, STATS) for i in range(min(good, count - 1))]
            raise RuntimeError("the device is gone")

        self.bench.record(1, count, breaking)

    @rule(count=st.integers(1, 4))
    def record_a_row_that_is_none(self, count: int) -> None:
        first = self.key(count)
        self.bench.record(1, count, lambda: [("key", STATS), *((first + i, STATS) for i in range(1, count))])  # type: ignore[arg-type, list-item]

    @rule()
    def record_more_rows_than_announced(self) -> None:
        if self.bench.record(1, 1, rows(3, self.key(3))):
            return
        self.announced -= 2  # refused with the announced count

    @rule(step=st.integers(0, 5))
    def reach(self, step: int) -> None:
        self.bench.queue.reached(step)

    @rule()
    def go_back(self) -> None:
        self.bench.queue.new_attempt()

    @rule(count=st.integers(0, 3))
    def describe(self, count: int) -> None:
        self.bench.outline.tell(None, tensors(count))

    @rule(fate=st.sampled_from(FATES), turns=st.integers(1, 4), most_rows=st.integers(1, 20))
    def turn(self, fate: str | int, turns: int, most_rows: int) -> None:
        self.bench.transport.fate, self.bench.transport.most_rows = fate, most_rows
        for _ in range(turns):
            if self.bench.assembler.due(self.bench.now + 100) or self.bench.sender._hand:
                self.bench.turn()

    @precondition(lambda self: not self.settled)
    @rule(late=st.booleans())
    def settle(self, late: bool) -> None:
        self.settled = late
        if late:
            self.bench.ledger.settle("flush_timeout")

    @invariant()
    def the_books_balance(self) -> None:
        books = self.bench.books
        assert balance(books) == 0
        assert min(books.acknowledged, books.pending, *books.dropped.values(), 0) >= 0

    @invariant()
    def every_acknowledged_row_is_stored_once(self) -> None:
        transport = self.bench.transport
        assert len(transport.rows) == len(set(transport.rows))
        acknowledged = sum(transport.told.values())
        assert acknowledged <= len(transport.rows) + len(transport.scalars)
        if not self.settled:
            assert self.bench.books.acknowledged == acknowledged

    def teardown(self) -> None:
        bench = self.bench
        bench.transport.fate, bench.transport.most_rows = "stored", 10_000
        bench.finish()
        self.the_books_balance()
        self.every_acknowledged_row_is_stored_once()
        assert bench.books.pending == 0
        assert bench.books.recorded <= self.announced  # rows beyond the announced count of a broken source are not seen
        assert "unaccounted" not in bench.books.dropped


Account.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAccount = Account.TestCase


def test_threads_that_record_at_once_lose_no_count() -> None:
    ledger = Ledger()

    def work() -> None:
        for _ in range(2_000):
            ledger.record(3)
            ledger.acknowledge(1)
            ledger.drop("a", 1)
            ledger.refuse("b", 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    snapshots = [ledger.snapshot() for _ in range(500)]
    for thread in threads:
        thread.join()
    assert all(balance(books) == 0 for books in snapshots)
    books = ledger.snapshot()
    assert (books.recorded, books.acknowledged, books.pending) == (32_000, 8_000, 8_000)
    assert books.dropped == {"a": 8_000, "b": 8_000}


def test_what_comes_after_the_books_are_closed_changes_nothing() -> None:
    ledger = Ledger()
    ledger.record(5)
    assert ledger.settle("flush_timeout") == 5
    ledger.acknowledge(3)
    ledger.drop("rejected_500", 2)
    books = ledger.snapshot()
    assert (books.recorded, books.acknowledged, books.dropped) == (5, 0, {"flush_timeout": 5})
