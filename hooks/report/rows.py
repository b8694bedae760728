"""The table of a check: one row a weight matrix, in forward order; what was measured next to what theory expects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from initscope.hooks.layers import Layer
from initscope.hooks.moments import ChannelStats, TensorStats
from initscope.hooks.rules import Window
from initscope.hooks.theory import Expected, expected_std, predicted_profile
from initscope.hooks.vocabulary import Kind, Role


@dataclass(frozen=True, slots=True)
class Passed:
    """What went into a module: rms of its input, and of the loss's gradient with respect to that; None if unknown.

    The gradient is that of the whole loss: where others read the same tensor (a residual stream, the projections of an
    attention), theirs is in it.
    """

    rms: float | None = None
    gradient_rms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """A weight matrix. A number is None where it was not measured, is not defined, or where theory has no word.

    `scheme` is the id of the initialization that the weight looks like (`he_normal`), the formula is for people.
    `expected_std` is not the scheme's but what keeps the signal here; `octaves` is log2(std ÷ expected_std).
    `forward_gain` is the rms of the output ÷ that of the input, the expected one what a healthy layer has:
    expected_std · √fan_in. `backward_gain` is the rms of the gradient at the input ÷ that at the output. Where a
    module has several matrices, the first one's row has what was measured of the module.
    """

    path: str
    name: str
    module_type: str
    role: Role
    shape: tuple[int, ...]
    depth: int | None = None
    activation_before: str | None = None
    activation_after: str | None = None
    scheme: str | None = None
    scheme_formula: str | None = None
    scheme_confidence: float | None = None
    std: float | None = None
    expected_std: float | None = None
    octaves: float | None = None
    nonfinite_count: int = 0
    forward_gain: float | None = None
    expected_forward_gain: float | None = None
    backward_gain: float | None = None
    output_rms: float | None = None
    predicted_rms: Expected | None = None
    gradient_rms: float | None = None
    predicted_gradient_rms: Expected | None = None
    signal_fraction: float | None = None
    dead_fraction: float | None = None
    saturated_fraction: float | None = None

    @property
    def full_name(self) -> str:
        """Module path and name, as in a state dict; the name `weight` goes without saying."""
        return self.path if self.name == "weight" and self.path else f"{self.path}.{self.name}".lstrip(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRow:
    """The output of a repeated block: where there are residual sums, the stream behind it."""

    path: str
    depth: int | None = None
    output_rms: float | None = None
    predicted_rms: Expected | None = None
    gradient_rms: float | None = None
    predicted_gradient_rms: Expected | None = None
    signal_fraction: float | None = None


def blocks_of(window: Window) -> tuple[BlockRow, ...]:
    """Blocks in forward order; none where nothing was run."""
    predicted = predicted_profile(window.model.tensors, window.now)
    rows: dict[str, BlockRow] = {}
    for info, record in window.each(Kind.ACTIVATION):
        if info.block != info.module_path or info.module_path in rows:
            continue
        other = window.model.find(info.module_path, info.name, Kind.ACTIVATION_GRADIENT)
        gradient = window.stats(other)
        rows[info.module_path] = BlockRow(
            path=info.module_path,
            depth=info.depth,
            output_rms=known(record.moments.rms),
            predicted_rms=predicted.get(info.key),
            gradient_rms=known(gradient.moments.rms) if gradient else None,
            predicted_gradient_rms=predicted.get(other.key) if other else None,
            signal_fraction=known(record.channels.signal_fraction),
        )
    return tuple(rows.values())


def rows_of(window: Window, passed: Mapping[str, Passed]) -> tuple[LayerRow, ...]:
    """The rows of the step under judgement; `passed` is what went into modules, by path."""
    predicted = predicted_profile(window.model.tensors, window.now)
    rows: list[LayerRow] = []
    seen: set[str] = set()
    for layer in _in_order(window):
        record = window.stats(layer.weight)
        if record is None:
            continue  # an alias: the tensor has its row where it lives
        into = passed.get(layer.path, Passed())
        of_output = {} if layer.path in seen else _of_output(window, layer, into, predicted)
        rows.append(_row(window, layer, record, into, of_output))
        seen.add(layer.path)
    return tuple(rows)


def _in_order(window: Window) -> list[Layer]:
    """By first call, where there was one; else, and inside a module, as the model's constructor has them."""
    place = {key: at for at, key in enumerate(window.model.tensors)}
    return sorted(
        window.model.layers, key=lambda x: (math.inf if x.depth is None else x.depth, place.get(x.weight.key, 0))
    )


def _row(window: Window, layer: Layer, record: TensorStats, into: Passed, of_output: dict[str, Any]) -> LayerRow:
    weight, std = layer.weight, known(record.moments.std)
    scheme = window.recognition.by_key.get(weight.key)
    expected = None if window.recognition.is_trained else _expected_std(layer, into.rms)
    size = known(record.moments.rms)
    measured = "forward_gain" in of_output and of_output["forward_gain"] is not None
    return LayerRow(
        path=weight.module_path,
        name=weight.name,
        module_type=weight.module_type,
        role=weight.role,
        shape=tuple(weight.shape),
        depth=layer.depth,
        activation_before=layer.activation_before,
        activation_after=layer.activation_after,
        scheme=scheme.name if scheme else None,
        scheme_formula=scheme.formula or None if scheme else None,
        scheme_confidence=scheme.confidence if scheme else None,
        std=std,
        expected_std=expected,
        octaves=math.log2(size / expected) if size and expected else None,
        nonfinite_count=record.moments.nonfinite_count,
        expected_forward_gain=expected * math.sqrt(layer.fan_in) if measured and expected and layer.fan_in else None,
        **of_output,
    )


def _of_output(window: Window, layer: Layer, into: Passed, predicted: Mapping[int, Expected]) -> dict[str, Any]:
    """What was measured behind the layer, as fields of its row."""
    record, gradient = window.stats(layer.output), window.stats(layer.output_gradient)
    output_rms = known(record.moments.rms) if record else None
    gradient_rms = known(gradient.moments.rms) if gradient else None
    channels = record.channels if record else ChannelStats()
    return {
        "forward_gain": _ratio(output_rms, into.rms),
        "backward_gain": _ratio(into.gradient_rms, gradient_rms),
        "output_rms": output_rms,
        "predicted_rms": predicted.get(layer.output.key) if layer.output and record else None,
        "gradient_rms": gradient_rms,
        "predicted_gradient_rms": predicted.get(layer.output_gradient.key) if layer.output_gradient else None,
        "signal_fraction": known(channels.signal_fraction),
        "dead_fraction": known(channels.dead_fraction),
        "saturated_fraction": known(channels.saturated_fraction),
    }


def _expected_std(layer: Layer, input_rms: float | None) -> float | None:
    """What keeps this layer's signal: nothing for tables, heads and branches, where other rules hold."""
    if layer.fan_in is None or layer.is_table or layer.is_head or layer.is_residual:
        return None
    # Only the first layer sees the data's own scale; the others are to keep what theory says they get.
    scale = input_rms if layer.weight.role is Role.INPUT and input_rms else 1.0
    return expected_std(layer.fan_in, layer.activation_before, scale)


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def known(value: float) -> float | None:
    """A number that is one; None for an absent or non-finite one."""
    return value if math.isfinite(value) else None
