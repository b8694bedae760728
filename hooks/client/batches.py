"""From queued items to numbered batches. Everything here runs on the sender's thread.

A batch is immutable once it has a number: its bytes are kept and sent again as they are. Work is done in small slices
with a pause between them, so that the training gets the interpreter lock.
"""

from __future__ import annotations

import gzip
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from initscope.hooks import vocabulary as v
from initscope.hooks.client.books import Ledger
from initscope.hooks.client.guard import Guard
from initscope.hooks.client.outline import Carried, Outline, clean
from initscope.hooks.client.queue import BoundedQueue, Item, Progress
from initscope.hooks.encoding import to_binary
from initscope.hooks.moments import TensorStats
from initscope.hooks.wire import Batch, Books, Header, Records, RunKey, Scalar, SessionKey

_ABOUT_CONTENT: Final = frozenset({400, 409, 413, 422})
"""Refusals that may be about the description which a batch carries; the others are about the sender or the address."""
_SLICE: Final = 64
"""Records between two pauses: about half a millisecond of Python."""
_PAUSE: Final = 0.001
_EAGER_BATCHES: Final = 10
_EAGER_LINGER: Final = 0.2
"""The first batches wait less: the first steps are what everybody watches."""


@dataclass(slots=True, eq=False)
class Draft:
    """Rows of one attempt that will share a batch. `last_step` None claims nothing."""

    progress: Progress
    records: Records = field(default_factory=Records.empty)
    scalars: list[Scalar] = field(default_factory=list)
    last_step: int | None = None

    @property
    def rows(self) -> int:
        """Records and scalars."""
        return len(self.records) + len(self.scalars)

    def halves(self) -> tuple[Draft, Draft]:
        """The same rows in two drafts; only the second can claim what the whole one did."""
        middle, cut = self.rows // 2, len(self.records)
        first = Draft(self.progress, _part(self.records, 0, middle), self.scalars[: max(0, middle - cut)])
        second = Draft(
            self.progress, _part(self.records, middle, cut), self.scalars[max(0, middle - cut) :], self.last_step
        )
        return first, second


@dataclass(slots=True, eq=False)
class Sealed:
    """A numbered batch and its bytes on the wire (gzipped)."""

    sequence: int
    body: bytes
    draft: Draft
    carried: Carried
    final: bool

    @property
    def rows(self) -> int:
        """Records and scalars that an answer decides about."""
        return self.draft.rows


@dataclass(slots=True, eq=False)
class _Source:
    """An item whose rows are being computed."""

    item: Item
    rows: Iterator[tuple[int, TensorStats]]
    produced: int = 0


