"""Two runs, or two initializations, side by side by depth: how far their scales lie apart, and where that begins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from initscope.hooks.comparison.luck import Luck, luck_of, sampling_error
from initscope.hooks.comparison.pairing import Pairing, pair_modules
from initscope.hooks.moments import TensorStats
from initscope.hooks.schemes import Recognition, Scheme
from initscope.hooks.vocabulary import Kind
from initscope.hooks.wire import TensorInfo

THRESHOLD: Final = 0.25
"""Octaves of rms beyond which two layers part: a factor of 1.19, half the step from Xavier to He."""
_BACKWARD: Final = frozenset({Kind.ACTIVATION_GRADIENT, Kind.GRADIENT})
_LUCKS: Final = 2.0
"""Standard deviations of luck that are granted on top of the threshold."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model at one step: descriptions and records, both by tensor key; and what its first step's weights say."""

    tensors: Mapping[int, TensorInfo]
    stats: Mapping[int, TensorStats]
    recognition: Recognition | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A tensor of A beside its counterpart in B; a record is None where that run has none at its step.

    `octaves` is log2(rms of B ÷ rms of A): infinite if one of them is exactly zero, None if one has no record or no
    finite element. `luck` is what two seeds of one scheme lie apart, one standard deviation in octaves.
    """

    layer: int
    """Index in the comparison's `pairing.modules`."""
    a: TensorInfo
    b: TensorInfo
    stats_a: TensorStats | None
    stats_b: TensorStats | None
    octaves: float | None
    luck: float
    parts: bool
    """Whether they differ: by more than the threshold and luck allow, or by numbers that are not finite in one only."""

    @property
    def kind(self) -> Kind:
        """What both are."""
        return self.a.kind

    @property
    def size(self) -> float:
        """For sorting: |octaves|, infinite where only one is finite, −1 where nothing can be compared."""
        if self.stats_a is None or self.stats_b is None:
            return -1.0
        if _is_broken(self.stats_a) != _is_broken(self.stats_b):
            return math.inf
        return -1.0 if self.octaves is None else abs(self.octaves)


@dataclass(frozen=True, slots=True)
class SchemePair:
    """The schemes that a matrix of A and its counterpart in B were drawn by."""

    layer: int
    """Index in the comparison's `pairing.modules`."""
    name: str
    a: Scheme
    b: Scheme

    @property
    def is_same(self) -> bool:
        """Whether both are told to be of one scheme, or one of them may be the other's."""
        return self.a.name == self.b.name or self.a.name in self.b.alternatives or self.b.name in self.a.alternatives


@dataclass(frozen=True, slots=True)
class KindSummary:
    """All tensors of a kind. `first` is where they part on the signal's way: from the input, or back from the loss."""

    kind: Kind
    compared: int
    parted: int
    first: Difference | None
    largest: Difference | None
    median_octaves: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models side by side; differences in the forward order of A, and by kind inside a layer."""

    pairing: Pairing
    differences: tuple[Difference, ...]
    kinds: tuple[KindSummary, ...]
    threshold: float
    schemes: tuple[SchemePair, ...] = ()
    """Of every matrix, in forward order, if both snapshots have been recognised."""

    @property
    def is_equal(self) -> bool:
        """Whether every layer has a counterpart and none parts from it."""
        return not (self.pairing.only_a or self.pairing.only_b or any(d.parts for d in self.differences))


def compare(
    a: Snapshot, b: Snapshot, *, threshold: float = THRESHOLD, kinds: Sequence[Kind] = tuple(Kind)
) -> Comparison:
    """Compares the rms of corresponding tensors of some kinds; `threshold` in octaves."""
    pairing = pair_modules(a.tensors, b.tensors)
    lucks = luck_of(a.tensors), luck_of(b.tensors)
    wanted = frozenset(kinds)
    differences = tuple(
        _difference(layer, one, other, (a.stats.get(one.key), b.stats.get(other.key)), lucks, threshold)
        for layer, pair in enumerate(pairing.modules)
        for one, other in pair.tensors
        if one.kind in wanted and (one.key in a.stats or other.key in b.stats)
    )
    schemes = tuple(_schemes(pairing, a.recognition, b.recognition))
    return Comparison(pairing, differences, tuple(_summaries(differences, wanted)), threshold, schemes)


def octaves_between(a: TensorStats | None, b: TensorStats | None) -> float | None:
    """log2(rms of b ÷ rms of a); 0 for two zeros, infinite for one."""
    if a is None or b is None:
        return None
    x, y = a.moments.rms, b.moments.rms
    if math.isnan(x) or math.isnan(y):
        return None
    if x == y:
        return 0.0
    if x == 0.0 or y == 0.0:
        return math.inf if x == 0.0 else -math.inf
    return math.log2(y) - math.log2(x)


def _difference(
    layer: int,
    a: TensorInfo,
    b: TensorInfo,
    stats: tuple[TensorStats | None, TensorStats | None],
    lucks: tuple[Luck, Luck],
    threshold: float,
) -> Difference:
    octaves = octaves_between(*stats)
    spread = [luck.of(tensor) for luck, tensor in zip(lucks, (a, b), strict=True)]
    # Elements of a weight are drawn one by one; those of an output share their layer's inputs.
    spread += [sampling_error(s.moments) for s in stats if s is not None and a.kind is Kind.WEIGHT]
    luck = math.hypot(*spread)
    parts = octaves is not None and abs(octaves) > threshold + _LUCKS * luck
    if stats[0] is not None and stats[1] is not None:
        parts = parts or _is_broken(stats[0]) != _is_broken(stats[1])
    return Difference(layer, a, b, *stats, octaves, luck, parts)


def _is_broken(stats: TensorStats) -> bool:
    return stats.moments.nonfinite_count > 0


def _schemes(pairing: Pairing, a: Recognition | None, b: Recognition | None) -> Iterable[SchemePair]:
    if a is None or b is None:
        return
    for layer, pair in enumerate(pairing.modules):
        for one, other in pair.tensors:
            if one.key in a.by_key and other.key in b.by_key:
                yield SchemePair(layer, one.name, a.by_key[one.key], b.by_key[other.key])


def _summaries(differences: Sequence[Difference], wanted: frozenset[Kind]) -> Iterable[KindSummary]:
    for kind in Kind:
        mine = [d for d in differences if d.kind is kind and d.size >= 0.0]
        if kind not in wanted or not mine:
            continue
        parted = [d for d in mine if d.parts]
        first = None
        if parted:
            first = parted[-1] if kind in _BACKWARD else parted[0]
        largest = max(mine, key=lambda d: d.size)
        middle = [d.octaves for d in mine if d.octaves is not None and math.isfinite(d.octaves)]
        yield KindSummary(kind, len(mine), len(parted), first, largest, median(middle) if middle else None)
