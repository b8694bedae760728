"""Updates of parameters, read from a fixed sample of each tensor before and after the optimizer's step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import torch

SAMPLE: Final = 16_384
"""Elements of a tensor that are compared; smaller tensors are compared whole."""
_BUDGET: Final = 1 << 21
"""Elements over all tensors: the copies are short-lived, but a thousand of them would still be 64 MiB."""
_LEAST: Final = 1_024


def sample_size(tensors: int) -> int:
    """Elements a tensor for a model of so many parameters."""
    return max(_LEAST, min(SAMPLE, _BUDGET // max(1, tensors)))


def sample_indices(numel: int, size: int = SAMPLE) -> torch.Tensor | None:
    """The elements that stand for a tensor of `numel` elements, ascending; None if all of them do.

    Depends on nothing but its arguments, so that tensors of equal size share it and every rank takes the same.
    """
    if numel <= size:
        return None
    generator = torch.Generator("cpu").manual_seed(numel)
    chosen: torch.Tensor = torch.randint(numel, (size,), generator=generator, device="cpu").unique()  # type: ignore[no-untyped-call]
    return chosen


class Updates:
    """Samples of parameters by position, from before a step."""

    def __init__(self, tensors: int) -> None:
        self._size = sample_size(tensors)
        self._indices: dict[tuple[int, torch.device], torch.Tensor | None] = {}
        self._before: dict[int, torch.Tensor] = {}

    def before(self, tensors: Iterable[tuple[int, torch.Tensor]]) -> None:
        """Copies the sample of each (position, parameter) that has none yet for this step."""
        for position, tensor in tensors:
            if position not in self._before:
                self._before[position] = self._sampled(tensor, copy=True)

    def after(self, tensors: Mapping[int, torch.Tensor]) -> list[tuple[int, torch.Tensor]]:
        """(position, change of the sample) of those whose sample was taken; the samples are dropped."""
        changes = []
        for position, tensor in tensors.items():
            old = self._before.pop(position, None)
            if old is None or old.device != tensor.device:
                continue
            new = self._sampled(tensor, copy=False)
            if new.dtype in (torch.bfloat16, torch.float16):
                new, old = new.float(), old.float()
            if new.shape == old.shape:
                changes.append((position, new - old))
        return changes

    def clear(self) -> None:
        """Drops what is held."""
        self._before.clear()

    def _sampled(self, tensor: torch.Tensor, *, copy: bool) -> torch.Tensor:
        # The order of elements must be that of the indices, so memory order will not do for copies of a view.
        flat = tensor.detach().reshape(-1)
        key = (flat.numel(), flat.device)
        if key not in self._indices:
            indices = sample_indices(flat.numel(), self._size)
            self._indices[key] = None if indices is None else indices.to(flat.device)
        chosen = self._indices[key]
        if chosen is not None:
            return flat[chosen]
        return flat.clone() if copy else flat
