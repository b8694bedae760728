"""The model as layers: each weight matrix with what was measured around it, and the chains a signal passes through.

Floor 1: knows only the descriptions of tensors, so that theory and rules read a model the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.vocabulary import Kind, Role
from initscope.hooks.wire import TensorInfo

_VECTORS: Final = frozenset({Role.BIAS, Role.NORM_BIAS, Role.NORM_GAIN})
_TABLES: Final = frozenset({Role.EMBEDDING, Role.POSITION})
_RECURRENT: Final = ("lstm", "gru", "rnn")


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A weight matrix (two or more axes) and the tensors of its module; absent ones are None."""

    weight: TensorInfo
    bias: TensorInfo | None = None
    gradient: TensorInfo | None = None
    update: TensorInfo | None = None
    output: TensorInfo | None = None
    output_gradient: TensorInfo | None = None

    @property
    def path(self) -> str:
        """Module path."""
        return self.weight.module_path

    @property
    def depth(self) -> int | None:
        """Order of the module's first forward call."""
        return self.weight.depth if self.weight.depth is not None or self.output is None else self.output.depth

    @property
    def fan_in(self) -> float | None:
        """Effective number of inputs of one unit, where it is known and positive."""
        fan = self.weight.fan_in
        return fan if fan is not None and math.isfinite(fan) and fan > 0 else None

    @property
    def inputs(self) -> int:
        """Channels or features that the matrix takes (a kernel: in one group); some keep the matrix transposed."""
        is_matrix = len(self.weight.shape) == 2 and self.fan_in is not None
        return int(self.fan_in or 0) if is_matrix else _widths(self)[1]

    @property
    def activation_before(self) -> str | None:
        """The activation that made the input."""
        return self.weight.activation_before or (self.output.activation_before if self.output else None)

    @property
    def activation_after(self) -> str | None:
        """The activation that takes the output, after a norm if there is one."""
        return self.weight.activation_after or (self.output.activation_after if self.output else None)

    @property
    def norm_before(self) -> str | None:
        """The normalization between the layer before and this one."""
        return self.weight.norm_before or (self.output.norm_before if self.output else None)

    @property
    def norm_after(self) -> str | None:
        """The normalization of the output."""
        return self.weight.norm_after or (self.output.norm_after if self.output else None)

    @property
    def is_residual(self) -> bool:
        """Whether the output is added to a residual stream."""
        flags = self.weight.residual or (self.output is not None and self.output.residual)
        return flags or self.weight.role is Role.RESIDUAL_OUTPUT

    @property
    def is_head(self) -> bool:
        """Whether this is the model's last matrix."""
        return self.weight.role is Role.OUTPUT

    @property
    def is_table(self) -> bool:
        """Whether rows are looked up (token or position embedding) instead of multiplied."""
        return self.weight.role in _TABLES or "embedding" in self.weight.module_type.lower()

    @property
    def is_plain(self) -> bool:
        """Whether it maps an input to the output by one matrix (linear or convolution)."""
        recurrent = any(word in self.weight.module_type.lower() for word in _RECURRENT)
        attention = "multihead" in self.weight.module_type.lower()
        return self.weight.name == "weight" and not (recurrent or attention or self.is_table)


def layers_of(tensors: Mapping[int, TensorInfo]) -> tuple[Layer, ...]:
    """Every weight matrix as a layer, in forward order; those without a depth last."""
    matrices = [t for t in tensors.values() if _is_matrix(t)]
    beside = _by_identity(tensors.values())
    outputs = {kind: _first_output(tensors.values(), kind) for kind in (Kind.ACTIVATION, Kind.ACTIVATION_GRADIENT)}
    layers = [
        Layer(
            t,
            beside.get((t.module_path, t.name.replace("weight", "bias"), Kind.WEIGHT)) if "weight" in t.name else None,
            beside.get((t.module_path, t.name, Kind.GRADIENT)),
            beside.get((t.module_path, t.name, Kind.UPDATE)),
            outputs[Kind.ACTIVATION].get(t.module_path),
            outputs[Kind.ACTIVATION_GRADIENT].get(t.module_path),
        )
        for t in matrices
    ]
    return tuple(sorted(layers, key=lambda layer: (_order(layer.depth), layer.path, layer.weight.name)))


def chains_of(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], ...]:
    """Runs of plain layers that feed each other without a normalization or a residual sum between them, heads left out.

    Only inside such a run does the scale of one layer decide what the next one sees.
    """
    chains: list[list[Layer]] = [[]]
    for layer in layers:
        if layer.depth is None or layer.output is None or not layer.is_plain:
            continue
        if chains[-1] and _is_cut(chains[-1][-1], layer):
            chains.append([])
        if layer.is_head:
            chains.append([])
        else:
            chains[-1].append(layer)
    return tuple(tuple(chain) for chain in chains if chain)


def _is_cut(before: Layer, layer: Layer) -> bool:
    return bool(before.norm_after or layer.norm_before or before.is_residual or not fits(before, layer))


def fits(before: Layer, layer: Layer) -> bool:
    """Whether the one's outputs can be the other's inputs, and all of them: no concatenation, no other branch."""
    width, inputs = _widths(before)[0], _widths(layer)[1]
    if width == inputs or not width or not inputs:
        return True
    is_kernel = len(layer.weight.shape) > 2
    # A linear layer may see many positions, flattened; a grouped convolution sees a part of the channels.
    return width % inputs == 0 if is_kernel else len(before.weight.shape) > 2 and inputs % width == 0


def _widths(layer: Layer) -> tuple[int, int]:
    """(outputs, inputs) of a matrix or kernel; transposed convolutions keep them the other way round."""
    rows, columns = layer.weight.shape[0], layer.weight.shape[1]
    return (columns, rows) if "transpose" in layer.weight.module_type.lower() else (rows, columns)


def _is_matrix(t: TensorInfo) -> bool:
    return t.kind is Kind.WEIGHT and len(t.shape) > 1 and t.role not in _VECTORS


def _by_identity(tensors: Iterable[TensorInfo]) -> dict[tuple[str, str, Kind], TensorInfo]:
    return {(t.module_path, t.name, t.kind): t for t in tensors}


def _first_output(tensors: Iterable[TensorInfo], kind: Kind) -> dict[str, TensorInfo]:
    found: dict[str, TensorInfo] = {}
    for t in tensors:
        if t.kind is kind and (t.module_path not in found or t.name < found[t.module_path].name):
            found[t.module_path] = t
    return found


def _order(depth: int | None) -> float:
    return math.inf if depth is None else depth
