"""The fans of a weight: those that signals see, PyTorch's own, and those that are mistaken easily. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from initscope.hooks.schemes.scheme import Slip
from initscope.hooks.wire import TensorInfo


@dataclass(frozen=True, slots=True)
class Fans:
    """Terms that one output, and one input's gradient, is a sum of."""

    fan_in: float
    fan_out: float
    is_effective: bool = True


def fans_of(info: TensorInfo) -> tuple[Fans, ...]:
    """The effective fans first, then PyTorch's own where they differ; only those for a module that is not known."""
    own = torch_fans(tuple(info.shape))
    found: list[Fans] = []
    if info.fan_in and info.fan_out:
        found.append(Fans(info.fan_in, info.fan_out))
    if own is not None and not any((f.fan_in, f.fan_out) == (own.fan_in, own.fan_out) for f in found):
        found.append(own if found else Fans(own.fan_in, own.fan_out))
    return tuple(found)


@lru_cache(maxsize=4096)
def torch_fans(shape: tuple[int, ...]) -> Fans | None:
    """(fan_in, fan_out) as torch.nn.init takes them from a shape alone; None for fewer than two axes."""
    if len(shape) < 2 or not math.prod(shape):
        return None
    kernel = math.prod(shape[2:])
    return Fans(float(shape[1] * kernel), float(shape[0] * kernel), is_effective=False)


def wrong_fans(info: TensorInfo) -> dict[Slip, float]:
    """Numbers that are easily taken for fan_in, by the slip that does so; those equal to the right one left out."""
    if not info.fan_in or len(info.shape) < 2:
        return {}
    kernel, shape = math.prod(info.shape[2:]), info.shape
    is_transposed = "transpose" in info.module_type.lower()
    wrong: dict[Slip, float] = {}
    if info.fan_out and not is_transposed:
        wrong[Slip.FAN_OUT] = info.fan_out
    if is_transposed:
        # Their fan_out is the same number: the weight is stored as (inputs, outputs, …), and was read the usual way.
        wrong[Slip.SWAPPED] = float(shape[1] * kernel)
        wrong[Slip.STRIDE] = float(shape[0] * kernel)
    if kernel > 1:
        wrong[Slip.NO_KERNEL] = info.fan_in / kernel
        if info.fan_out and not is_transposed and shape[0] * kernel > info.fan_out:
            wrong[Slip.NO_GROUPS] = float(shape[0] * kernel)
    elif info.fan_out and len(shape) == 2 and shape[0] > info.fan_out and shape[1] == info.fan_in:
        wrong[Slip.FUSED] = float(shape[0])
    wrong[Slip.ALL_ELEMENTS] = float(math.prod(shape))
    return {slip: fan for slip, fan in wrong.items() if abs(fan / info.fan_in - 1.0) > 0.02}
