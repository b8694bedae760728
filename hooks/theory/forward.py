"""The rms that these weights should give every output, from the weights that were measured.

q → fan_in·rms(w)²·E[φ(√q z)²] + rms(b)² from layer to layer (Poole et al. 2016). A norm gives rms(gain) whatever comes
in, a table the rms of its rows, a residual stream the sum of the mean squares of what was added. Where theory has
nothing to say (the first layer's input, attention's mixture, pooling, recurrence), the measured value is where the
next prediction begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.moments import TensorStats
from initscope.hooks.theory.activations import activation_name, kept
from initscope.hooks.theory.places import Link, Place
from initscope.hooks.vocabulary import Kind
from initscope.hooks.wire import TensorInfo


@dataclass(frozen=True, slots=True)
class Signal:
    """What an output is like: mean square, its part that differs between samples, and how far back the anchor lies.

    `fans` are the numbers of units (channels) that were averaged over since the last measured value it rests on.
    """

    square: float
    variance: float
    fans: tuple[float, ...] = ()
    is_predicted: bool = True


class Forward:
    """Predicts place after place; `signals` has every place that was predicted or measured, by path."""

    def __init__(
        self, tensors: Mapping[int, TensorInfo], stats: Mapping[int, TensorStats], links: Mapping[str, Link]
    ) -> None:
        self._stats = stats
        self._links = links
        self._tied = {_full_name(t): t for t in tensors.values() if t.kind is Kind.WEIGHT}
        self.signals: dict[str, Signal] = {}

    def run(self, places: Sequence[Place]) -> dict[str, Signal]:
        """Signals by path."""
        stream = _Stream(places)
        for at, place in enumerate(places):
            signal = stream.at_block(place, self.signals) if place.is_block else self._predict(place, places, at)
            signal = signal or self._measured(place.output)
            if signal is not None:
                self.signals[place.path] = signal
            stream.follow(place, signal)
        return self.signals

    def weight_square(self, layer: Layer) -> float | None:
        """Mean square of a layer's weights; None for weights with a mean that adds up over the inputs."""
        stats = self._record(layer.weight)
        if stats is None or stats.moments.nonfinite_count or not stats.moments.finite_count:
            return None
        square, mean = stats.moments.mean_square, stats.moments.mean
        # The mean of few elements differs from zero by luck alone.
        luck = _LUCK * square / stats.moments.finite_count
        is_shifted = mean * mean > max(luck, _SHIFT * square / max(1.0, layer.fan_in or 1.0))
        return None if is_shifted or not math.isfinite(square) else square

    def _predict(self, place: Place, places: Sequence[Place], at: int) -> Signal | None:
        if place.is_norm:
            return self._norm(place)
        if place.is_table and place.layer is not None:
            square = self._mean_square(place.layer.weight)
            return None if square is None else Signal(square, square)
        if place.is_plain:
            return self._layer(place)
        if place.activation is not None and at:
            return self._activation(place, places[at - 1])
        return None

    def _norm(self, place: Place) -> Signal | None:
        """1 · gain, and the shift: whatever the scale of what comes in (above the norm's ε)."""
        gain = self._mean_square(place.gain) if place.gain is not None else 1.0
        shift = self._mean_square(place.shift) if place.shift is not None else 0.0
        return None if gain is None or shift is None else Signal(gain + shift, gain)

    def _layer(self, place: Place) -> Signal | None:
        layer, link = place.layer, self._links.get(place.path)
        if layer is None or link is None or layer.fan_in is None or link.source.path not in self.signals:
            return None
        weight = self.weight_square(layer)
        source = self.signals[link.source.path]
        passed = kept(link.activation, source.square) if 0.0 < source.square < math.inf else None
        bias = self._mean_square(layer.bias) if layer.bias is not None else 0.0
        if weight is None or passed is None or bias is None:
            return None
        scale = layer.fan_in * weight * link.inside
        # Without an activation a source's own mean is what its signal already says.
        varying = passed.variance if link.activation else source.variance
        return Signal(scale * passed.square + bias, scale * varying, (*source.fans, layer.inputs))

    def _activation(self, place: Place, before: Place) -> Signal | None:
        """An activation right behind a layer or a norm that has the same shape."""
        source = self.signals.get(before.path)
        is_next = activation_name(before.output.activation_after) == place.activation
        is_same = before.output.shape == place.output.shape and (before.is_plain or before.is_norm)
        if source is None or not is_next or not is_same or before.is_branch or not 0.0 < source.square < math.inf:
            return None
        if self._calls(place.output) != self._calls(before.output):
            return None  # one module in several places: its record is of all of them
        passed = kept(place.activation, source.square)
        # Behind a measured layer the luck of its own units counts; a predicted one has it counted by the next layer.
        fans = source.fans if source.is_predicted else (_units(before.output),)
        return None if passed is None else Signal(passed.square, passed.variance, fans)

    def _calls(self, output: TensorInfo) -> float | None:
        """Outputs of that shape that a record was merged from."""
        stats = self._record(output)
        return None if stats is None else round(stats.moments.count / max(1, math.prod(output.shape)), 3)

    def _measured(self, tensor: TensorInfo) -> Signal | None:
        square = self._mean_square(tensor)
        return None if square is None else Signal(square, square, is_predicted=False)

    def _mean_square(self, tensor: TensorInfo | None) -> float | None:
        stats = self._record(tensor)
        square = stats.moments.mean_square if stats is not None and not stats.moments.nonfinite_count else math.nan
        return square if math.isfinite(square) else None

    def _record(self, tensor: TensorInfo | None) -> TensorStats | None:
        """A tensor's record, or that of the tensor it is tied with: one of them is measured."""
        if tensor is None:
            return None
        found = self._stats.get(tensor.key)
        if found is None and tensor.tied_with:
            other = self._tied.get(tensor.tied_with)
            found = None if other is None else self._stats.get(other.key)
        return found


