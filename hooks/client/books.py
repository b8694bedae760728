"""The client's account of every record and scalar, exact at every instant."""

from __future__ import annotations

import threading

from initscope.hooks.wire import Books


class Ledger:
    """Holds recorded = acknowledged + pending + Σ dropped.

    Every method moves numbers in one step under `lock`, which is held for arithmetic only, never during work. It is
    reentrant, so that a finalizer or a signal handler that records inside a recording call cannot deadlock.
    """

    __slots__ = ("_acknowledged", "_dropped", "_pending", "_recorded", "closed", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.closed = False
        self._recorded = 0
        self._acknowledged = 0
        self._pending = 0
        self._dropped: dict[str, int] = {}

    def record(self, count: int) -> None:
        """`count` new rows wait to be delivered."""
        with self.lock:
            self._recorded += count
            self._pending += count

    def refuse(self, reason: str, count: int) -> None:
        """`count` new rows were dropped before they were queued."""
        with self.lock:
            self._recorded += count
            self._dropped[reason] = self._dropped.get(reason, 0) + count

    def acknowledge(self, count: int) -> None:
        """The collector has committed `count` of the pending rows."""
        with self.lock:
            moved = self._release(count)
            self._acknowledged += moved

    def drop(self, reason: str, count: int) -> None:
        """`count` of the pending rows will never be delivered."""
        with self.lock:
            moved = self._release(count)
            if moved:
                self._dropped[reason] = self._dropped.get(reason, 0) + moved

    def settle(self, reason: str) -> int:
        """Closes the books: what is still pending is dropped, and how much that was. Later moves change nothing."""
        with self.lock:
            left = self._pending
            self.drop(reason, left)
            self.closed = True
            return left

    def dropped(self, reason: str) -> int:
        """Rows dropped for one reason so far."""
        return self._dropped.get(reason, 0)

    def snapshot(self, hook_errors: int = 0) -> Books:
        """The account at this instant."""
        with self.lock:
            return Books(
                recorded=self._recorded,
                acknowledged=self._acknowledged,
                pending=self._pending,
                dropped=dict(self._dropped),
                hook_errors=hook_errors,
            )

    def _release(self, count: int) -> int:
        # An answer that arrives after `settle` finds nothing pending: those rows are already counted as dropped.
        moved = min(count, self._pending)
        self._pending -= moved
        return moved
