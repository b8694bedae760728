"""A sender without its thread and with a clock of its own: a test turns it by hand."""

from __future__ import annotations

from typing import Any

from initscope.hooks.client.batches import Assembler
from initscope.hooks.client.books import Ledger
from initscope.hooks.client.guard import Guard
from initscope.hooks.client.outline import Outline
from initscope.hooks.client.queue import BoundedQueue, Item, RowSource
from initscope.hooks.client.sender import Sender
from initscope.hooks.vocabulary import RunStatus
from initscope.hooks.wire import Books
from tests.support.memory_transport import MemoryTransport
from tests.support.telemetry import RUN, SESSION


class _NeverResting(Sender):
    """Time passes by `BenchSender.turn` alone."""

    def _rest(self, seconds: float) -> None:
        pass


class BenchSender:
    """Queue, assembler and sender, put together as the client does it."""

    def __init__(self, *, limit: int = 8, max_bytes: int = 2**24, max_items: int = 1_000) -> None:
        self.now = 100.0
        self.ledger, self.outline, self.transport = Ledger(), Outline(), MemoryTransport()
        self.queue = BoundedQueue(self.ledger, max_bytes=max_bytes, max_items=max_items, attempt=0)
        self.assembler = Assembler(
            self.queue, self.ledger, self.outline, Guard(limit=None), RUN, SESSION, self.ledger.snapshot,
            limit=limit, linger=1.0,
        )  # fmt: skip
        self.assembler.hurry = True  # no pauses; `finish` is not meant by it here
        self.sender = _NeverResting(
            self.assembler, self.transport, self.ledger, self.outline,
            beat=lambda: b"{}", beat_seconds=1e9, request_timeout=10.0, address="memory", clock=lambda: self.now,
        )  # fmt: skip

    @property
    def books(self) -> Books:
        return self.ledger.snapshot()

    def record(self, step: int, count: int, source: RowSource) -> bool:
        return self.queue.put(Item(step, count, self.queue.progress, rows=source))

    def scalar(self, step: int, name: str, value: Any) -> bool:
        return self.queue.put(Item(step, 1, self.queue.progress, name=name, value=value))

    def turn(self, times: int = 1, *, seconds: float = 100.0) -> bool:
        """So much time passes, then the sender does one thing; and again. True while it wants to go on."""
        going = True
        for _ in range(times):
            self.now += seconds
            going = self.sender.turn(self.now)
        return going

    def drain(self) -> None:
        """Turns until nothing is pending."""
        for _ in range(1_000):
            if not self.books.pending and not self.outline.waiting:
                return
            self.turn()
        raise AssertionError(f"still pending: {self.books}")

    def finish(self, status: RunStatus = RunStatus.FINISHED) -> int:
        """Ends the run; the turns it took."""
        self.sender.finish(status, self.now + 1e9)
        turns = 1
        while self.turn(seconds=1.0):
            turns += 1
            assert turns < 1_000, self.books
        return turns
