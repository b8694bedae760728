"""The words of a remedy: code that can be pasted, with this layer's own numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.theory import RECTIFIERS, activation_name, expected_std

_LISTED: Final = 8
_FALLBACK_STD: Final = 0.02


def code_path(module_path: str, name: str | None = None) -> str:
    """A module path, and a parameter of it, as Python: `body.6` → `model.body[6]`."""
    code = "model"
    for part in (*module_path.split("."), *((name or "").split("."))):
        if part.isdigit():
            code += f"[{part}]"
        elif part.isidentifier():
            code += f".{part}"
        elif part:
            code = f"getattr({code}, {part!r})"
    return code


def weight_code(layer: Layer) -> str:
    """The layer's matrix as Python."""
    return code_path(layer.path, layer.weight.name)


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def listed(names: Sequence[str]) -> str:
    """Names separated by commas, the first eight of them."""
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def healthy_std(layer: Layer) -> float:
    """The std to draw this layer's weights with; GPT's 0.02 where theory names none."""
    if layer.is_table or layer.fan_in is None:
        return _FALLBACK_STD
    before = None if layer.is_head else layer.activation_before
    return expected_std(layer.fan_in, before) or 1.0 / math.sqrt(layer.fan_in)


def redraw(layer: Layer, now: float | None = None) -> str:
    """One line that draws the layer's weights anew, and what it changes."""
    std = healthy_std(layer)
    code = weight_code(layer)
    before = activation_name(layer.activation_before)
    if before in RECTIFIERS and not layer.is_head and not layer.is_table and layer.fan_in is not None:
        call = f"nn.init.kaiming_normal_({code}, nonlinearity='relu')"
    else:
        call = f"nn.init.normal_({code}, std={number(std)})"
    instead = "" if now is None or not math.isfinite(now) else f" instead of {number(now)}"
    return f"{call}  # std {number(std)}{instead}"


def redraw_all(layers: Sequence[Layer], now: float | None = None) -> str:
    """`redraw` of the first layer, and a word that the others need the same."""
    more = len(layers) - 1
    also = "" if more < 1 else f"; the same for {listed([weight_code(x) for x in layers[1:4]])}"
    also += f" and {more - 3} more" if more > 3 else ""
    return redraw(layers[0], now) + also
