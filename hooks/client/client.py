"""The client: what the probe calls on the training thread, and the end of the process."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from initscope.hooks import vocabulary as v
from initscope.hooks.client.batches import Assembler
from initscope.hooks.client.books import Ledger
from initscope.hooks.client.config import Config
from initscope.hooks.client.guard import Guard
from initscope.hooks.client.notices import warn
from initscope.hooks.client.outline import Outline
from initscope.hooks.client.queue import BoundedQueue, Item, RowSource
from initscope.hooks.client.sender import Sender
from initscope.hooks.client.transport import HttpTransport, Transport
from initscope.hooks.encoding import heartbeat_to_json
from initscope.hooks.wire import Books, Heartbeat, RunDescription, RunKey, SessionKey, TensorInfo


class Client:
    """Carries one session's records to the collector. No method but `close` ever waits, and `close` has a deadline.

    Making one touches no network; the sender's thread starts with the first thing to send. Without a url, when
    disabled, and in a forked child every method does nothing. `guard` may be shared with the hooks: its errors are in
    the books that travel.
    """

    def __init__(
        self,
        config: Config,
        run: RunKey,
        session: SessionKey,
        *,
        guard: Guard | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.config, self.run, self.session = config, run, session
        self.guard = guard or Guard()
        self._transport = transport
        self._inert = not config.active
        self._sender: Sender | None = None
        self._closed = False
        self._error_before = _last_error()
        self._reset()
        if not self._inert:
            _live[id(self)] = self

    def describe(self, description: RunDescription | None, tensors: Sequence[TensorInfo]) -> None:
        """Tells what the rows are about. It travels with every batch until one that carried it is acknowledged."""
        if self._inert:
            return
        with self.guard.shield("description"):
            if not self._outline.tell(description, tensors):
                warn("initscope: described too often while the collector was away; the newest description is lost")
            self._start()

    def replicas(self, digests: Mapping[str, str]) -> None:
        """What stands for this rank's parameters at the start, by full name. Travels as a description does."""
        if self._inert:
            return
        with self.guard.shield("digests"):
            self._outline.compare(digests)
            self._start()

    def record(self, step: int, count: int, rows: RowSource) -> bool:
        """Queues one sampled step: `rows()` will yield `count` pairs (tensor key, statistics) on the sender's thread.

        Returns at once, False if the rows were dropped (the books say why).
        """
        if self._inert:
            return False
        with self.guard.shield("queue"):
            taken = self._queue.put(Item(step, count, self._queue.progress, rows=rows))
            if self._sender is None:
                self._start()
            return taken
        return False

    def scalar(self, step: int, name: str, value: float | Callable[[], float]) -> bool:
        """Queues one logged number; a callable is called on the sender's thread. Otherwise as `record`."""
        if self._inert:
            return False
        with self.guard.shield("queue"):
            taken = self._queue.put(Item(step, 1, self._queue.progress, name=name, value=value))
            if self._sender is None:
                self._start()
            return taken
        return False

    def reached(self, step: int) -> None:
        """Every row up to `step` has been recorded."""
        self._queue.reached(step)

    def new_attempt(self) -> None:
        """The step went back: rows recorded from now on belong to the next attempt."""
        self._queue.new_attempt()

    @property
    def books(self) -> Books:
        """The account at this instant: recorded = acknowledged + pending + Σ dropped."""
        return self._ledger.snapshot(self.guard.errors)

    def close(self, status: v.RunStatus = v.RunStatus.FINISHED, timeout: float | None = None) -> Books:
        """Delivers what is left, for at most `timeout` seconds (default: the flush timeout), and ends the session.

        What is not delivered by then is dropped and counted as flush_timeout. A second call only returns the books.
        """
        with self.guard.shield("end of the run"):
            deadline = self._begin_close(status, timeout)
            self._end_close(deadline)
        return self.books

    def _begin_close(self, status: v.RunStatus, timeout: float | None) -> float | None:
        """Asks the sender to finish; the deadline, or None if there is nothing to wait for."""
        if self._closed or self._inert:
            return None
        self._closed = True
        deadline = time.monotonic() + (self.config.flush_timeout if timeout is None else max(0.0, timeout))
        if self._sender is not None:
            self._sender.finish(status, deadline)
        return deadline

    def _end_close(self, deadline: float | None) -> None:
        if deadline is None:
            return
        try:
            if self._sender is not None:
                self._sender.wait(deadline)
        finally:  # also when Ctrl-C ends the wait
            self._ledger.settle("flush_timeout")
            self._queue.clear()
            _live.pop(id(self), None)
        self._tell_losses()

    def _tell_losses(self) -> None:
        books = self.books
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(books.dropped.items()))
        if reasons:
            lost = sum(books.dropped.values())
            warn("initscope: %d of %d records were not delivered (%s)", lost, books.recorded, reasons, about=id(self))

    def _start(self) -> None:
        with self._ledger.lock:
            if self._sender is not None or self._closed or self.config.url is None:
                return
            self._sender = self._make_sender(self.config.url)
        self._sender.start()

    def _make_sender(self, url: str) -> Sender:
        config = self.config
        assembler = Assembler(
            self._queue, self._ledger, self._outline, Guard(limit=None), self.run, self.session, lambda: self.books,
            limit=config.batch_records, linger=config.linger,
        )  # fmt: skip
        return Sender(
            assembler,
            self._transport or HttpTransport(url, config.current_token, config.connect_timeout),
            self._ledger,
            self._outline,
            beat=lambda: heartbeat_to_json(self._heartbeat(assembler)),
            beat_seconds=config.heartbeat,
            request_timeout=config.request_timeout,
            address=url,
        )

    def _heartbeat(self, assembler: Assembler) -> Heartbeat:
        progress = self._queue.progress
        return Heartbeat(
            run=assembler.run_key(progress), session=self.session, last_step=progress.reached, books=self.books
        )

    def _reset(self) -> None:
        config = self.config
        self._ledger = Ledger()
        self._outline = Outline()
        self._queue = BoundedQueue(
            self._ledger, max_bytes=config.queue_bytes, max_items=config.queue_items, attempt=self.run.attempt
        )

    def _forget(self) -> None:
        """In a forked child: the thread is gone, locks may be held for ever, the connection is the parent's."""
        self._inert = True
        self._sender = None
        self._reset()

    def _status_at_exit(self) -> v.RunStatus:
        error = _last_error()
        failed = error is not None and error is not self._error_before and not hasattr(sys, "ps1")
        return v.RunStatus.FAILED if failed else v.RunStatus.FINISHED


_live: dict[int, Client] = {}
"""Clients that are not closed: kept alive, so that a forgotten one still delivers at the end of the process."""


def _last_error() -> BaseException | None:
    """The unhandled exception that ends the interpreter, as it notes it itself; no hook is installed."""
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None


def _close_all() -> None:
    """At exit without `close`. All clients flush at the same time, so that several wait no longer than one."""
    ending = []
    for client in list(_live.values()):
        with client.guard.shield("end of the run"):
            ending.append((client, client._begin_close(client._status_at_exit(), None)))
    for client, deadline in ending:
        with client.guard.shield("end of the run"):
            client._end_close(deadline)


def _forget_all() -> None:
    for client in list(_live.values()):
        client._forget()
    _live.clear()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
