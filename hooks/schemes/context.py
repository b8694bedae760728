"""What a formula may need of the whole model: its width, how many blocks there are, which one a weight is in. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from initscope.hooks.vocabulary import Role
from initscope.hooks.wire import TensorInfo

_RESIDUAL_NAMES: Final = frozenset({
    "c_proj", "o_proj", "out_proj", "down_proj", "fc2", "w2", "wo", "dense_4h_to_h", "to_out", "lin2", "linear2",
    "attn_out", "ff_out", "proj_out", "conv2", "conv3", "out_lin",
})  # fmt: skip
"""Last parts of the paths of matrices that end a branch, for models whose graph was not seen."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the model a weight is. `counts`: numbers of blocks that its formula may mean; `indices`: its block's."""

    counts: tuple[int, ...] = ()
    indices: tuple[int, ...] = ()
    is_residual: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """The model around a weight. `width`: of its stream, None where there is no usual one."""

    width: int | None = None
    total_blocks: int = 0
    places: dict[int, Place] = field(default_factory=dict)

    def place(self, info: TensorInfo) -> Place:
        """Where a weight is."""
        return self.places.get(info.key, _NOWHERE)


_NOWHERE: Final = Place()


def context_of(weights: Iterable[TensorInfo]) -> Context:
    """The context of all weights of a model with two or more axes."""
    listed = list(weights)
    numbers = {t.key: _numbers(t.block) for t in listed}
    members: dict[str, set[str]] = defaultdict(set)
    for found in numbers.values():
        for container, index in found:
            members[container].add(index)
    counts = {container: len(indices) for container, indices in members.items() if len(indices) > 1}
    nearest = {found[-1][0] for found in numbers.values() if found and found[-1][0] in counts}
    total = sum(counts[container] for container in nearest)
    is_seen = any(t.residual for t in listed)
    places = {
        t.key: Place(
            tuple(dict.fromkeys([*(counts[c] for c, _ in found if c in counts), total])) if found else (),
            tuple(dict.fromkeys(int(index) for c, index in found if c in counts)),
            t.residual or t.role is Role.RESIDUAL_OUTPUT or (not is_seen and _is_named_so(t)),
        )
        for t in listed
        if (found := numbers[t.key]) or t.residual
    }
    return Context(_width(listed), total, places)


def _numbers(block: str | None) -> list[tuple[str, str]]:
    """(container, index) of every numbered part of a block's path, outermost first."""
    parts = block.split(".") if block else []
    return [(".".join(parts[:i]), part) for i, part in enumerate(parts) if part.isdigit()]


def _is_named_so(t: TensorInfo) -> bool:
    return t.module_path.rpartition(".")[2] in _RESIDUAL_NAMES


def _width(weights: list[TensorInfo]) -> int | None:
    tables = Counter(t.shape[1] for t in weights if t.role in (Role.EMBEDDING, Role.POSITION) and len(t.shape) == 2)
    if tables:
        return tables.most_common(1)[0][0]
    inputs = Counter(int(t.fan_in) for t in weights if t.block is not None and t.fan_in and len(t.shape) == 2)
    return inputs.most_common(1)[0][0] if inputs else None
