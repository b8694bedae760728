"""What units do over a batch: signal fraction, dead channels, saturated elements, similar rows.

Definitions are ARCHITECTURE's section 4 and those of `initscope.hooks.moments.ChannelStats`. Nothing here looks at a
value of a tensor that is not on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from initscope.hooks.moments import ABSENT
from initscope.hooks.probe.reduce import Cell

DEAD_AFTER: Final = frozenset({"relu", "relu6"})
"""Activations that a channel never above zero cannot pass."""
FLAT_BEYOND: Final = {"tanh": 2.0, "sigmoid": 4.0}
"""|z| beyond which the slope is under 7 % (tanh) or 2 % (sigmoid)."""
_ROWS: Final = 64
_MIN_ROW: Final = 8
_TOGETHER: Final = 1 << 18
"""Elements of rows that are compared at once."""
_COMFORT: Final = (1e-9, 1e9)
_DOT: Final = 1 << 15
"""Elements up to which a float32 dot product is exact enough."""


@dataclass(slots=True)
class SampleSums:
    """Sums over samples of a module's output, from which its signal fraction follows; they add over calls.

    `channels` is the sum of each channel over the samples, `square` the sum of all squares (float64, no dimension).
    """

    channels: torch.Tensor
    square: torch.Tensor
    samples: int

    def add(self, other: SampleSums) -> bool:
        """Adds another call's sums; False if that call had other channels."""
        if self.channels.shape != other.channels.shape or self.channels.device != other.channels.device:
            return False
        self.channels = self.channels.double() + other.channels
        self.square = self.square + other.square
        self.samples += other.samples
        return True

    def cell(self) -> Cell | None:
        """(Σ_c (Σ_b h)², Σ h²), from which the fraction follows; None for one sample, which says nothing."""
        if self.samples < 2:
            return None
        channels = self.channels.double()
        return torch.stack([torch.dot(channels, channels), self.square])


def sample_sums(x: torch.Tensor, axis: int) -> SampleSums | None:
    """Sums of an output with its batch first and its channels at `axis` (1 or -1); None where it has no channels."""
    if x.dim() < 2 or not x.numel():
        return None
    h = _positions_averaged(x, axis)
    scale = _scale_of(h)
    if scale is None:
        return SampleSums(h.sum(0), _square_sum(h), h.shape[0])
    h = h * scale
    return SampleSums(h.sum(0).double() / scale, _square_sum(h) / scale / scale, h.shape[0])


def _square_sum(h: torch.Tensor) -> torch.Tensor:
    if h.is_cpu and h.is_contiguous() and h.numel() <= _DOT:
        flat = h.view(-1)
        return torch.dot(flat, flat).double()
    return (h * h).sum().double()


def _positions_averaged(x: torch.Tensor, axis: int) -> torch.Tensor:
    work = torch.float64 if x.dtype is torch.float64 else torch.float32
    if x.dim() == 2:
        return x.to(work)
    if axis == 1:
        return x.flatten(2).mean(2, dtype=work)
    return (x if x.dim() == 3 else x.flatten(1, -2)).mean(1, dtype=work)


def _scale_of(h: torch.Tensor) -> torch.Tensor | float | None:
    """A power of two that keeps squares inside the type; None on the CPU where none is needed."""
    if h.is_cpu:
        low, high = (v.item() for v in torch.aminmax(h))
        top = max(-low, high)
        if _COMFORT[0] < top < _COMFORT[1] or top == 0.0 or not math.isfinite(top):
            return None
        return 2.0 ** -max(-100, min(100, math.frexp(top)[1]))
    exponent = torch.frexp(h.abs().amax().nan_to_num(1.0, 1.0, 1.0)).exponent.clamp(-100, 100)
    return torch.ldexp(torch.ones((), dtype=torch.float64, device=h.device), -exponent)


