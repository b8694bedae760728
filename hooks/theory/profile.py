"""What theory says of each output and its gradient: predicted from these weights, and expected of a healthy start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from initscope.hooks.moments import TensorStats
from initscope.hooks.theory.backward import gradient_norms
from initscope.hooks.theory.forward import Forward
from initscope.hooks.theory.healthy import healthy_bands
from initscope.hooks.theory.loss import initial_loss
from initscope.hooks.theory.places import links_of, places_of
from initscope.hooks.theory.propagation import width_tolerance
from initscope.hooks.vocabulary import Role
from initscope.hooks.wire import RunDescription, TensorInfo


@dataclass(frozen=True, slots=True)
class Expected:
    """Rms that a tensor should have, None where theory has nothing to say.

    `predicted`: what the weights that were measured should give, within a factor of 2^±`tolerance` (two standard
    deviations of the luck of finite width). `low` to `high`: where a healthy start stays, whatever these weights are.
    """

    predicted: float | None = None
    tolerance: float = 0.0
    low: float | None = None
    high: float | None = None


def predicted_profile(tensors: Mapping[int, TensorInfo], stats: Mapping[int, TensorStats]) -> dict[int, Expected]:
    """`Expected` by tensor key for activations and activation gradients, where theory has something to say.

    `stats` are the records of one step by tensor key: weights, outputs, gradients of outputs. Predictions rest on the
    weights; where theory is silent they begin anew from what was measured.
    """
    places = places_of(tensors)
    links = links_of(places)
    forward = Forward(tensors, stats, links)
    signals = forward.run(places)
    gradients = gradient_norms(places, links, forward, stats)
    bands = healthy_bands(tensors, places, stats)
    found: dict[int, Expected] = {key: Expected(None, 0.0, low, high) for key, (low, high) in bands.items()}
    for place in places:
        signal = signals.get(place.path)
        if signal is not None and signal.is_predicted:
            key = place.output.key
            found[key] = _with(found.get(key), math.sqrt(signal.square), signal.fans)
        if place.gradient is not None and place.path in gradients and place.gradient.key in stats:
            norm, fans = gradients[place.path]
            count = max(1, stats[place.gradient.key].moments.finite_count)
            key = place.gradient.key
            found[key] = _with(found.get(key), norm / math.sqrt(count), fans)
    return found


def predicted_logit_rms(tensors: Mapping[int, TensorInfo], stats: Mapping[int, TensorStats]) -> float | None:
    """Rms that the model's outputs should have, from the head's weights and what goes into it."""
    expected = predicted_profile(tensors, stats)
    heads = [p.output.key for p in places_of(tensors) if p.layer is not None and p.layer.is_head]
    known = [expected[key].predicted for key in heads if key in expected]
    return known[-1] if known else None


def predicted_loss(
    tensors: Mapping[int, TensorInfo], stats: Mapping[int, TensorStats], description: RunDescription
) -> float | None:
    """Cross entropy of the start before any loss is logged: ln C + σ²/2 with the σ of the head's predicted outputs.

    The number of classes is the description's, else the rows of the head. None where either is not known.
    """
    rms = predicted_logit_rms(tensors, stats)
    heads = [t for t in tensors.values() if t.role is Role.OUTPUT and len(t.shape) > 1]
    classes = description.output_classes or (heads[0].shape[0] if heads else None)
    return None if rms is None or not classes or classes < 2 else initial_loss(classes, rms)


def _with(known: Expected | None, predicted: float, fans: tuple[float, ...]) -> Expected:
    base = known or Expected()
    return Expected(predicted, 2.0 * width_tolerance(fans), base.low, base.high)
