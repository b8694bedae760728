"""What a window says of layers: scale, drift along a chain, how much of an output depends on the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.moments import TensorStats
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import BOUNDED, activation_name, width_tolerance
from initscope.hooks.wire import TensorInfo


def octaves(value: float | None) -> float | None:
    """log2 of a positive finite number; None otherwise."""
    return math.log2(value) if value is not None and 0.0 < value < math.inf else None


def rms(stats: TensorStats | None) -> float | None:
    """A record's rms where it is finite."""
    value = stats.moments.rms if stats is not None else math.nan
    return value if math.isfinite(value) else None


def norm(stats: TensorStats | None) -> float | None:
    """A record's norm where it is finite."""
    value = stats.moments.norm if stats is not None else math.nan
    return value if math.isfinite(value) else None


def is_zero(stats: TensorStats | None) -> bool:
    """Whether every element is zero."""
    return stats is not None and stats.moments.count > 0 and stats.moments.zero_count == stats.moments.count


def signal_fraction(stats: TensorStats | None) -> float | None:
    """How much of an output depends on the input; 0 for an output that is zero everywhere."""
    if stats is None:
        return None
    if is_zero(stats):
        return 0.0
    value = stats.channels.signal_fraction
    return value if math.isfinite(value) else None


def matrices(window: Window) -> list[Layer]:
    """Layers whose trainable matrix is the `weight` of a module with fans: gates, layer scales and tokens are none."""
    return [
        x
        for x in window.model.layers
        if "weight" in x.weight.name and x.fan_in is not None and x.weight.trainable and math.prod(x.weight.shape) > 1
    ]


def bias_share(bias: TensorStats | None, output: TensorStats | None) -> float:
    """Share of an output's mean square that a bias of rms above 1 makes."""
    made, whole = rms(bias), rms(output)
    return made * made / (whole * whole) if made and whole and made > 1.0 else 0.0


def is_trained(window: Window) -> bool:
    """Whether the run starts from weights that were trained before: said so, resumed, or as they look."""
    return window.recognition.is_trained


