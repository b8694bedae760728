"""The bounded queue between the training threads and the sender."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from initscope.hooks.client.books import Ledger
from initscope.hooks.moments import TensorStats

RowSource = Callable[[], Iterable[tuple[int, TensorStats]]]

RECORD_BYTES: Final = 192
"""What a record is assumed to hold in memory until it is sent: 17 numbers of 8 bytes, and its share of the rest."""
ITEM_BYTES: Final = 512
"""What an item holds besides its records: the closure, the object itself, its place in the queue."""


@dataclass(slots=True, eq=False)
class Progress:
    """How far an attempt has come. `reached`: every row up to this step is in the queue or has left it."""

    attempt: int
    reached: int | None = None


@dataclass(slots=True, eq=False)
class Item:
    """One sampled step's rows, not yet computed, or one scalar (`rows` is None)."""

    step: int
    count: int
    progress: Progress
    rows: RowSource | None = None
    name: str = ""
    value: float | Callable[[], float] = 0.0
    reached: int | None = field(init=False)
    """What had been reached before this item: that much is certainly in front of it."""

    def __post_init__(self) -> None:
        self.reached = self.progress.reached

    @property
    def size(self) -> int:
        """Bytes that this item is taken to hold."""
        return ITEM_BYTES + self.count * RECORD_BYTES


class BoundedQueue:
    """Takes items from any thread without waiting; bounded in bytes and in items; drops the newest when full.

    An item goes in and into the books in one step under the ledger's lock.
    """

    __slots__ = ("_bytes", "_items", "_ledger", "_max_bytes", "_max_items", "progress", "records")

    def __init__(self, ledger: Ledger, *, max_bytes: int, max_items: int, attempt: int) -> None:
        self._ledger = ledger
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._max_items = max_items
        self.records = 0
        self.progress = Progress(attempt)

    def put(self, item: Item) -> bool:
        """Queues the item, or drops and counts it; never waits."""
        ledger, size = self._ledger, item.size
        with ledger.lock:
            if ledger.closed:
                ledger.refuse("closed", item.count)
                return False
            if self._bytes + size > self._max_bytes or len(self._items) >= self._max_items:
                ledger.refuse("queue_full", item.count)
                return False
            ledger.record(item.count)
            self._bytes += size
            self.records += item.count
            self._items.append(item)
        return True

    def take(self) -> Item | None:
        """The oldest item, which leaves the queue but not the books."""
        with self._ledger.lock:
            if not self._items:
                return None
            item = self._items.popleft()
            self._bytes -= item.size
            self.records -= item.count
            return item

    def head(self) -> Item | None:
        """The oldest item, left where it is. Only the sender takes, so it stays the oldest."""
        with self._ledger.lock:
            return self._items[0] if self._items else None

    def clear(self) -> None:
        """Lets go of everything that waits (the books are settled by the caller)."""
        with self._ledger.lock:
            self._items.clear()
            self._bytes = self.records = 0

    def reached(self, step: int) -> None:
        """Every row up to `step` has been put."""
        self.progress.reached = step

    def new_attempt(self) -> None:
        """Items put from now on belong to the next attempt, which has reached nothing yet."""
        self.progress = Progress(self.progress.attempt + 1)
