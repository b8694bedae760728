"""A take: everything measured at one step, packed so that it leaves each device in one copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from initscope.hooks.moments import ABSENT, ChannelStats, Moments, TensorStats
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
    dead: Cell | None = None
    rows_alike: Cell | None = None

    def add_sums(self, sums: SampleSums | None) -> None:
        """Another call's sums over samples."""
        if sums is None:
            return
        if self.sums is None:
            self.sums = sums
        elif not self.sums.add(sums):
            self.mixed = True


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
        packed = [(key, _packed(row, pack)) for key, row in self.rows.items() if row.parts]
        self.rows = {}
        pack.send()
        return len(packed), _Once(lambda: [(key, make(pack)) for key, make in packed])


Place = Sequence[float] | tuple[torch.device, int, int]


class _Pack:
    """Vectors of a device, one after the other."""

    def __init__(self) -> None:
        self._vectors: dict[torch.device, list[torch.Tensor]] = {}
        self._sizes: dict[torch.device, int] = {}
        self._sent: dict[torch.device, tuple[torch.Tensor, Any]] = {}
        self._read: dict[torch.device, list[float]] = {}

    def place(self, cell: Cell) -> Any:
        """Where `read` finds a cell."""
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
                host = torch.empty(buffer.shape, dtype=buffer.dtype, pin_memory=True)
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


def _packed(row: Row, pack: _Pack) -> Callable[[_Pack], TensorStats]:
    parts = [(count, pack.place(cell)) for count, cell in row.parts]
    saturated = [(count, pack.place(cell)) for count, cell in row.saturated.get(row.flat or "", ())]
    sums = None if row.sums is None or row.mixed else (pack.place(row.sums.vector), row.sums.samples)
    dead = None if row.dead is None else pack.place(row.dead)
    alike = None if row.rows_alike is None else pack.place(row.rows_alike)

    def make(pack: _Pack) -> TensorStats:
        moments = Moments()
        for count, place in parts:
            moments = moments.merge(to_moments(count, pack.read(place)))
        return TensorStats(
            moments,
            ChannelStats(
                signal_fraction=ABSENT if sums is None else signal_fraction(pack.read(sums[0]), sums[1]),
                dead_fraction=ABSENT if dead is None else pack.read(dead)[0],
                saturated_fraction=_share(saturated, pack),
                row_similarity=ABSENT if alike is None else similarity(*pack.read(alike)),
            ),
        )

    return make


def _share(parts: list[tuple[int, Any]], pack: _Pack) -> float:
    total = sum(count for count, _ in parts)
    return sum(pack.read(place)[0] for _, place in parts) / total if total else ABSENT


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