def saturation(window: Window, layers: Sequence[Layer]) -> float:
    """Median saturated fraction of the bounded activations; 0 for none."""
    records = [window.stats(x.output) for x in layers if activation_name(x.activation_after) in BOUNDED]
    values = sorted(
        s.channels.saturated_fraction for s in records if s is not None and math.isfinite(s.channels.saturated_fraction)
    )
    return values[len(values) // 2] if values else 0.0


_ADAPTIVE: Final = ("ada", "rmsprop", "lion", "lamb", "novograd", "shampoo", "sophia", "muon", "adopt", "prodigy")


def is_adaptive(window: Window) -> bool:
    """Whether the optimizer makes up for the size of gradients, or is not known."""
    known = window.model.description.optimizers
    return not known or any(o.beta2 is not None or any(word in o.name.lower() for word in _ADAPTIVE) for o in known)


@dataclass(frozen=True, slots=True)
class Drift:
    """How a size changes along a chain, in octaves. `steps[i]` is what `layers[i]` did; the first layer did nothing."""

    layers: tuple[Layer, ...]
    steps: tuple[float, ...]
    tolerance: float
    """Two standard deviations of the luck of finite width."""

    @property
    def total(self) -> float:
        """From one end of the chain to the other."""
        return sum(self.steps)

    @property
    def largest(self) -> int:
        """Index of the layer that did most in the direction of the total."""
        sign = 1.0 if self.total >= 0 else -1.0
        return max(range(len(self.steps)), key=lambda i: sign * self.steps[i])

    @property
    def is_local(self) -> bool:
        """Whether one layer did more than half of it."""
        return abs(self.steps[self.largest]) > 0.5 * abs(self.total)

    @property
    def shared(self) -> float:
        """The total without its largest step.

        A single layer that is too small heals: its own gradient is as large as ever, relative to its weights even
        larger. What several layers lose together, no layer can make up for.
        """
        return self.total - self.steps[self.largest]

    @property
    def harm(self) -> float:
        """Octaves of growth, or of a loss that several layers share: a single layer that is too small heals."""
        return self.total if self.total > 0 else max(0.0, -self.shared)

    def reaches(self, limit: float) -> bool:
        """Whether the harm is beyond a limit and the luck of finite width."""
        return self.harm >= limit + self.tolerance

    @property
    def offender(self) -> Layer:
        """The layer that did more than half of it, else the first one that did at least half of the mean step."""
        if self.is_local or len(self.steps) < 2:
            return self.layers[self.largest]
        typical = self.total / (len(self.steps) - 1)
        return next((x for x, s in zip(self.layers, self.steps, strict=True) if s / typical >= 0.5), self.layers[0])


def forward_drift(window: Window, chain: Sequence[Layer], step: int | None = None) -> Drift | None:
    """log2 rms of the outputs along a chain; None for fewer than three layers that were measured."""
    seen = [(x, octaves(rms(at_step(window, x.output, step)))) for x in chain]
    known = [(x, size) for x, size in seen if size is not None]
    if len(known) < 3:
        return None
    steps = [0.0] + [b - a for (_, a), (_, b) in pairwise(known)]
    return Drift(tuple(x for x, _ in known), tuple(steps), _tolerance([x for x, _ in known]))


def backward_drift(window: Window, chain: Sequence[Layer], step: int | None = None) -> Drift | None:
    """log2 norm of the gradient at the outputs, from the end of a chain to its start.

    The norm, not the rms: fan-in scaling keeps it through widths, strides and pooling. What happens between the
    outputs of two layers is put down to the later one.
    """
    seen = [(x, octaves(norm(at_step(window, x.output_gradient, step)))) for x in chain]
    known = [(x, size) for x, size in seen if size is not None]
    if len(known) < 3:
        return None
    steps = [0.0] + [a - b for (_, a), (_, b) in pairwise(known)]
    return Drift(tuple(x for x, _ in known), tuple(steps), _tolerance([x for x, _ in known]))


def at_step(window: Window, tensor: TensorInfo | None, step: int | None) -> TensorStats | None:
    """The record of a tensor at a step; the baseline's stays when its step has left the window."""
    return window.first(tensor) if step == window.baseline_step else window.stats(tensor, step)


def _tolerance(layers: Sequence[Layer]) -> float:
    return 2.0 * width_tolerance(x.fan_in for x in layers[1:] if x.fan_in is not None)


def input_rms(window: Window, layer: Layer) -> float | None:
    """What a first layer's weights and output say of its input at the baseline: rms(z) ÷ (rms(w) · √fan_in)."""
    z, w = rms(window.first(layer.output)), rms(window.first(layer.weight))
    bias = rms(window.first(layer.bias)) or 0.0
    if z is None or not w or layer.fan_in is None or layer.norm_before:
        return None
    return math.sqrt(max(0.0, z * z - bias * bias)) / (w * math.sqrt(layer.fan_in))


HOT_GAIN: Final = 4.0
"""std · √(width) of a recurrent matrix from which its units are flat; orthogonal matrices have 1."""


def recurrent_gain(window: Window, layer: Layer) -> float | None:
    """Std · √(width) at the baseline of a matrix that maps a state to the next one; None for any other."""
    size = rms(window.first(layer.weight))
    if not layer.weight.name.startswith("weight_hh") or not layer.fan_in or size is None:
        return None
    return size * math.sqrt(layer.fan_in)


def hot_recurrence(window: Window, limit: float = HOT_GAIN) -> tuple[Layer, float] | None:
    """The first recurrent matrix of that gain or more."""
    gains = ((x, recurrent_gain(window, x)) for x in window.model.layers if x.weight.trainable)
    return next(((x, gain) for x, gain in gains if gain is not None and gain >= limit), None)
