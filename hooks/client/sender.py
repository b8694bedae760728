"""The one background thread: makes batches, posts them and heartbeats, one request in flight at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from initscope.hooks import vocabulary as v
from initscope.hooks.client.answers import Later, Refused, Stored, judge, shares
from initscope.hooks.client.batches import Assembler, Sealed
from initscope.hooks.client.books import Ledger
from initscope.hooks.client.guard import Guard
from initscope.hooks.client.notices import LOGGER, warn
from initscope.hooks.client.outline import Outline
from initscope.hooks.client.pace import Pace
from initscope.hooks.client.transport import Transport, TransportError
from initscope.hooks.wire import MEDIA_BINARY

BATCHES: Final = "/api/v1/batches"
HEARTBEATS: Final = "/api/v1/heartbeats"
_BATCH_HEADERS: Final = {"Content-Type": MEDIA_BINARY, "Content-Encoding": "gzip", "User-Agent": "initscope-client"}
_BEAT_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "initscope-client"}
_TICK: Final = 0.05
"""How often an idle sender looks at the queue. The training thread wakes nobody: it would need a lock for that."""
_UNAUTHORIZED_PAUSE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How the run ended, and the monotonic time until which what is left may be sent."""

    status: v.RunStatus
    deadline: float


class Sender:
    """Runs until `finish`, then until everything is delivered or the deadline has passed."""

    def __init__(
        self,
        assembler: Assembler,
        transport: Transport,
        ledger: Ledger,
        outline: Outline,
        *,
        beat: Callable[[], bytes],
        beat_seconds: float,
        request_timeout: float,
        address: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._assembler, self._transport, self._ledger, self._outline = assembler, transport, ledger, outline
        self._beat_body, self._beat_seconds = beat, beat_seconds
        self._request_timeout = request_timeout
        self._address = address
        self._clock = clock
        self._guard = Guard(limit=None)
        self._pace = Pace()
        self._hand: Sealed | None = None
        self._next_beat = clock() + beat_seconds
        self._unreachable = False
        self._full_told = 0
        self._ending: Ending | None = None
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="initscope-sender", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def finish(self, status: v.RunStatus, deadline: float) -> None:
        """Asks the thread to deliver what is left until `deadline`, then to end. Does not wait."""
        self._ending = Ending(status, deadline)
        self._wake.put(None)

    def wait(self, deadline: float) -> None:
        """Waits until the thread has ended, or until `deadline`."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, deadline - self._clock()))

    def _run(self) -> None:
        running = True
        while running:
            failed = True
            with self._guard.shield("sender"):
                running = self.turn(self._clock())
                failed = False
            if failed:
                self._rest(1.0)
                running = self._ending is None or self._clock() < self._ending.deadline
        with contextlib.suppress(OSError):
            self._transport.close()

    def turn(self, now: float) -> bool:
        """Does the next thing, at most one request; False when the work is done. The thread does nothing else."""
        ending = self._ending
        if ending is not None:
            if not self._assembler.hurry:
                self._assembler.hurry = True
                self._pace.hasten(now)
            if (self._assembler.finished and not self._hand) or max(now, self._pace.rest) >= ending.deadline:
                return False
        self._tell_if_full()
        if now < self._pace.rest:
            self._rest(self._pace.rest - now)
        elif ending is None and now >= self._next_beat and not self._unreachable:
            self._beat()
        elif self._hand is not None:
            self._deliver(self._hand)
        elif ending is not None or self._assembler.due(now):
            self._hand = self._assembler.next(ending.status if ending else None)
        else:
            self._rest(_TICK)
        return True

    def _rest(self, seconds: float) -> None:
        """Sleeps; the word that the run ends cuts it short."""
        with contextlib.suppress(Empty):
            self._wake.get(timeout=min(seconds, 1.0))

    def _deadline(self) -> float:
        latest = self._clock() + self._request_timeout
        return min(latest, self._ending.deadline) if self._ending else latest

    def _deliver(self, sealed: Sealed) -> None:
        match self._exchange(BATCHES, sealed.body):
            case Stored() as stored:
                self._stored(sealed, stored)
            case Refused() as refused:
                self._refused(sealed, refused)
            case Later() as later:
                self._later(later)

    def _exchange(self, path: str, body: bytes) -> Stored | Refused | Later:
        headers = _BATCH_HEADERS if path == BATCHES else _BEAT_HEADERS
        try:
            answer = self._transport.post(path, body, headers, self._deadline())
        except TransportError as error:
            self._unreachable = True
            return Later(str(error))
        self._unreachable = False
        if path == HEARTBEATS and 200 <= answer.status < 300:
            return Stored(0, 0, duplicate=False)
        return judge(answer)

    def _stored(self, sealed: Sealed, stored: Stored) -> None:
        self._hand = None
        if self._pace.failures:
            LOGGER.info("initscope: the collector at %s takes data again", self._address)
        self._pace.succeeded()
        self._outline.acknowledge(sealed.carried)
        acknowledged, rejected, missing = shares(stored, sealed.rows)
        self._ledger.acknowledge(acknowledged)
        self._ledger.drop("rejected_record", rejected)
        self._ledger.drop("unaccounted", missing)
        if rejected:
            warn("initscope: the collector rejected %d of %d records: %s", rejected, sealed.rows, stored.message)
        if missing:
            warn("initscope: the collector's answer does not account for %d of %d records", missing, sealed.rows)

    def _refused(self, sealed: Sealed, refused: Refused) -> None:
        self._hand = None
        tries_otherwise = self._assembler.refused(sealed, refused.status)
        effect = f"{sealed.rows} records are dropped"
        if refused.status in (401, 403):
            self._unauthorized(refused, effect + ", ")
            return
        if not tries_otherwise:
            self._pace.failed(self._clock(), closing=self._ending is not None)
        if refused.status != 413 or not tries_otherwise:
            self._warn_refused(refused, effect)

    def _unauthorized(self, refused: Refused, effect: str = "") -> None:
        self._pace.pause(self._clock() + _UNAUTHORIZED_PAUSE)
        self._transport.close()  # the next connection reads the token file again
        self._warn_refused(refused, f"{effect}the next try is in {_UNAUTHORIZED_PAUSE:.0f} s")

    def _warn_refused(self, refused: Refused, effect: str) -> None:
        warn(
            "initscope: the collector at %s refuses data with %d, %s; %s. The training goes on",
            self._address, refused.status, refused.message, effect, about=refused.status,
        )  # fmt: skip

    def _later(self, later: Later) -> None:
        self._pace.failed(self._clock(), later.after, closing=self._ending is not None)
        self._warn_later(later)

    def _warn_later(self, later: Later) -> None:
        warn(
            "initscope: the collector at %s %s; data waits in memory and is sent later. The training goes on",
            self._address, later.reason, about=later.reason,
        )  # fmt: skip

    def _beat(self) -> None:
        """One heartbeat. The next is due 5 s after the answer to this one, so they never pile up."""
        outcome = self._exchange(HEARTBEATS, self._beat_body())
        wait = self._beat_seconds
        if isinstance(outcome, Refused):
            if outcome.status in (401, 403):
                self._unauthorized(outcome)
            else:
                self._warn_refused(outcome, "heartbeats are lost")
        elif isinstance(outcome, Later):
            wait = max(wait, min(outcome.after or 0.0, 300.0))
            self._warn_later(outcome)
        self._next_beat = self._clock() + wait

    def _tell_if_full(self) -> None:
        full = self._ledger.dropped("queue_full")
        if full > self._full_told and warn(
            "initscope: its queue is full, %d records are dropped so far; the training goes on", full
        ):
            self._full_told = full
