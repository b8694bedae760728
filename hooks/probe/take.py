"""A take: everything measured at one step, packed so that it leaves each device in one copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from initscope.hooks.moments import ABSENT, ChannelStats, TensorStats
from initscope.hooks.probe.channels import SampleSums, signal_fraction, similarity
from initscope.hooks.probe.reduce import Cell, Part, to_moments

Record = tuple[int, TensorStats]
"""(tensor key, statistics)."""


@dataclass(slots=True)
class Row:
    """What was measured of one tensor at this step, over all calls and micro-batches."""

    parts: list[Part] = field(default_factory=list)
    sums: SampleSums | None = None
    mixed: bool = False
    """Whether calls had different channels, so that their sums do not add up."""
    saturated: dict[str, list[Part]] = field(default_factory=dict)
    """Elements in the flat part, by the activation that it would be flat for."""
    flat: str | None = None
    """The activation that it is."""
    dead: Any = None
    rows_alike: Any = None
    """Cells; once the row is placed, the places of those that are on a device."""
    signal: Any = None

    def add_sums(self, sums: SampleSums | None) -> None:
        """Another call's sums over samples."""
        if sums is None:
            return
        if self.sums is None:
            self.sums = sums
        elif not self.sums.add(sums):
            self.mixed = True

    def place(self, pack: _Pack) -> None:
        """Puts what is on a device into its pack."""
        self.parts = [(count, pack.place(cell)) for count, cell in self.parts]
        flat = self.saturated.get(self.flat or "", ())
        self.saturated = {"": [(count, pack.place(cell)) for count, cell in flat]} if flat else {}
        if self.sums is not None and not self.mixed and (cell := self.sums.cell()) is not None:
            self.signal = (pack.place(cell), self.sums.samples)
        self.sums = None
        self.dead = pack.place(self.dead)
        self.rows_alike = pack.place(self.rows_alike)

    def stats(self, pack: _Pack) -> TensorStats:
        """The record of a placed row."""
        moments = to_moments(self.parts[0][0], pack.read(self.parts[0][1]))
        for count, place in self.parts[1:]:
            moments = moments.merge(to_moments(count, pack.read(place)))
        return TensorStats(
            moments,
            ChannelStats(
                signal_fraction=self._signal_fraction(pack),
                dead_fraction=ABSENT if self.dead is None else pack.read(self.dead)[0],
                saturated_fraction=self._saturated_fraction(pack),
                row_similarity=ABSENT if self.rows_alike is None else similarity(*pack.read(self.rows_alike)),
            ),
        )

    def _signal_fraction(self, pack: _Pack) -> float:
        if self.signal is None:
            return ABSENT
        place, samples = self.signal
        common, square = pack.read(place)
        return signal_fraction(common, square, samples)

    def _saturated_fraction(self, pack: _Pack) -> float:
        parts = self.saturated.get("", ())
        total = sum(count for count, _ in parts)
        return sum(pack.read(place)[0] for _, place in parts) / total if total else ABSENT


@dataclass(slots=True)
class Take:
    """The rows of one step by tensor key. Once sealed it takes no more."""

    step: int
    rows: dict[int, Row] = field(default_factory=dict)
    has_weights: bool = False
    forwards: int = 0
    backwards: int = 0
    sealed: bool = False

    def row(self, key: int) -> Row:
        """The row of a tensor, new if it has none yet."""
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = Row()
        return row

    def forget(self, keys: set[int]) -> None:
        """Drops rows: what a skipped step showed belongs to no step."""
        for key in keys:
            self.rows.pop(key, None)

    def seal(self) -> tuple[int, Callable[[], list[Record]]]:
        """(number of records, function that makes them): the copies are on their way, nothing is waited for here."""
        self.sealed = True
        pack = _Pack()
        rows = [(key, row) for key, row in self.rows.items() if row.parts]
        self.rows = {}
        for _, row in rows:
            row.place(pack)
        pack.send()
        return len(rows), _Once(lambda: [(key, row.stats(pack)) for key, row in rows])


class _Pack:
    """Vectors of a device, one after the other."""

    def __init__(self) -> None:
        self._vectors: dict[torch.device, list[torch.Tensor]] = {}
        self._sizes: dict[torch.device, int] = {}
        self._sent: dict[torch.device, tuple[torch.Tensor, Any]] = {}
        self._read: dict[torch.device, list[float]] = {}

    def place(self, cell: Cell | None) -> Any:
        """Where `read` finds a cell: a tensor goes into the pack, numbers stay where they are."""
        if not isinstance(cell, torch.Tensor):
            return cell
        start = self._sizes.get(cell.device, 0)
        self._sizes[cell.device] = start + cell.numel()
        self._vectors.setdefault(cell.device, []).append(cell)
        return (cell.device, start, start + cell.numel())

    def send(self) -> None:
        """Starts one copy a device; an event says when it is there."""
        for device, vectors in self._vectors.items():
            buffer = torch.cat(vectors)
            if device.type == "cuda":
                host = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu", pin_memory=True)
                host.copy_(buffer, non_blocking=True)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(torch.cuda.current_stream(device))
                self._sent[device] = (host, event)
            else:
                self._sent[device] = (buffer, None)
        self._vectors.clear()

    def read(self, place: Any) -> Sequence[float]:
        """The numbers at a place; waits for the copy (never on the training thread)."""
        if not isinstance(place, tuple):
            return place  # type: ignore[no-any-return]
        device, start, stop = place
        if device not in self._read:
            buffer, event = self._sent.pop(device)
            if event is not None:
                event.synchronize()
            self._read[device] = buffer.tolist()
        return self._read[device][start:stop]


class _Once:
    """A function without arguments that runs once, whichever thread asks first."""

    def __init__(self, make: Callable[[], list[Record]]) -> None:
        self._make: Callable[[], list[Record]] | None = make
        self._made: list[Record] = []
        self._lock = threading.Lock()

    def __call__(self) -> list[Record]:
        with self._lock:
            if self._make is not None:
                self._made = self._make()
                self._make = None
            return self._made
