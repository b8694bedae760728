"""How signal and gradient change over depth: gains, the recursion of mean squares, criticality, streams, attention.

Sources: Glorot and Bengio (2010) eq. 5-16 and He et al. (2015) for the variance recursion; Poole et al. (2016) and
Schoenholz et al. (2017) for fixed points and the critical line; Hanin and Rolnick (2018) for the spread that finite
width alone causes; Radford et al. (2019) for the scale of residual outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from initscope.hooks.theory.activations import LINEAR, activation, kept


def expected_std(fan_in: float, activation_before: str | None = None, input_rms: float = 1.0) -> float | None:
    """Std of the weights that keeps the output at rms 1: gain(activation before) ÷ (√fan_in · input rms).

    `input_rms` is that of what goes into the activation (1 inside a healthy net; the data's own for a first layer).
    None for an activation without such a scale, or without inputs.
    """
    constants = activation(activation_before)
    if constants is None or not constants.is_scalable or not fan_in > 0 or not input_rms > 0:
        return None
    return constants.gain / (math.sqrt(fan_in) * input_rms)


def residual_std(fan_in: float, blocks: int, activation_before: str | None = None) -> float | None:
    """GPT-2's rule for an output that is added to the stream: the expected std ÷ √(2 · blocks)."""
    std = expected_std(fan_in, activation_before)
    return None if std is None or blocks < 1 else std / math.sqrt(2 * blocks)


def forward_step(std: float, fan_in: float, activation_before: str | None = None) -> float | None:
    """Octaves by which one layer moves the rms of a healthy signal: log2(std ÷ expected std)."""
    expected = expected_std(fan_in, activation_before)
    return None if expected is None or not 0 < std < math.inf else math.log2(std / expected)


def growth(
    stages: Iterable[tuple[float, str | None]], start: float = 1.0, bias_rms: float = 0.0
) -> tuple[float, float]:
    """(octaves of the signal, octaves of the gradient on its way back) over layers without normalization.

    `stages` are (std·√fan_in, activation before) in forward order, `start` the rms that the first activation gets,
    `bias_rms` that of every layer's biases. q → σ_w²·E[φ(√q z)²] + σ_b² forward and σ_w²·E[φ'(√q z)²] backward
    (Poole et al. 2016). An activation without a known function counts as linear.
    """
    q, back = start * start, 0.0
    for scale, name in stages:
        if not (0.0 < q < _HUGE and scale > 0.0):
            break
        passed = kept(name, q)
        square, slope = (q, LINEAR.slope_square) if passed is None else (passed.square, passed.slope)
        if not (slope > 0.0 and square > 0.0):
            break
        back += math.log2(scale) + 0.5 * math.log2(slope)
        q = scale * scale * square + bias_rms * bias_rms
    return 0.5 * math.log2(q / (start * start)) if q > 0.0 else -math.inf, back


def fixed_point(name: str | None, scale: float, bias_rms: float = 0.0, start: float = 1.0) -> float | None:
    """The mean square q* that many equal layers lead to: q* = σ_w²·E[φ(√q* z)²] + σ_b²; None if there is none.

    `scale` is σ_w = std·√fan_in. A signal that dies out or grows without end has no fixed point.
    """
    q = start * start
    for _ in range(1_000):
        passed = kept(name, q)
        if passed is None:
            return None
        new = scale * scale * passed.square + bias_rms * bias_rms
        if not 1e-12 < new < _HUGE:
            return None
        if abs(new - q) <= 1e-9 * q:
            return new
        q = new
    return None


def susceptibility(name: str | None, scale: float, q: float) -> float | None:
    """χ₁ = σ_w²·E[φ'(√q z)²], the factor on the mean square of gradients a layer: 1 at the edge of chaos."""
    passed = kept(name, q) if q > 0.0 else None
    return None if passed is None else scale * scale * passed.slope


def depth_scale(chi: float) -> float:
    """ξ = 1/|ln χ₁|, the layers over which a gradient changes by e; about 6 ξ can be trained (Schoenholz et al.)."""
    return math.inf if chi == 1.0 else 1.0 / abs(math.log(chi)) if chi > 0.0 else 0.0


def critical_scale(name: str | None, q: float) -> tuple[float, float] | None:
    """(σ_w, σ_b²) on the critical line whose fixed point is q: χ₁ = 1 and q = σ_w²·E[φ²] + σ_b².

    None where no such biases exist (σ_b² < 0): sigmoid stacks have no critical point.
    """
    passed = kept(name, q) if q > 0.0 else None
    if passed is None or passed.slope <= 0.0:
        return None
    bias_square = q - passed.square / passed.slope
    # Homogeneous activations are critical without biases: what remains is rounding.
    return None if bias_square < -1e-6 * q else (passed.slope**-0.5, max(0.0, bias_square))


def stream_rms(start: float, branches: Iterable[float]) -> float:
    """Rms of a residual stream: √(start² + Σ branch²), since random branches do not know each other."""
    return math.sqrt(start * start + sum(b * b for b in branches))


def attention_logit_std(query_std: float, key_std: float, width: float, scaled_by: float = 1.0) -> float:
    """Std of q·k/√d_head for normalized inputs of rms 1 and `width` inputs: σ_q·σ_k·width, for any head size.

    `scaled_by` is what the division by √d_head was replaced with, as a factor: √d_head where it is missing.
    """
    return query_std * key_std * width * scaled_by


def width_tolerance(fans: Iterable[float]) -> float:
    """Standard deviation, in octaves, of log2 rms after these layers from their finite width alone: 1.61 · √Σ 1/n.

    For ReLU the squared length varies by 5/n a layer (Hanin and Rolnick 2018); other activations vary less.
    """
    return 1.61 * math.sqrt(sum(1.0 / n for n in fans if n > 0))


_HUGE: Final = 1e30