class Assembler:
    """Makes batches of at most `limit` rows, one attempt each, in the order in which the items were queued."""

    def __init__(
        self,
        queue: BoundedQueue,
        ledger: Ledger,
        outline: Outline,
        guard: Guard,
        run: RunKey,
        session: SessionKey,
        books: Callable[[], Books],
        *,
        limit: int,
        linger: float,
    ) -> None:
        self._queue, self._ledger, self._outline, self._guard = queue, ledger, outline, guard
        self._run, self._session, self._books = run, session, books
        self._limit = max(1, min(limit, v.MAX_RECORDS_PER_BATCH, v.MAX_SCALARS_PER_BATCH))
        self._linger = linger
        self._sequence = 0
        self._source: _Source | None = None
        self._backlog: deque[Draft] = deque()
        self._since: float | None = None
        self._told = Progress(-1)
        self._highest: int | None = None
        self.hurry = False
        self.finished = False

    def run_key(self, progress: Progress) -> RunKey:
        """The run with the attempt that `progress` counts for."""
        return replace(self._run, attempt=progress.attempt)

    def due(self, now: float) -> bool:
        """Whether a batch should be made now: it is full, or its oldest part has waited long enough."""
        if self._backlog or self._source or self._queue.records >= self._limit:
            return True
        if not (self._queue.head() or self._outline.waiting or self._owes_progress()):
            self._since = None
            return False
        if self._since is None:
            self._since = now
        patience = min(self._linger, _EAGER_LINGER) if self._sequence < _EAGER_BATCHES else self._linger
        return now - self._since >= patience

    def next(self, status: v.RunStatus | None) -> Sealed | None:
        """The next batch, None if it could not be written. With a status, the batch that empties all carries it."""
        self._since = None
        draft = self._backlog.popleft() if self._backlog else self._fill()
        self._outline.absorb()
        if self._outline.overflows:
            self._backlog.appendleft(draft)
            draft = Draft(draft.progress)
        return self._seal(draft, status)

    def refused(self, sealed: Sealed, status: int) -> bool:
        """The collector will never take this batch: drops its rows; after a 413 sends them in two, under new numbers.

        True if there is something to try that was not tried before.
        """
        blamed = status in _ABOUT_CONTENT and self._outline.refused(sealed.carried)
        halved = status == 413 and sealed.rows > 1
        if halved:
            self._backlog.extendleft(reversed(sealed.draft.halves()))
        else:
            self._ledger.drop(f"rejected_{status}", sealed.rows)
        self.finished = sealed.final and not (halved or blamed)
        return halved or blamed

    def _owes_progress(self) -> bool:
        """Rows were sent before their step was over, and now it is: evaluation waits for that word."""
        now, told = self._queue.progress, self._told.reached
        if now.attempt != self._told.attempt or now.reached is None or self._highest is None:
            return False
        return (told is None or told < self._highest) and now.reached >= self._highest

    def _seal(self, draft: Draft, status: v.RunStatus | None) -> Sealed | None:
        carried = self._outline.carry()
        final = status is not None and not (
            self._backlog or self._source or self._outline.overflows or self._queue.head()
        )
        header = Header(
            run=self.run_key(draft.progress),
            session=self._session,
            sequence=self._sequence,
            last_step=draft.last_step,
            description=carried.description,
            tensors=list(carried.tensors),
            scalars=draft.scalars,
            status=status if final else None,
            books=self._books(),
            digests=dict(carried.digests),
        )
        self.finished = final
        with self._guard.shield("encoding of a batch"):
            body = gzip.compress(to_binary(Batch(header, draft.records)), 1, mtime=0)
            sealed = Sealed(self._sequence, body, draft, carried, final)
            self._sequence += 1
            self._note_progress(draft)
            return sealed
        self._ledger.drop("encoding_error", draft.rows)
        self._outline.give_up(carried)  # what cannot be written now cannot be written the next time
        return None

    def _note_progress(self, draft: Draft) -> None:
        if draft.progress.attempt != self._told.attempt:
            self._told, self._highest = Progress(draft.progress.attempt), None
        if draft.last_step is not None:
            self._told.reached = draft.last_step
        steps = [*draft.records.columns["step"], *(scalar.step for scalar in draft.scalars)]
        self._highest = max((int(step) for step in steps), default=self._highest)

    def _fill(self) -> Draft:
        # What is read first is certainly true of a queue that is found empty afterwards.
        latest = self._queue.progress
        reached = latest.reached
        head = self._source.item if self._source else self._queue.head()
        draft = Draft(head.progress if head else latest)
        while draft.rows < self._limit and (self._source or self._open(draft)):
            self._pour(draft)
        draft.last_step = self._covered(draft.progress, latest, reached)
        return draft

    def _covered(self, progress: Progress, latest: Progress, reached: int | None) -> int | None:
        """The step up to which every row of this attempt has been taken out of the queue, and out of its source."""
        head = self._source.item if self._source else self._queue.head()
        if head is not None and head.progress is progress:
            return head.reached
        return reached if latest is progress else progress.reached

    def _open(self, draft: Draft) -> bool:
        """Takes the next item of the draft's attempt; a scalar goes straight in."""
        head = self._queue.head()
        if head is None or head.progress is not draft.progress:
            return False
        item = self._queue.take()
        if item is None:
            return False
        if item.rows is None:
            self._add_scalar(draft, item)
        else:
            self._source = _Source(item, iter(()))
            with self._guard.shield("statistics of a step"):
                self._source.rows = iter(item.rows())
        return True

    def _add_scalar(self, draft: Draft, item: Item) -> None:
        with self._guard.shield("logged scalar"):
            value = float(item.value() if callable(item.value) else item.value)
            draft.scalars.append(Scalar(step=int(item.step), name=clean(item.name, v.MAX_NAME) or "?", value=value))
            return
        self._ledger.drop("conversion_error", 1)

    def _pour(self, draft: Draft) -> None:
        """One slice of the open item's rows, then a pause; closes the item when it has no more."""
        source = self._source
        if source is None:
            return
        alive = False
        with self._guard.shield("statistics of a step"):
            alive = self._slice(source, draft)
        if not alive:
            self._close(source)
        if not self.hurry:
            time.sleep(_PAUSE)

    def _slice(self, source: _Source, draft: Draft) -> bool:
        for _ in range(min(_SLICE, self._limit - draft.rows)):
            row = next(source.rows, None)
            if row is None:
                return False
            source.produced += 1
            if source.produced > source.item.count:
                self._ledger.record(1)  # more rows than announced are rows all the same
            self._add_record(draft.records, row, source.item.step)
        return True

    def _add_record(self, records: Records, row: tuple[int, TensorStats], step: int) -> None:
        with self._guard.shield("statistics of a step"):
            tensor, stats = row
            records.append(tensor, step, stats)
            return
        shortest = min(len(column) for column in records.columns.values())
        records.columns = {name: column[:shortest] for name, column in records.columns.items()}
        self._ledger.drop("conversion_error", 1)

    def _close(self, source: _Source) -> None:
        self._source = None
        self._ledger.drop("conversion_error", max(0, source.item.count - source.produced))


def _part(records: Records, start: int, end: int) -> Records:
    return Records({name: column[start:end] for name, column in records.columns.items()})
