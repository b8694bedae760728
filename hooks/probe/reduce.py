"""Reductions of a tensor to the thirteen numbers that its moments follow from.

A part describes one piece of a tensor: counts by class, then sums of powers of the deviation from a shift near the
mean, all in units of a power of two that keeps them inside float32. `to_moments` turns it into central moments in
float64. On the CPU the code looks at values on the way (nothing to synchronise there); elsewhere it is free of
branches on values, so that no device is waited for.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from typing import Final

import torch

from initscope.hooks.moments import Moments

Cell = Sequence[float] | torch.Tensor
"""Numbers on the host, or a float64 vector on the tensor's device."""
Part = tuple[int, Cell]
"""(number of elements, part)."""

PART_SIZE: Final = 13
"""nan, +inf, -inf, zeros, exponent, shift, exponent of the deviation, four power sums, min, max."""
_BLOCK: Final = 1 << 15
"""Elements that are worked on at once on the CPU: they stay in the cache, and their float32 sums exact to 1e-5."""
_PIECE: Final = 1 << 24
"""Elements that are worked on at once elsewhere: bounds the memory of temporaries."""
_SMALL: Final = 1 << 12
"""Tensors of at most this many elements are reduced together with others of their size."""
_COMFORT: Final = (1e-15, 1e15)
_DEVIATION_COMFORT: Final = (1e-4, 1e4)
_local: Final = threading.local()


def measure(tensor: torch.Tensor) -> list[Part]:
    """Parts of a real floating-point tensor of any layout in memory; none for an empty one."""
    flat = flatten(tensor)
    if not flat.numel():
        return []
    if flat.is_cpu:
        part = _on_host(flat)
        if part is not None:
            return [(flat.numel(), part)]
        return [(piece.numel(), _masked(piece).tolist()) for piece in torch.split(flat, _BLOCK)]
    return [(piece.numel(), _masked(piece)) for piece in torch.split(flat, _PIECE)]


