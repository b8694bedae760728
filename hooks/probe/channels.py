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
_COMFORT: Final = (1e-9, 1e9)


@dataclass(slots=True)
class SampleSums:
    """Sums over samples of a module's output, from which its signal fraction follows; they add over calls.

    `vector` is float64 of shape (channels + 1,): the sum of each channel over the samples, then the sum of squares.
    """

    vector: torch.Tensor
    samples: int

    def add(self, other: SampleSums) -> bool:
        """Adds another call's sums; False if that call had other channels."""
        if self.vector.shape != other.vector.shape or self.vector.device != other.vector.device:
            return False
        self.vector += other.vector
        self.samples += other.samples
        return True


def sample_sums(x: torch.Tensor, axis: int) -> SampleSums | None:
    """Sums of an output with its batch first and its channels at `axis` (1 or -1); None where it has no channels."""
    if x.dim() < 2 or not x.numel():
        return None
    h = _positions_averaged(x, axis)
    scale = _scale_of(h)
    h = h * scale
    sums = h.sum(0).double() / scale
    square = (h * h).sum().double() / scale / scale
    return SampleSums(torch.cat([sums, square.reshape(1)]), h.shape[0])


def _positions_averaged(x: torch.Tensor, axis: int) -> torch.Tensor:
    work = torch.float64 if x.dtype is torch.float64 else torch.float32
    if x.dim() == 2:
        return x.to(work)
    if axis == 1:
        return x.flatten(2).mean(2, dtype=work)
    return (x if x.dim() == 3 else x.flatten(1, -2)).mean(1, dtype=work)


def _scale_of(h: torch.Tensor) -> torch.Tensor | float:
    """A factor (float64, a power of two) that keeps squares inside the type."""
    if h.is_cpu:
        low, high = (v.item() for v in torch.aminmax(h))
        top = max(-low, high)
        if _COMFORT[0] < top < _COMFORT[1] or top == 0.0 or not math.isfinite(top):
            return 1.0
        return 2.0 ** -max(-100, min(100, math.frexp(top)[1]))
    exponent = torch.frexp(h.abs().amax().nan_to_num(1.0, 1.0, 1.0)).exponent.clamp(-100, 100)
    return torch.ldexp(torch.ones((), dtype=h.dtype, device=h.device), -exponent)


def signal_fraction(sums: Sequence[float], samples: int) -> float:
    """Share of the mean square that varies over samples; absent for one sample, zeros or non-finite values.

    With h of shape (samples, channels): 1 − Σ_c (Σ_b h)² ÷ samples ÷ Σ h².
    """
    square = sums[-1]
    if samples < 2 or not square > 0.0 or not math.isfinite(square):
        return ABSENT
    # Divided before squaring: sums of 1e-200 in float64 have no square.
    unit = math.sqrt(square)
    common = math.fsum((s / unit) ** 2 for s in sums[:-1]) / samples
    return min(1.0, max(0.0, 1.0 - common))


def channel_peaks(x: torch.Tensor, axis: int) -> torch.Tensor | None:
    """Largest value of each channel, shape (channels,); None where there are no channels."""
    if x.dim() < 2 or not x.numel():
        return None
    if axis == 1 and x.dim() > 2:
        return x.amax((0, *range(2, x.dim())))
    return x.flatten(0, -2).amax(0)


def dead_cell(peaks: torch.Tensor) -> torch.Tensor:
    """Share of channels that never were above zero, shape (1,), float64. NaN counts as alive: it is another fault."""
    return (peaks <= 0).double().mean().reshape(1)


def saturated(x: torch.Tensor, activation: str, *, own: bool) -> Cell:
    """Number of elements in the flat part, one number: of a pre-activation, or of the activation's `own` output."""
    limit = FLAT_BEYOND[activation]
    if not own:
        flat = x.abs() > limit
    elif activation == "tanh":
        flat = x.abs() > math.tanh(limit)
    else:
        flat = (x - 0.5).abs() > 1.0 / (1.0 + math.exp(-limit)) - 0.5
    return flat.sum().double().reshape(1)


def row_similarity(weight: torch.Tensor) -> torch.Tensor | None:
    """(largest |cosine| among rows, rows compared), float64 of shape (2,); None where it is not defined.

    At most 64 evenly spaced rows, flattened; rows of zeros or with a non-finite element do not take part.
    """
    if weight.dim() < 2 or weight.shape[0] < 2 or weight[0].numel() < _MIN_ROW:
        return None
    n = weight.shape[0]
    if n > _ROWS:
        weight = weight[torch.arange(_ROWS, device=weight.device) * n // _ROWS]
    rows = weight.flatten(1)
    rows = rows.to(torch.float64 if rows.dtype is torch.float64 else torch.float32)
    top = rows.abs().amax(1, keepdim=True)
    usable = torch.isfinite(top) & (top > 0.0)
    rows = torch.where(usable, rows / top, 0.0)
    rows = torch.where(usable, rows / rows.norm(dim=1, keepdim=True), 0.0)
    cosines = (rows @ rows.T).fill_diagonal_(0.0)
    return torch.stack([cosines.abs().amax().double(), usable.sum().double()])


def similarity(largest: float, rows: float) -> float:
    """The record's value: absent if fewer than two rows could be compared."""
    return min(1.0, largest) if rows >= 2 else ABSENT
