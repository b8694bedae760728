"""Tensors in what a module returns: tuples, mappings and dataclasses are opened, names are paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch

_DEPTH: Final = 4
_MAX_TENSORS: Final = 64
_PLAIN: Final = (int, float, bool, str, bytes, complex, type(None), torch.Size, torch.dtype, torch.device)


@dataclasses.dataclass(slots=True)
class Found:
    """Tensors by name (`output`, `output.0`, `output.logits`) and classes of objects that are not opened."""

    tensors: list[tuple[str, torch.Tensor]]
    unknown: list[str]


def tensors_in(value: Any, name: str = "output") -> Found:
    """Every tensor in a module's output, at most 64, four levels deep. Never raises for an unknown object."""
    found = Found([], [])
    for path, item in _items(value, name, 0):
        if isinstance(item, torch.Tensor):
            found.tensors.append((path, item))
            if len(found.tensors) >= _MAX_TENSORS:
                break
        else:
            found.unknown.append(type(item).__name__)
    return found


def _items(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, _PLAIN):
        return
    elif (parts := _parts(value)) is None or depth >= _DEPTH:
        yield name, value
    else:
        for key, part in parts:
            yield from _items(part, f"{name}.{key}", depth + 1)


def _parts(value: Any) -> list[tuple[object, Any]] | None:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
    return None


def main_tensor(found: Found) -> torch.Tensor | None:
    """The prediction among a model's outputs: `logits` where there is one, else the first floating-point tensor."""
    floating = [(name, t) for name, t in found.tensors if t.dtype.is_floating_point]
    named = [t for name, t in floating if name.rpartition(".")[2] == "logits"]
    return named[0] if named else floating[0][1] if floating else None
