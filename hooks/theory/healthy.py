"""The band in which a healthy start keeps signal and gradient, whatever these weights are.

Inside a run of layers without normalization a healthy start keeps the rms of pre-activations, and the norm of their
gradients, as it is: activations are anchored at the run's first measured layer, gradients at its last. A norm's output
has rms 1. A residual stream does not shrink, and grows no faster than branches of rms 1 make it. The band is one octave
plus two standard deviations of the luck that finite width brings. Nothing is said of layers behind a norm and of
branches of a residual stream (their scale is free), of heads and of sigmoid stacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from initscope.hooks.layers import Layer, chains_of, layers_of
from initscope.hooks.moments import TensorStats
from initscope.hooks.theory.activations import activation
from initscope.hooks.theory.places import Place
from initscope.hooks.theory.propagation import stream_rms, width_tolerance
from initscope.hooks.wire import TensorInfo

Band = tuple[float, float]
"""(lowest, highest) rms."""


def healthy_bands(
    tensors: Mapping[int, TensorInfo], places: Sequence[Place], stats: Mapping[int, TensorStats]
) -> dict[int, Band]:
    """Bands by tensor key."""
    bands = {p.output.key: band(1.0, ()) for p in places if p.is_norm and not p.is_branch}
    bands.update(_stream_bands(places, stats))
    for chain in chains_of(layers_of(tensors)):
        if len(chain) > 1 and all(_is_predictable(layer) for layer in chain[1:]) and not chain[-1].is_residual:
            bands.update(_forward(chain, stats))
            bands.update(_backward(chain, stats))
    return bands


def band(rms: float, fans: Sequence[float]) -> Band:
    """One octave and the luck of finite width on both sides."""
    room = 2.0 ** (1.0 + 2.0 * width_tolerance(fans))
    return rms / room, rms * room


def _is_predictable(layer: Layer) -> bool:
    constants = activation(layer.activation_before)
    return constants is not None and constants.is_scalable


def _forward(chain: Sequence[Layer], stats: Mapping[int, TensorStats]) -> Iterable[tuple[int, Band]]:
    anchor: float | None = None
    fans: list[float] = []
    for layer in chain:
        record = stats.get(layer.output.key) if layer.output else None
        rms = _positive(record.moments.rms) if record else None
        if anchor is not None:
            fans.append(layer.fan_in or math.inf)
        elif rms is not None:
            anchor = rms
        if anchor is not None and layer.output is not None:
            yield layer.output.key, band(anchor, fans)


def _backward(chain: Sequence[Layer], stats: Mapping[int, TensorStats]) -> Iterable[tuple[int, Band]]:
    anchor: float | None = None
    fans: list[float] = []
    for layer in reversed(chain):
        record = stats.get(layer.output_gradient.key) if layer.output_gradient else None
        norm = _positive(record.moments.norm) if record else None
        if anchor is None and norm is not None:
            anchor = norm
        if anchor is not None and record is not None and layer.output_gradient is not None:
            # Not the rms but the norm stays: it does not care for width, stride or pooling.
            count = max(1, record.moments.finite_count)
            yield layer.output_gradient.key, band(anchor / math.sqrt(count), fans)
        if anchor is not None:
            fans.append(layer.fan_in or math.inf)


def _stream_bands(places: Sequence[Place], stats: Mapping[int, TensorStats]) -> Iterable[tuple[int, Band]]:
    start: float | None = None
    branches = 0
    for place in places:
        branches += place.layer is not None and place.is_branch
        if not place.is_block or not branches:
            continue
        record = stats.get(place.output.key)
        if start is None:
            start, branches = (_positive(record.moments.rms) if record else None), 0
        if start is not None:
            yield place.output.key, (start / 2.0, 2.0 * stream_rms(start, [1.0] * branches))


def _positive(value: float) -> float | None:
    return value if 0.0 < value < math.inf else None
