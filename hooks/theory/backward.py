"""The norm that the gradient of every output should have, from the next layer's and the weights between them.

‖∂z‖² → fan_in·rms(w)²·E[φ'(√q z)²]·‖∂z'‖² on the way back (Glorot and Bengio 2010 eq. 6; Poole et al. 2016); a norm
between them divides by the variance of what it normalized: batch normalization, which takes the mean away, makes
gradients grow by √(π/(π−1)) a ReLU layer (Yang et al. 2019). The norm, not the rms: it does not care for width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from initscope.hooks.moments import TensorStats
from initscope.hooks.theory.activations import activation_name, kept
from initscope.hooks.theory.forward import Forward, Signal
from initscope.hooks.theory.places import Link, Place, consumers
from initscope.hooks.wire import TensorInfo


def gradient_norms(
    places: Sequence[Place], links: Mapping[str, Link], forward: Forward, stats: Mapping[int, TensorStats]
) -> dict[str, tuple[float, tuple[float, ...]]]:
    """(predicted ‖∂z‖, fans since the anchor) by path; nothing for gradients that only a measurement tells."""
    readers = consumers(links.values())
    by_path = {p.path: p for p in places}
    origin = {path: _origin(link, places) for path, link in links.items()}
    predicted: dict[str, tuple[float, tuple[float, ...]]] = {}
    for path in reversed([p.path for p in places if p.path in links]):
        link, place, source = links[path], by_path[path], origin[path]
        if source is None or readers[link.source.path] > 1 or source.is_branch:
            continue
        norm, fans = predicted.get(path) or (_norm(place.gradient, stats), ())
        factor = _factor(place, link, source, forward)
        if norm and factor and place.layer is not None:
            predicted[source.path] = norm * factor, (*fans, place.layer.inputs)
    return predicted


def _origin(link: Link, places: Sequence[Place]) -> Place | None:
    """The plain layer whose output the link starts from: behind a norm, the layer right before it."""
    if link.norm is None:
        return link.source
    at = places.index(link.norm)
    before = places[at - 1] if at else None
    if before is None or not before.is_plain or before.layer is None or not before.layer.norm_after:
        return None
    is_direct = before.output.shape == link.norm.output.shape and not before.layer.activation_after
    same = activation_name(before.layer.activation_after) == activation_name(link.activation)
    return before if is_direct or (same and before.output.shape == link.norm.output.shape) else None


def _factor(place: Place, link: Link, source: Place, forward: Forward) -> float | None:
    """‖∂z of the source‖ ÷ ‖∂z of this layer‖."""
    layer, signal = place.layer, forward.signals.get(link.source.path)
    weight = forward.weight_square(layer) if layer is not None else None
    if layer is None or layer.fan_in is None or weight is None or signal is None or not 0 < signal.square < math.inf:
        return None
    passed = kept(link.activation, signal.square)
    if passed is None:
        return None
    square = layer.fan_in * weight * link.inside * passed.slope
    if link.norm is not None:
        into = forward.signals.get(source.path)
        divisor = _normalized(link.norm, into)
        if divisor is None:
            return None
        square *= signal.variance / divisor
    return math.sqrt(square) if square > 0.0 else None


def _normalized(norm: Place, into: Signal | None) -> float | None:
    """What a norm divides by: over a batch the variance of a unit, over the units of a sample the mean square."""
    if into is None or not into.is_predicted:
        return None
    is_batch = "batch" in norm.output.module_type.lower()
    value = into.variance if is_batch else into.square
    return value if value > 0.0 else None


def _norm(tensor: TensorInfo | None, stats: Mapping[int, TensorStats]) -> float | None:
    record = stats.get(tensor.key) if tensor is not None else None
    value = record.moments.norm if record is not None else math.nan
    return value if 0.0 < value < math.inf else None
