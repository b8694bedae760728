"""Which module of one model plays the part of which module of another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from initscope.hooks.vocabulary import Kind
from initscope.hooks.wire import TensorInfo


@dataclass(frozen=True, slots=True)
class ModulePair:
    """Two modules that correspond, and their tensors that do, in the order of kinds."""

    a: str
    b: str
    tensors: tuple[tuple[TensorInfo, TensorInfo], ...]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Modules in the forward order of A; paths of those without a counterpart, each in its own forward order."""

    modules: tuple[ModulePair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Module:
    path: str
    depth: float = math.inf
    type: str = ""
    tensors: dict[tuple[str, Kind], TensorInfo] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of its parameters by name."""
        return {name: tuple(t.shape) for (name, kind), t in self.tensors.items() if kind is Kind.WEIGHT}

    @property
    def signature(self) -> tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]:
        """What modules have in common that stand for each other whatever their paths: class and shapes."""
        return self.type, tuple(sorted(self.shapes.items()))


_Found = list[tuple[_Module, _Module]]


def pair_modules(a: Mapping[int, TensorInfo], b: Mapping[int, TensorInfo]) -> Pairing:
    """Pairs modules by their paths, or by class, shapes and order where more layers find a (better) counterpart so.

    Numbered paths shift when a layer is inserted, renamed ones are equal in nothing but their order. Whatever is left
    is paired by class, shapes and order between the same two paired neighbours, so that pairs do not cross.
    """
    ours, theirs = _modules(a.values()), _modules(b.values())
    by_path, by_order = _by_path(ours, theirs), _by_key(ours, theirs, lambda module: module.signature)
    found = by_order if _merit(by_order) > _merit(by_path) else by_path
    found = found + _between(ours, theirs, found)
    counterpart = {one.path: other for one, other in found}
    taken = {other.path for _, other in found}
    return Pairing(
        tuple(_pair(one, counterpart[one.path]) for one in ours if one.path in counterpart),
        tuple(one.path for one in ours if one.path not in counterpart),
        tuple(other.path for other in theirs if other.path not in taken),
    )


def _modules(tensors: Iterable[TensorInfo]) -> list[_Module]:
    """Modules in forward order; those without a depth last, by path (`2` before `10`)."""
    found: dict[str, _Module] = {}
    for tensor in tensors:
        module = found.setdefault(tensor.module_path, _Module(tensor.module_path))
        module.tensors[tensor.name, tensor.kind] = tensor
        module.type = module.type or tensor.module_type
        if tensor.depth is not None:
            module.depth = min(module.depth, tensor.depth)
    return sorted(found.values(), key=lambda module: (module.depth, _natural(module.path)))


def _natural(path: str) -> list[tuple[bool, int, str]]:
    """Sorting key: numbered parts by their number."""
    return [(not p.isdecimal(), int(p) if p.isdecimal() and len(p) < 19 else 0, p) for p in path.split(".")]


def _by_path(ours: Sequence[_Module], theirs: Sequence[_Module]) -> _Found:
    named = {module.path: module for module in theirs}
    return [(one, named[one.path]) for one in ours if one.path in named and _alike(one, named[one.path])]


def _alike(one: _Module, other: _Module) -> bool:
    """Whether modules of the same path do the same: a matrix is no norm, a layer no activation; widths may differ."""
    shapes, others = one.shapes, other.shapes
    if not shapes or not others:
        return one.type == other.type or not (shapes or others)
    shared = shapes.keys() & others.keys()
    return bool(shared) and all(len(shapes[name]) == len(others[name]) for name in shared)


def _by_key(ours: Iterable[_Module], theirs: Iterable[_Module], key: Callable[[_Module], Hashable]) -> _Found:
    """The first of a key with the first of that key, the second with the second, and so on."""
    waiting: dict[Hashable, list[_Module]] = defaultdict(list)
    for module in theirs:
        waiting[key(module)].append(module)
    queues = {name: iter(modules) for name, modules in waiting.items()}
    pairs = ((one, next(queues.get(key(one), iter(())), None)) for one in ours)
    return [(one, other) for one, other in pairs if other is not None]


def _merit(found: _Found) -> tuple[int, int]:
    """Pairs that have parameters, and those of them that are alike in class and shapes."""
    matched = [(one, other) for one, other in found if one.shapes]
    return len(matched), sum(one.signature == other.signature for one, other in matched)


def _between(ours: Sequence[_Module], theirs: Sequence[_Module], found: _Found) -> _Found:
    """Pairs among the rest, each between the same two neighbours of `found` on both sides."""
    number = {id(module): i for i, pair in enumerate(found) for module in pair}
    gaps: dict[int, int] = {}
    for side in (ours, theirs):
        gap = -1
        for module in side:
            gap = number.get(id(module), gap)
            gaps[id(module)] = gap
    rest = [[module for module in side if id(module) not in number] for side in (ours, theirs)]
    return _by_key(rest[0], rest[1], lambda module: (gaps[id(module)], module.signature))


def _pair(one: _Module, other: _Module) -> ModulePair:
    pairs = [(t, other.tensors[key]) for key, t in one.tensors.items() if key in other.tensors]
    for kind in Kind:
        left = [
            [t for key, t in side.tensors.items() if key[1] is kind and key not in against.tensors]
            for side, against in ((one, other), (other, one))
        ]
        # `output` against `output.logits`: the only one of its kind on both sides.
        if all(len(side) == 1 for side in left) and not any(t.kind is kind for t, _ in pairs):
            pairs.append((left[0][0], left[1][0]))
    order = list(Kind)
    pairs.sort(key=lambda pair: (order.index(pair[0].kind), not pair[0].name.startswith("weight"), pair[0].name))
    return ModulePair(one.path, other.path, tuple(pairs))