def measure_all(tensors: Sequence[torch.Tensor]) -> list[list[Part]]:
    """As `measure` for each; small tensors on the CPU are reduced together, because a call costs more than they do."""
    found: list[list[Part]] = [[] for _ in tensors]
    groups: dict[tuple[int, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.is_cpu and 0 < tensor.numel() <= _SMALL:
            groups.setdefault((tensor.numel(), tensor.dtype), []).append(index)
        else:
            found[index] = measure(tensor)
    for (size, _), members in groups.items():
        at_once = max(1, _SMALL * 64 // size)
        for start in range(0, len(members), at_once):
            chosen = members[start : start + at_once]
            for index, parts in zip(chosen, _together([flatten(tensors[i]) for i in chosen]), strict=True):
                found[index] = parts
    return found


def flatten(tensor: torch.Tensor) -> torch.Tensor:
    """All elements in one dimension, in memory order where that saves a copy (moments do not depend on it)."""
    t = tensor.detach() if tensor.requires_grad else tensor
    if t.is_contiguous():
        return t.view(-1)
    if t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last):
        return t.permute(0, 2, 3, 1).reshape(-1)
    if t.dim() >= 2 and t.mT.is_contiguous():
        return t.mT.reshape(-1)
    return t.reshape(-1)


def _on_host(flat: torch.Tensor) -> list[float] | None:
    """The part of a CPU tensor; None if it has an element that is not finite."""
    n = flat.numel()
    low, high = (v.item() for v in torch.aminmax(flat))
    top = max(-low, high)
    if not math.isfinite(low) or not math.isfinite(high):
        return None
    if low == high:
        return [0, 0, 0, n if top == 0.0 else 0, 0, low, 0, 0, 0, 0, 0, low, high]
    work = torch.float64 if flat.dtype is torch.float64 else torch.float32
    exponent = 0 if _COMFORT[0] < top < _COMFORT[1] else math.frexp(top)[1]
    if exponent:
        flat = _times_two_to(flat.to(work), -exponent)
    shift = flat.sum(dtype=work).div_(n).item()
    spread = max(math.ldexp(high, -exponent) - shift, shift - math.ldexp(low, -exponent))
    inner = 0 if _DEVIATION_COMFORT[0] < spread < _DEVIATION_COMFORT[1] else math.frexp(spread)[1]
    zeros, sums = _power_sums(flat, work, shift, inner, count_zeros=low <= 0.0 <= high)
    return [0, 0, 0, zeros, exponent, shift, inner, *sums, low, high]


def _power_sums(
    flat: torch.Tensor, work: torch.dtype, shift: float, exponent: int, *, count_zeros: bool
) -> tuple[float, list[float]]:
    """(zeros, Σd, Σd², Σd³, Σd⁴) with d = (x − shift)·2^−exponent, block by block."""
    zeros, s1, s2, s3, s4 = 0.0, 0.0, 0.0, 0.0, 0.0
    size = min(_BLOCK, flat.numel())
    first, second = _scratch(work, size)
    for block in torch.split(flat, _BLOCK) if flat.numel() > _BLOCK else (flat,):
        n = block.numel()
        d, square = (first, second) if n == size else (first[:n], second[:n])
        x = block if block.dtype is work else block.to(work)
        torch.sub(x, shift, out=d)
        if exponent:
            _times_two_to(d, -exponent, out=d)
        s1 += d.sum().item()
        torch.mul(d, d, out=square)
        s2 += torch.dot(d, d).item()
        s3 += torch.dot(square, d).item()
        s4 += torch.dot(square, square).item()
        if count_zeros:
            # sign and dot are vectorised where count_nonzero is not; exact: a block counts far below 2^24.
            torch.sign(x, out=d)
            zeros += n - torch.dot(d, d).item()
    return zeros, [s1, s2, s3, s4]


def _scratch(work: torch.dtype, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two buffers of a thread's own: fresh ones of this size would be new pages of memory each time."""
    if size <= _SMALL:
        first, second = torch.empty(2, size, dtype=work, device="cpu").unbind()
        return first, second
    kept: dict[torch.dtype, torch.Tensor] = _local.__dict__.setdefault("buffers", {})
    if work not in kept:
        with torch.inference_mode(False):
            kept[work] = torch.empty(2, _BLOCK, dtype=work, device="cpu")
    both = kept[work]
    return both[0, :size], both[1, :size]


def _times_two_to(x: torch.Tensor, exponent: int, out: torch.Tensor | None = None) -> torch.Tensor:
    """x·2^exponent; in two steps, because 2^exponent itself may not fit into x's type."""
    half = exponent // 2
    return torch.mul(x, 2.0**half, out=out).mul_(2.0 ** (exponent - half))


def _together(flats: list[torch.Tensor]) -> Iterator[list[Part]]:
    """Parts of small CPU tensors of one size and type."""
    rows = torch.stack(flats)
    n = rows.shape[1]
    low, high = rows.amin(1), rows.amax(1)
    work = torch.float64 if rows.dtype is torch.float64 else torch.float32
    rows = rows.to(work)
    shift = rows.sum(1) / n
    d = rows - shift[:, None]
    spread = torch.maximum(high.to(work) - shift, shift - low.to(work)).nan_to_num_(0.0, 0.0, 0.0)
    inner = torch.frexp(spread).exponent.clamp_(-100, 100)
    d.mul_(torch.ldexp(torch.ones_like(shift), -inner)[:, None])
    square = d * d
    zeros = n - rows.sign().abs_().sum(1)
    columns = (zeros, shift, inner, d.sum(1), square.sum(1), (square * d).sum(1), (square * square).sum(1), low, high)
    table: list[list[float]] = torch.stack([c.double() for c in columns], 1).tolist()
    for flat, (zero, c, f, s1, s2, s3, s4, lo, hi) in zip(flats, table, strict=True):
        # Also false for NaN. What is outside goes the careful way, alone.
        if _COMFORT[0] < max(-lo, hi) < _COMFORT[1] and lo < hi:
            yield [(n, [0, 0, 0, zero, 0, c, f, s1, s2, s3, s4, lo, hi])]
        else:
            yield measure(flat)


def _masked(flat: torch.Tensor) -> torch.Tensor:
    """The part of any tensor on its own device, without a look at its values; float64, shape (PART_SIZE,)."""
    work = torch.float64 if flat.dtype is torch.float64 else torch.float32
    x = flat.to(work)
    finite = torch.isfinite(x)
    z = torch.where(finite, x, 0.0)
    exponent = _exponent_of(z)
    z = _scaled(z, -exponent)
    n = finite.sum().clamp_(min=1)
    shift = z.sum() / n
    d = torch.where(finite, z - shift, 0.0)
    inner = _exponent_of(d)
    d = _scaled(d, -inner)
    square = d * d
    counts = (x.isnan().sum(), (x == math.inf).sum(), (x == -math.inf).sum(), (x == 0.0).sum(), exponent)
    low, high = torch.where(finite, x, math.inf).amin(), torch.where(finite, x, -math.inf).amax()
    sums = (d.sum(), square.sum(), (square * d).sum(), (square * square).sum())
    return torch.stack([v.double() for v in (*counts, shift, inner, *sums, low, high)])


def _exponent_of(x: torch.Tensor) -> torch.Tensor:
    return torch.frexp(x.abs().amax()).exponent


def _scaled(x: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    half = torch.div(exponent, 2, rounding_mode="floor")
    one = torch.ones((), dtype=x.dtype, device=x.device)
    return x * torch.ldexp(one, half) * torch.ldexp(one, exponent - half)


def to_moments(count: int, part: Sequence[float]) -> Moments:
    """Moments of `count` elements from their part; float64."""
    nan, posinf, neginf, zero, exponent, shift, inner, s1, s2, s3, s4, low, high = part
    counts = (count, int(nan), int(posinf), int(neginf), int(zero))
    n = count - counts[1] - counts[2] - counts[3]
    if n == 0:
        return Moments(*counts)
    if low == high:
        return Moments(*counts, low, 0.0, 0.0, 0.0, low, high)
    e = int(exponent) + int(inner)
    c = s1 / n
    m2 = max(0.0, s2 - n * c * c)
    m3 = s3 - 3.0 * c * s2 + 2.0 * n * c**3
    m4 = max(0.0, s4 - 4.0 * c * s3 + 6.0 * c * c * s2 - 3.0 * n * c**4)
    if e == 0 and not exponent:
        return Moments(*counts, shift + c, m2, m3, m4, low, high)
    mean = _ldexp(shift, int(exponent)) + _ldexp(c, e)
    return Moments(*counts, mean, _ldexp(m2, 2 * e), _ldexp(m3, 3 * e), _ldexp(m4, 4 * e), low, high)


def _ldexp(x: float, exponent: int) -> float:
    try:
        return math.ldexp(x, exponent)
    except OverflowError:
        # Only float64 tensors reach this: the fourth power of 1e80 is past every float.
        return math.copysign(math.inf, x)