class _Stream:
    """The residual stream: its mean square, and the branches of the block under way."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._sum: Signal | None = None
        self._waiting: dict[str, Signal | None] = {}
        self._last: Place | None = None
        self._acts = {p.path: _activation_next(places[i + 1 :]) for i, p in enumerate(places) if p.is_block}

    def follow(self, place: Place, signal: Signal | None) -> None:
        """Takes in a place: a table at the start, a branch, a block that could not be predicted."""
        if place.is_table and signal is not None:
            self._sum = signal if self._sum is None else _added(self._sum, [signal])
        elif place.is_block:
            self._sum = signal
            self._waiting.clear()
        elif place.is_branch:
            if place.layer is None and self._waiting:
                # A norm or a scale at the end of a branch replaces what its layer made.
                self._waiting.popitem()
            self._waiting[place.path] = signal
        if not place.is_block:
            self._last = place

    def at_block(self, block: Place, signals: Mapping[str, Signal]) -> Signal | None:
        """What a block's output should be: stream and branches, or what a norm at its end gives."""
        last = self._last
        if last is None or not last.path.startswith(block.path + "."):
            return None
        if last.is_norm and not last.is_branch and self._waiting:
            return signals.get(last.path)
        branches = [s for s in self._waiting.values() if s is not None]
        if self._sum is None or not last.is_branch or self._acts[block.path] or len(branches) < len(self._waiting):
            return None
        return _added(self._sum, branches) if branches else self._sum


def _added(start: Signal, branches: Sequence[Signal]) -> Signal:
    fans = max((s.fans for s in [start, *branches]), key=lambda fans: sum(1.0 / n for n in fans))
    square = start.square + sum(b.square for b in branches)
    return Signal(square, start.variance + sum(b.variance for b in branches), fans)


def _activation_next(after: Sequence[Place]) -> bool:
    """Whether the sum goes through an activation, as in ResNets: nobody can say what it keeps of a stream."""
    layer = next((p.layer for p in after if p.layer is not None and p.is_plain), None)
    return layer is not None and bool(layer.activation_before) and not layer.norm_before


def _units(output: TensorInfo) -> float:
    """Units or channels of an output."""
    shape = output.shape
    return float(shape[1] if len(shape) > 3 else shape[-1]) if len(shape) > 1 else math.inf


def _full_name(tensor: TensorInfo) -> str:
    return f"{tensor.module_path}.{tensor.name}" if tensor.module_path else tensor.name


_SHIFT: Final = 0.1
"""Share of fan_in·mean² in the mean square of weights from which their outputs are no sum of independent terms."""
_LUCK: Final = 16.0
"""Squared standard errors within which a mean counts as zero."""
