"""The words of a remedy: Python that can be pasted, with this layer's own numbers; what is no code is a comment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.signals import Drift
from initscope.hooks.theory import RECTIFIERS, activation_name, expected_std

_LISTED: Final = 8
_LINES: Final = 10
"""Calls in a remedy: a block of a decoder has seven matrices."""
_FALLBACK_STD: Final = 0.02

_Mask = tuple[str, ...]


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
    return redraw_all([layer], now)


def redraw_all(layers: Sequence[Layer], now: float | None = None, *, biases: bool = False) -> str:
    """Lines that draw the weights of all these layers anew; `now` is the std of the first one.

    Layers that get the same call and differ in one index of their path share a loop. With `biases` theirs become zero.
    """
    lines: list[str] = []
    groups = _groups([layers[0], *sorted(layers[1:], key=lambda x: (x.depth is None, x.depth or 0))])
    for group in groups[:_LINES]:
        first = layers[0] if layers[0] in group else group[0]
        known = now is not None and math.isfinite(now) and first is layers[0]
        instead = f" instead of {number(now)}" if now is not None and known else ""
        line = _line(group, biases)
        # A number that stands in the line need not be said again.
        lines.append(line if "std=" in line and not instead else f"{line}  # std {number(healthy_std(first))}{instead}")
    rest = sum(len(group) for group in groups[_LINES:])
    return "\n".join([*lines, *([f"# and {rest} more layers in the same way"] if rest else [])])


def zero_biases(layers: Sequence[Layer]) -> str:
    """Lines that zero the biases of these layers."""
    codes = [code_path(x.path, x.bias.name) for x in layers if x.bias is not None]
    more = [f"# and {len(codes) - _LINES} more layers in the same way"] if len(codes) > _LINES else []
    return "\n".join([*(f"nn.init.zeros_({code})" for code in codes[:_LINES]), *more])


def _line(group: Sequence[Layer], biases: bool) -> str:
    """One line of Python for layers that get the same call."""
    head, index = ("", None) if len(group) == 1 else _loop(group)
    weight = _indexed(group[0], group[0].weight.name, index)
    bias = group[0].bias
    more = f"; nn.init.zeros_({_indexed(group[0], bias.name, index)})" if biases and bias is not None else ""
    return f"{head}{_call(group[0], weight)}{more}"


def _call(layer: Layer, code: str) -> str:
    before = activation_name(layer.activation_before)
    if before in RECTIFIERS and not layer.is_head and not layer.is_table and layer.fan_in is not None:
        return f"nn.init.kaiming_normal_({code}, nonlinearity='relu')"
    return f"nn.init.normal_({code}, std={number(healthy_std(layer))})"


def _groups(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Layers that one loop over an index reaches, in the order of their first ones."""
    masks: Counter[_Mask] = Counter(mask for x in layers for mask in _masks(x))
    groups: dict[_Mask, list[Layer]] = {}
    for layer in layers:
        best = max(_masks(layer), key=lambda mask: masks[mask])
        groups.setdefault(best, []).append(layer)
    return list(groups.values())


def _masks(layer: Layer) -> list[_Mask]:
    """The layer's call, bias and path with one of its indices left out, each in turn; its own path if there is none."""
    parts = layer.path.split(".")
    same = (_call(layer, ""), layer.weight.name, layer.bias.name if layer.bias is not None else "")
    masked = [(*same, *parts[:at], "", *parts[at + 1 :]) for at, part in enumerate(parts) if part.isdigit()]
    return masked or [(*same, *parts)]


def _loop(group: Sequence[Layer]) -> tuple[str, int]:
    """`for i in …: ` over a group, and the place of the index in the path."""
    paths = [x.path.split(".") for x in group]
    index = next(at for at, part in enumerate(paths[0]) if part != paths[1][at])
    values = sorted(int(path[index]) for path in paths)
    stride = values[1] - values[0]
    regular = len(values) > 2 and values == list(range(values[0], values[-1] + 1, stride))
    step = "" if stride == 1 else f", {stride}"
    code = f"range({values[0]}, {values[-1] + 1}{step})" if regular else f"({', '.join(map(str, values))})"
    return f"for i in {code}: ", index


def _indexed(layer: Layer, name: str, index: int | None) -> str:
    parts = layer.path.split(".")
    if index is None:
        return code_path(layer.path, name)
    before = code_path(".".join(parts[:index]))
    return f"{before}[i]{code_path('.'.join(parts[index + 1 :]), name).removeprefix('model')}"


def redraw_drift(drift: Drift, now: float | None = None) -> str:
    """Draws the layer anew that made a drift, or all of its layers where no single one did."""
    offender = drift.offender
    return (
        redraw(offender, now)
        if drift.is_local
        else redraw_all([offender, *(x for x in drift.layers if x is not offender)], now)
    )


def redraw_recurrent(layer: Layer, now: float | None) -> str:
    """Lines that draw a recurrent cell's matrices anew; `now` is the std of its state-to-state matrix."""
    orthogonal = number(1.0 / math.sqrt(layer.fan_in or 1.0))
    instead = "" if now is None else f" instead of {number(now)}"
    return (
        f"for name, p in {code_path(layer.path)}.named_parameters():\n"
        "    (nn.init.orthogonal_ if 'weight_hh' in name else nn.init.xavier_uniform_ if 'weight' in name "
        f"else nn.init.zeros_)(p)\n# {layer.weight.name} gets std {orthogonal}{instead}"
    )
