"""Activations in numbers: what φ keeps of the mean square of z ~ N(0, q), and of the gradient that passes it.

Sources: Poole et al. (2016) and Schoenholz et al. (2017). The integrals over a standard normal are computed by the
trapezoid rule; those of homogeneous activations (ReLU and its kin) do not depend on q but for a factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class Activation:
    """Constants of an activation φ of z ~ N(0, 1): E[φ²] and E[φ'²]."""

    mean_square: float
    slope_square: float
    is_scalable: bool = True
    """Whether a scale of the weights exists that keeps signal and gradient alive without normalization."""
    mean: float = 0.0
    """E[φ]."""

    @property
    def gain(self) -> float:
        """The factor on 1/√fan_in that keeps the mean square at 1: 1/√E[φ²]."""
        return 1.0 / math.sqrt(self.mean_square)


LINEAR: Final = Activation(1.0, 1.0)
ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "linear": LINEAR,
    "relu": Activation(0.5, 0.5, mean=0.3989),
    "relu6": Activation(0.5, 0.5, mean=0.3989),
    "leakyrelu": Activation(0.50005, 0.50005, mean=0.3950),
    "prelu": Activation(0.53125, 0.53125, mean=0.2992),
    "tanh": Activation(0.3943, 0.4644),
    "sigmoid": Activation(0.2934, 0.0448, is_scalable=False, mean=0.5),
    "gelu": Activation(0.4252, 0.4559, mean=0.2821),
    "silu": Activation(0.3558, 0.3795, mean=0.2066),
    "mish": Activation(0.4523, 0.4791, mean=0.2404),
    "elu": Activation(0.6449, 0.6681, mean=0.1605),
    "selu": Activation(1.0, 1.0716),
    "softplus": Activation(0.9212, 0.2934, is_scalable=False, mean=0.8061),
    "hardtanh": Activation(0.5161, 0.6827),
    "softsign": Activation(0.183, 0.2277),
}
_ALIASES: Final = {"swish": "silu", "identity": "linear", "logsigmoid": "softplus", "rrelu": "leakyrelu"}
RECTIFIERS: Final = frozenset({"relu", "relu6"})
"""Activations whose slope is exactly zero below zero: a unit that is off for every input stays off."""
BOUNDED: Final = frozenset({"tanh", "sigmoid", "hardtanh", "softsign"})


@lru_cache(maxsize=256)
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


@dataclass(frozen=True, slots=True)
class Kept:
    """What an activation φ makes of z ~ N(0, q): E[φ], E[φ²] and E[φ'²]."""

    mean: float
    square: float
    slope: float

    @property
    def variance(self) -> float:
        """E[φ²] − E[φ]²: what batch normalization behind the next weights sees (it takes the mean away)."""
        return max(0.0, self.square - self.mean * self.mean)


def kept(name: str | None, q: float) -> Kept | None:
    """E[φ], E[φ²] and E[φ'²] for z ~ N(0, q), q > 0; None for an activation that is not known."""
    plain = activation_name(name) or "linear"
    if plain not in _FUNCTIONS:
        constants = ACTIVATIONS.get(plain)
        if constants is None:
            return None
        return Kept(constants.mean * math.sqrt(q), constants.mean_square * q, constants.slope_square)
    # A grid in octaves of q with straight lines between is exact to 0.1 % and makes a layer cost microseconds.
    place = math.log2(q) * _POINTS
    at = math.floor(place)
    low, high, share = _integrals(plain, at), _integrals(plain, at + 1), place - at
    return Kept(
        low.mean + share * (high.mean - low.mean),
        _between(low.square, high.square, share),
        _between(low.slope, high.slope, share),
    )


def _between(low: float, high: float, share: float) -> float:
    """A straight line in logarithms, as powers of q are."""
    if low <= 0.0 or high <= 0.0:
        return low + share * (high - low)
    return low * math.exp(share * math.log(high / low))


@lru_cache(maxsize=8_192)
def _integrals(name: str, at: int) -> Kept:
    function, root = _FUNCTIONS[name], 2.0 ** (at / (2 * _POINTS))
    mean = square = slope = 0.0
    h = min(1e-4, 1e-4 * root)
    for z, weight in _FINE if root > _WIDE or name in _KINKED else _COARSE:
        x = root * z
        y = function(x)
        mean += weight * y
        square += weight * y * y
        slope += weight * ((function(x + h) - function(x - h)) / (2 * h)) ** 2
    return Kept(mean, square, slope)


def _sigmoid(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))


def _elu(x: float) -> float:
    return x if x > 0 else math.expm1(x)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


_POINTS: Final = 8
"""Grid points an octave of q."""
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
_KINKED: Final = frozenset({"hardtanh", "softsign", "elu", "selu"})
_WIDE: Final = 4.0
"""Root of q from which activations bend between two coarse nodes."""


def _nodes(per_unit: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights of an integral over a standard normal, by the trapezoid rule."""
    zs = (i / per_unit for i in range(-8 * per_unit, 8 * per_unit + 1))
    return tuple((z, math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / per_unit) for z in zs)


_COARSE: Final = _nodes(16)
_FINE: Final = _nodes(64)
