"""Structure of weight matrices at the start: how norms spread, how rows and columns stand to each other.

Read once, when a run's first step is measured; definitions are those of `initscope.hooks.wire.Traits`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import torch

from initscope.hooks.wire import Traits

_BLOCK: Final = (256, 512)
"""Rows and columns of the block whose largest singular value is found."""
_ITERATIONS: Final = 12
_VECTORS: Final = 64
_DIGESTED: Final = 4_096
"""Evenly spaced elements that stand for the content."""
_LEAST: Final = 16
"""Elements below which equal contents are no surprise."""


def read_traits(weights: Sequence[torch.Tensor]) -> list[Traits]:
    """The traits of each, of any shape; a field is absent where a tensor is too small or too broken for it."""
    return [_traits(weight.detach()) for weight in weights]


def _traits(weight: torch.Tensor) -> Traits:
    digest = digest_of(weight)
    matrix = weight.flatten(1) if weight.dim() > 1 else weight[None]
    rows, columns = matrix.shape
    if weight.dim() < 2 or min(rows, columns) < 2:
        return Traits(digest=digest)
    with torch.autocast(weight.device.type, enabled=False):
        work = matrix.float() if matrix.dtype is not torch.float64 else matrix
        top = work.abs().amax()
        # One look at a value for each tensor; on the host it costs nothing.
        if not 0.0 < float(top) < math.inf:
            return Traits(digest=digest)
        work = work / top
        by_row, by_column = (work * work).sum(1).sqrt(), (work * work).sum(0).sqrt()
        numbers = torch.stack(
            [
                _spread(by_row),
                _spread(by_column),
                _cosine(_some(work, _VECTORS)),
                _cosine(_some(work.t(), _VECTORS)),
                _spectral(_some(_some(work, _BLOCK[0]).t(), _BLOCK[1]).t()),
            ]
        ).tolist()
    return Traits(
        row_spread=_finite(numbers[0]),
        column_spread=_finite(numbers[1]),
        row_cosine=_finite(numbers[2]),
        column_cosine=_finite(numbers[3]),
        spectral_ratio=_finite(numbers[4]),
        digest=digest,
    )


def _some(matrix: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many evenly spaced rows."""
    n = matrix.shape[0]
    return matrix if n <= most else matrix[torch.arange(most, device=matrix.device) * n // most]


def _spread(norms: torch.Tensor) -> torch.Tensor:
    return norms.std(correction=0) / norms.mean()


def _cosine(rows: torch.Tensor) -> torch.Tensor:
    """Rms cosine of pairs of rows × √(their length); rows of zeros do not take part."""
    norms = rows.norm(dim=1, keepdim=True)
    unit = rows / norms.clamp(min=torch.finfo(rows.dtype).tiny)
    cosines = unit @ unit.t()
    cosines.fill_diagonal_(0.0)
    used = (norms > 0).sum()
    mean: torch.Tensor = cosines.square().sum() / (used * (used - 1))
    return (mean * rows.shape[1]).sqrt()


def _spectral(block: torch.Tensor) -> torch.Tensor:
    """σ₁ of a block in units of the edge that independent elements have, by power iteration from a fixed vector."""
    rows, columns = block.shape
    vector = torch.linspace(1.0, 2.0, columns, dtype=block.dtype, device=block.device).cos().add_(0.1)
    for _ in range(_ITERATIONS):
        vector = block.t() @ (block @ vector)
        vector = vector / vector.norm()
    largest: torch.Tensor = (block @ vector).norm()
    return largest / (block.square().mean().sqrt() * (math.sqrt(rows) + math.sqrt(columns)))


def digest_of(weight: torch.Tensor) -> str | None:
    """What stands for shape and content; None for so few elements that equal ones are no surprise."""
    if weight.numel() < _LEAST:
        return None
    flat = weight.reshape(-1)
    n = flat.numel()
    if n > _DIGESTED:
        flat = flat[torch.arange(_DIGESTED, device=flat.device) * n // _DIGESTED]
    content = flat.to("cpu", copy=False).contiguous().view(torch.uint8).numpy(force=True).tobytes()
    return hashlib.blake2b(repr(tuple(weight.shape)).encode() + content, digest_size=8).hexdigest()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
