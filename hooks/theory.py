"""What a healthy layer should show: gains, expected std, propagation over depth, the loss of knowing nothing.

Sources: Glorot and Bengio (2010) eq. 5-16 and He et al. (2015) for the variance recursion; Poole et al. (2016) and
Schoenholz et al. (2017) for the constants of other activations (integrals over a standard normal, computed
numerically); Hanin and Rolnick (2018) for the spread that finite width alone causes; Derrida's random energy model
(1981) for the expected loss of random logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.layers import Layer, chains_of, layers_of
from initscope.hooks.moments import TensorStats
from initscope.hooks.wire import TensorInfo


@dataclass(frozen=True, slots=True)
class Activation:
    """Constants of an activation φ of z ~ N(0, 1): E[φ²] and E[φ'²]."""

    mean_square: float
    slope_square: float
    is_scalable: bool = True
    """Whether a scale of the weights exists that keeps signal and gradient alive without normalization."""

    @property
    def gain(self) -> float:
        """The factor on 1/√fan_in that keeps the mean square at 1: 1/√E[φ²]."""
        return 1.0 / math.sqrt(self.mean_square)


LINEAR: Final = Activation(1.0, 1.0)
ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "linear": LINEAR,
    "relu": Activation(0.5, 0.5),
    "relu6": Activation(0.5, 0.5),
    "leakyrelu": Activation(0.50005, 0.50005),
    "prelu": Activation(0.53125, 0.53125),
    "tanh": Activation(0.3943, 0.4644),
    "sigmoid": Activation(0.2934, 0.0448, is_scalable=False),
    "gelu": Activation(0.4252, 0.4559),
    "silu": Activation(0.3558, 0.3795),
    "mish": Activation(0.4523, 0.4791),
    "elu": Activation(0.6449, 0.6681),
    "selu": Activation(1.0, 1.0716),
    "softplus": Activation(0.9212, 0.2934, is_scalable=False),
    "hardtanh": Activation(0.5161, 0.6827),
    "softsign": Activation(0.183, 0.2277),
}
_ALIASES: Final = {"swish": "silu", "identity": "linear", "logsigmoid": "softplus", "rrelu": "leakyrelu"}
RECTIFIERS: Final = frozenset({"relu", "relu6"})
"""Activations whose slope is exactly zero below zero: a unit that is off for every input stays off."""
BOUNDED: Final = frozenset({"tanh", "sigmoid", "hardtanh", "softsign"})


def activation_name(name: str | None) -> str | None:
    """One spelling for a class, a function or a torch name (`LeakyReLU`, `leaky_relu`); None for none."""
    if not name:
        return None
    plain = name.rsplit(".", 1)[-1].lower().replace("_", "")
    return _ALIASES.get(plain, plain)


def activation(name: str | None) -> Activation | None:
    """Constants of an activation; linear for None; None for one that the table lacks."""
    plain = activation_name(name)
    return LINEAR if plain is None else ACTIVATIONS.get(plain)


def expected_std(fan_in: float, activation_before: str | None = None, input_rms: float = 1.0) -> float | None:
    """Std of the weights that keeps the output at rms 1: gain(activation before) ÷ (√fan_in · input rms).

    `input_rms` is that of what goes into the activation (1 inside a healthy net; the data's own for a first layer).
    None for an activation without such a scale, or without inputs.
    """
    constants = activation(activation_before)
    if constants is None or not constants.is_scalable or not fan_in > 0 or not input_rms > 0:
        return None
    return constants.gain / (math.sqrt(fan_in) * input_rms)


def growth(stages: Iterable[tuple[float, str | None]], start: float = 1.0) -> tuple[float, float]:
    """(octaves of the signal, octaves of the gradient on its way back) over layers without normalization or biases.

    `stages` are (std·√fan_in, activation before) in forward order, `start` the rms that the first activation gets.
    q → σ_w²·E[φ(√q z)²] forward and σ_w²·E[φ'(√q z)²] backward (Poole et al. 2016). An activation without a known
    function counts as linear.
    """
    q, back = start * start, 0.0
    for scale, name in stages:
        square, slope = _expectations(activation_name(name) or "linear", q)
        if not (0.0 < q < _HUGE and scale > 0.0 and slope > 0.0 and square > 0.0):
            break
        back += math.log2(scale) + 0.5 * math.log2(slope)
        q = scale * scale * square
    return 0.5 * math.log2(q / (start * start)) if q > 0.0 else -math.inf, back


def _expectations(name: str, q: float) -> tuple[float, float]:
    """(E[φ(√q z)²], E[φ'(√q z)²]) for z ~ N(0, 1), by the trapezoid rule."""
    function = _FUNCTIONS.get(name)
    if function is None:
        constants = ACTIVATIONS.get(name, LINEAR)
        return constants.mean_square * q, constants.slope_square
    root, square, slope = math.sqrt(q), 0.0, 0.0
    for z, weight in _NODES:
        x, h = root * z, 1e-4
        square += weight * function(x) ** 2
        slope += weight * ((function(x + h) - function(x - h)) / (2 * h)) ** 2
    return square, slope


