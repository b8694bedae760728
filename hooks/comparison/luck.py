"""How far two draws of one scheme lie apart: what a comparison must not take for a difference."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.layers import Layer, chains_of, layers_of
from initscope.hooks.moments import Moments
from initscope.hooks.theory import width_tolerance
from initscope.hooks.vocabulary import Kind
from initscope.hooks.wire import TensorInfo

_HALF_OCTAVE_OF_E: Final = 0.5 / math.log(2.0)
"""d log2 rms ÷ d ln mean square."""
_OF_VECTORS: Final = 1.0
"""Octaves by which gradients of biases and norms vary: sums over samples in which the signs cancel."""


def sampling_error(moments: Moments) -> float:
    """Standard error of log2 rms, in octaves, if the elements are independent: ½·log2(e)·√((E[x⁴]/E[x²]² − 1)/n).

    The delta method on the mean square; 0 where there is no finite element or all are zero.
    """
    n, rms = moments.finite_count, moments.rms
    if not n or not rms > 0.0 or not math.isfinite(rms):
        return 0.0
    # Divided by the rms one by one: a fourth power leaves the range of a double long before its quotient does.
    mean, third, fourth = moments.mean / rms, moments.m3 / n, moments.m4 / n
    for _ in range(3):
        third /= rms
    for _ in range(4):
        fourth /= rms
    square = moments.m2 / n / rms / rms
    peakedness = fourth + 4.0 * mean * third + 6.0 * mean * mean * square + mean**4
    return _HALF_OCTAVE_OF_E * math.sqrt(max(0.0, peakedness - 1.0) / n)


@dataclass(frozen=True, slots=True)
class Luck:
    """Standard deviation over seeds, in octaves, of log2 rms along a model, from its finite width alone.

    `theory.width_tolerance` of the layers that the signal has passed since a norm or a residual stream last set its
    scale. A gradient's begins at the loss, in the few outputs of the head, and a norm does not set its scale.
    """

    depths: tuple[int, ...]
    forward: tuple[float, ...]
    backward: tuple[float, ...]

    def of(self, tensor: TensorInfo) -> float:
        """That of a tensor, by its depth; a module without a matrix has that of the matrix before it."""
        at = -1 if tensor.depth is None or tensor.kind is Kind.WEIGHT else bisect_right(self.depths, tensor.depth) - 1
        if at < 0:
            return 0.0
        if tensor.kind is Kind.ACTIVATION:
            return self.forward[at]
        if tensor.kind is Kind.ACTIVATION_GRADIENT:
            return self.backward[at]
        # A weight's gradient is made of the layer's input and of the gradient of its output.
        luck = math.hypot(self.forward[max(0, at - 1)], self.backward[at])
        return luck if len(tensor.shape) > 1 else math.hypot(luck, _OF_VECTORS)


def luck_of(tensors: Mapping[int, TensorInfo]) -> Luck:
    """The luck of finite width along a model."""
    layers = [layer for layer in layers_of(tensors) if layer.depth is not None]
    forward, backward = _forward(layers), _backward(layers)
    return Luck(
        tuple(layer.depth or 0 for layer in layers),
        tuple(forward.get(id(layer), 0.0) for layer in layers),
        tuple(backward.get(id(layer), 0.0) for layer in layers),
    )


def _forward(layers: Sequence[Layer]) -> dict[int, float]:
    found: dict[int, float] = {}
    passed: list[float] = []
    starts = {id(chain[0]) for chain in chains_of(layers)}
    before: Layer | None = None
    for layer in (x for x in layers if x.is_plain):
        is_cut = layer.is_head and before is not None and bool(before.norm_after or layer.norm_before)
        if id(layer) in starts or is_cut or (before is not None and before.is_residual):
            passed = []
        passed.append(_width(layer))
        found[id(layer)] = width_tolerance(passed)
        before = layer
    return found


def _backward(layers: Sequence[Layer]) -> dict[int, float]:
    found: dict[int, float] = {}
    passed: list[float] = []
    has_stream = any(layer.is_residual for layer in layers)
    ends = {id(chain[-1]) for chain in chains_of(layers)}
    head: list[float] = []
    for layer in (x for x in reversed(layers) if x.is_plain):
        if has_stream and id(layer) in ends:
            passed = list(head)
        passed.append(_width(layer))
        if layer.is_head:
            head = [_width(layer)]
        found[id(layer)] = width_tolerance(passed)
    return found


def _width(layer: Layer) -> float:
    return float(layer.weight.shape[outputs_axis(layer.weight)])


def outputs_axis(weight: TensorInfo) -> int:
    """The axis of a matrix or kernel that counts its outputs."""
    # Transposed convolutions, and GPT-2's Conv1D, keep their inputs first.
    return 1 if "transpose" in weight.module_type.lower() or weight.module_type == "Conv1D" else 0