def signal_fraction(common: float, square: float, samples: int) -> float:
    """Share of the mean square that varies over samples; absent for zeros or non-finite values.

    With h of shape (samples, channels): 1 − Σ_c (Σ_b h)² ÷ samples ÷ Σ h².
    """
    if not square > 0.0 or not math.isfinite(square):
        return ABSENT
    return min(1.0, max(0.0, 1.0 - common / samples / square))


def channel_peaks(x: torch.Tensor, axis: int) -> torch.Tensor | None:
    """Largest value of each channel, shape (channels,); None where there are no channels."""
    if x.dim() < 2 or not x.numel():
        return None
    if axis == 1 and x.dim() > 2:
        return x.amax((0, *range(2, x.dim())))
    return x.flatten(0, -2).amax(0)


def dead_cell(peaks: torch.Tensor) -> Cell:
    """Share of channels that never were above zero, one number. NaN counts as alive: it is another fault."""
    dead = (peaks <= 0).sum()
    return [dead.item() / len(peaks)] if peaks.is_cpu else dead.double().reshape(1) / len(peaks)


def saturated(x: torch.Tensor, activation: str, *, own: bool) -> Cell:
    """Number of elements in the flat part, one number: of a pre-activation, or of the activation's `own` output."""
    limit = FLAT_BEYOND[activation]
    if not own:
        flat = x.abs() > limit
    elif activation == "tanh":
        flat = x.abs() > math.tanh(limit)
    else:
        flat = (x - 0.5).abs() > 1.0 / (1.0 + math.exp(-limit)) - 0.5
    return [flat.sum().item()] if x.is_cpu else flat.sum().double().reshape(1)


def row_similarities(weights: Sequence[torch.Tensor]) -> list[Cell | None]:
    """For each weight (largest |cosine| among rows, rows compared); None where it is not defined.

    At most 64 evenly spaced rows, flattened; rows of zeros or with a non-finite element do not take part. Small
    weights of one shape are compared together.
    """
    found: list[Cell | None] = [None] * len(weights)
    groups: dict[tuple[torch.Size, torch.dtype, torch.device], list[int]] = {}
    for index, weight in enumerate(weights):
        if weight.dim() > 1 and weight.shape[0] > 1 and weight[0].numel() >= _MIN_ROW:
            groups.setdefault((weight.shape, weight.dtype, weight.device), []).append(index)
    for (shape, _, device), members in groups.items():
        at_once = max(1, _TOGETHER // (min(shape[0], _ROWS) * shape[1:].numel()))
        for start in range(0, len(members), at_once):
            chosen = members[start : start + at_once]
            pairs = _similar(torch.stack([_some_rows(weights[i].detach()) for i in chosen]))
            cells = pairs.tolist() if device.type == "cpu" else pairs
            for index, cell in zip(chosen, cells, strict=True):
                found[index] = cell
    return found


def _some_rows(weight: torch.Tensor) -> torch.Tensor:
    n = weight.shape[0]
    if n > _ROWS:
        weight = weight[torch.arange(_ROWS, device=weight.device) * n // _ROWS]
    return weight.flatten(1)


def _similar(rows: torch.Tensor) -> torch.Tensor:
    """(largest |cosine|, usable rows) of each of several sets of rows, float64 of shape (sets, 2)."""
    rows = rows.to(torch.float64 if rows.dtype is torch.float64 else torch.float32)
    top = rows.abs().amax(2, keepdim=True)
    usable = torch.isfinite(top) & (top > 0.0)
    rows = torch.where(usable, rows / top, 0.0)
    rows = torch.where(usable, rows / rows.norm(dim=2, keepdim=True), 0.0)
    # The root's hook runs inside the user's autocast, which would round the products to eight bits.
    with torch.autocast(rows.device.type, enabled=False):
        cosines = torch.bmm(rows, rows.transpose(1, 2)).abs_()
    cosines.diagonal(dim1=1, dim2=2).zero_()
    return torch.stack([cosines.amax((1, 2)).double(), usable.sum((1, 2)).double()], 1)


def similarity(largest: float, rows: float) -> float:
    """The record's value: absent if fewer than two rows could be compared."""
    return min(1.0, largest) if rows >= 2 else ABSENT