def _sigmoid(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))


def _elu(x: float) -> float:
    return x if x > 0 else math.expm1(x)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


_HUGE: Final = 1e30
_FUNCTIONS: Final[Mapping[str, Callable[[float], float]]] = {
    "tanh": math.tanh,
    "sigmoid": _sigmoid,
    "gelu": lambda x: 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0))),
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * math.tanh(_softplus(x)),
    "elu": _elu,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x)),
    "softplus": _softplus,
    "hardtanh": lambda x: max(-1.0, min(1.0, x)),
    "softsign": lambda x: x / (1.0 + abs(x)),
}
"""Activations that are not homogeneous: what they keep depends on the size of what they get."""
_NODES: Final = tuple((z / 10, math.exp(-z * z / 200) / math.sqrt(2 * math.pi) / 10) for z in range(-80, 81))
"""Nodes and weights of an integral over a standard normal."""


def residual_std(fan_in: float, blocks: int, activation_before: str | None = None) -> float | None:
    """GPT-2's rule for an output that is added to the stream: the expected std ÷ √(2 · blocks)."""
    std = expected_std(fan_in, activation_before)
    return None if std is None or blocks < 1 else std / math.sqrt(2 * blocks)


def forward_step(std: float, fan_in: float, activation_before: str | None = None) -> float | None:
    """Octaves by which one layer moves the rms of a healthy signal: log2(std ÷ expected std)."""
    expected = expected_std(fan_in, activation_before)
    return None if expected is None or not 0 < std < math.inf else math.log2(std / expected)


def width_tolerance(fans: Iterable[float]) -> float:
    """Standard deviation, in octaves, of log2 rms after these layers from their finite width alone: 1.61 · √Σ 1/n.

    For ReLU the squared length varies by 5/n a layer (Hanin and Rolnick 2018); other activations vary less.
    """
    return 1.61 * math.sqrt(sum(1.0 / n for n in fans if n > 0))


def trivial_loss(classes: int) -> float:
    """Cross entropy of a uniform guess, ln C, in nats."""
    return math.log(classes)


def initial_loss(classes: int, logit_std: float) -> float:
    """Expected cross entropy of random logits of that std: ln C + σ²/2, and σ·√(2 ln C) beyond σ = √(2 ln C)."""
    uniform = trivial_loss(classes)
    if logit_std * logit_std <= 2 * uniform:
        return uniform + logit_std * logit_std / 2
    return logit_std * math.sqrt(2 * uniform)


def logit_std_of_loss(classes: int, loss: float) -> float:
    """The std of random logits that explains an initial loss: the inverse of `initial_loss`; 0 for no excess."""
    uniform = trivial_loss(classes)
    if loss <= uniform:
        return 0.0
    return math.sqrt(2 * (loss - uniform)) if loss <= 2 * uniform else loss / math.sqrt(2 * uniform)


@dataclass(frozen=True, slots=True)
class Expected:
    """What theory expects of an activation's or activation gradient's rms, and the band that a healthy net stays in."""

    rms: float
    low: float
    high: float


def predicted_profile(tensors: Mapping[int, TensorInfo], stats: Mapping[int, TensorStats]) -> dict[int, Expected]:
    """Expected rms by tensor key for activations and activation gradients, where theory has something to say.

    Inside a run of layers without normalization a healthy start keeps the rms of pre-activations, and the norm of
    their gradients, as it is: so activations are anchored at the run's first measured layer, gradients at its last.
    The band is one octave plus two standard deviations of the luck that finite width brings, growing with the distance
    from the anchor. Nothing is said of normalized outputs, residual streams, heads, sigmoid stacks.
    """
    expected: dict[int, Expected] = {}
    for chain in chains_of(layers_of(tensors)):
        if len(chain) < 2 or not all(_is_predictable(layer) for layer in chain[1:]):
            continue
        expected.update(_forward_profile(chain, stats))
        expected.update(_backward_profile(chain, stats))
    return expected


def _is_predictable(layer: Layer) -> bool:
    constants = activation(layer.activation_before)
    return constants is not None and constants.is_scalable


def _forward_profile(chain: Sequence[Layer], stats: Mapping[int, TensorStats]) -> Iterable[tuple[int, Expected]]:
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
            yield layer.output.key, _band(anchor, fans)


def _backward_profile(chain: Sequence[Layer], stats: Mapping[int, TensorStats]) -> Iterable[tuple[int, Expected]]:
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
            yield layer.output_gradient.key, _band(anchor / math.sqrt(count), fans)
        if anchor is not None:
            fans.append(layer.fan_in or math.inf)


def _band(rms: float, fans: Sequence[float]) -> Expected:
    room = 2.0 ** (1.0 + 2.0 * width_tolerance(fans))
    return Expected(rms, rms / room, rms * room)


def _positive(value: float) -> float | None:
    return value if 0.0 < value < math.inf else None
