"""Reads off the first forward's trace what surrounds each module: activations, norms, residual adds, roles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from initscope.hooks.probe.kinds import (
    activation_function,
    activation_module,
    is_weighted_function,
    norm_function,
    norm_module,
)
from initscope.hooks.probe.observe import INPUT, MODULE, Node, Trace
from initscope.hooks.probe.walk import Tree
from initscope.hooks.vocabulary import Role

_ADDS: Final = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})
_SAME_NUMBERS: Final = frozenset({
    MODULE, "view", "reshape", "flatten", "unflatten", "contiguous", "permute", "transpose", "squeeze", "unsqueeze",
    "to", "float",
})  # fmt: skip


@dataclass(slots=True)
class Around:
    """What surrounds a module's output and input, up to the next weighted function."""

    activation_before: str | None = None
    activation_after: str | None = None
    norm_before: str | None = None
    norm_after: str | None = None
    direct_activation: str | None = None
    """The activation that takes the output as it is."""
    residual: bool = False


@dataclass(slots=True)
class Structure:
    """Around each module path, and roles by full name of a parameter."""

    around: dict[str, Around] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    reads_output: set[str] = field(default_factory=set)
    """Parameters that the model's output is made with (a tied embedding, too)."""


def structure_of(trace: Trace, tree: Tree) -> Structure:
    """The structure that the trace shows; from the order of modules alone where functions could not be seen."""
    return _Reader(trace, tree).read() if trace.functional else _from_order(trace, tree)


class _Reader:
    def __init__(self, trace: Trace, tree: Tree) -> None:
        self._trace = trace
        self._nodes = trace.nodes
        self._tree = tree
        self._children: list[list[int]] = [[] for _ in self._nodes]
        for index, node in enumerate(self._nodes):
            for parent in node.parents:
                self._children[parent].append(index)
        self._activations = {p: activation_module(s.module) for p, s in tree.sites.items()}
        self._norms = {p: norm_module(s.module) for p, s in tree.sites.items()}
        self._residual_adds = {n: branch for n in range(len(self._nodes)) if (branch := self._branch_of(n)) is not None}

    def read(self) -> Structure:
        structure = Structure()
        labels: dict[str, int] = {}
        for index, node in enumerate(self._nodes):
            if node.op == MODULE and node.label is not None:
                labels.setdefault(node.label, index)
        for path, index in labels.items():
            structure.around[path] = self._around(path, index)
        self._mark_branches(structure)
        self._give_roles(structure)
        return structure

    def _activation(self, node: Node) -> str | None:
        inside = self._activations.get(node.owner or "") or (self._activations.get(node.label or ""))
        return inside or activation_function(node.op)

    def _norm(self, node: Node) -> str | None:
        inside = self._norms.get(node.owner or "") or self._norms.get(node.label or "")
        return inside or norm_function(node.op)

    def _is_barrier(self, index: int) -> bool:
        node = self._nodes[index]
        return is_weighted_function(node.op) or index in self._residual_adds or node.op == INPUT

    def _around(self, path: str, index: int) -> Around:
        around = Around()
        for i in self._walk(self._children[index], lambda i: self._children[i]):
            node = self._nodes[i]
            around.activation_after = around.activation_after or self._activation(node)
            around.norm_after = around.norm_after or self._norm(node)
        for i in self._walk(self._trace.inputs.get(path, ()), lambda i: self._nodes[i].parents):
            node = self._nodes[i]
            around.activation_before = around.activation_before or self._activation(node)
            around.norm_before = around.norm_before or self._norm(node)
        around.direct_activation = self._direct(index)
        return around

    def _walk(self, start: Iterable[int], following: Callable[[int], Iterable[int]]) -> Iterable[int]:
        """Breadth first, not past barriers (they are not yielded)."""
        queue, seen = list(start), set(start)
        for index in queue:
            if self._is_barrier(index):
                continue
            yield index
            for other in following(index):
                if other not in seen:
                    seen.add(other)
                    queue.append(other)

    def _direct(self, index: int) -> str | None:
        queue = list(self._children[index])
        for i in queue:
            node = self._nodes[i]
            name = self._activation(node)
            if name is not None and node.label is None:
                return name
            if node.op in _SAME_NUMBERS:
                queue.extend(self._children[i])
        return None

    def _branch_of(self, index: int) -> int | None:
        """The branch's end, if this call adds a branch to what it started from."""
        node = self._nodes[index]
        if node.op not in _ADDS or len(node.parents) != 2 or node.weights:
            return None
        stream, branch = sorted(node.parents)
        queue, seen, weighted = [branch], {branch}, False
        for i in queue:
            weighted = weighted or is_weighted_function(self._nodes[i].op)
            for parent in self._nodes[i].parents:
                # Parents are older than their children: below the stream there is nothing to find.
                if parent >= stream and parent not in seen:
                    seen.add(parent)
                    queue.append(parent)
        return branch if stream in seen and weighted else None

    def _mark_branches(self, structure: Structure) -> None:
        for branch in self._residual_adds.values():
            for i in self._walk([branch], lambda i: self._nodes[i].parents):
                label = self._nodes[i].label
                if label is not None and label in structure.around:
                    structure.around[label].residual = True
            weight = self._last_weight(branch)
            if weight is not None:
                structure.roles[weight] = Role.RESIDUAL_OUTPUT

    def _last_weight(self, start: int) -> str | None:
        """The weight of the last weighted function before this node, not past a residual add."""
        queue, seen = [start], {start}
        for i in queue:
            node = self._nodes[i]
            if is_weighted_function(node.op):
                return _main_weight(node.weights)
            if i in self._residual_adds:
                continue
            for parent in node.parents:
                if parent not in seen:
                    seen.add(parent)
                    queue.append(parent)
        return None

    def _give_roles(self, structure: Structure) -> None:
        if self._trace.output is not None and (head := self._last_weight(self._trace.output)) is not None:
            structure.roles[head] = Role.OUTPUT
            structure.reads_output.add(head)
        for node in self._nodes:
            weight = _main_weight(node.weights)
            if weight is None or not is_weighted_function(node.op):
                continue
            if node.op.startswith("embedding"):
                structure.roles[weight] = Role.EMBEDDING
            elif weight not in structure.roles and self._reads_input(node.parents):
                structure.roles[weight] = Role.INPUT
        for node in self._nodes:
            if node.op in _ADDS:
                self._find_position(node, structure)
            elif norm_function(node.op) is not None:
                self._find_gain(node.owner, structure)

    def _find_gain(self, owner: str | None, structure: Structure) -> None:
        """The vector of a module that normalizes by hand, without being called a norm."""
        site = self._tree.sites.get(owner or "")
        if site is None or next(site.module.children(), None) is not None or norm_module(site.module) is not None:
            return
        for weight in self._tree.weights:
            if weight.path == owner and weight.tensor.dim() == 1 and "bias" not in weight.name:
                structure.roles[weight.full_name] = Role.NORM_GAIN

    def _reads_input(self, start: Iterable[int]) -> bool:
        queue = list(start)
        seen = set(queue)
        for i in queue:
            if self._nodes[i].op == INPUT:
                return True
            if self._is_barrier(i):
                continue
            fresh = [p for p in self._nodes[i].parents if p not in seen]
            seen.update(fresh)
            queue.extend(fresh)
        return False

    def _find_position(self, node: Node, structure: Structure) -> None:
        """An embedding or a bare parameter that is added to another embedding."""
        tables = [(p, w) for p in node.parents if (w := self._table_of(p)) is not None]
        if len(tables) == 1 and node.weights:
            structure.roles[node.weights[0]] = Role.POSITION
        if len(tables) != 2 or tables[0][1] == tables[1][1]:
            return
        from_input = [self._indexed_by_input(p) for p, _ in tables]
        named = ["pos" in w or "wpe" in w for _, w in tables]
        if from_input[0] != from_input[1]:
            structure.roles[tables[from_input.index(False)][1]] = Role.POSITION
        elif named[0] != named[1]:
            structure.roles[tables[named.index(True)][1]] = Role.POSITION

    def _table(self, start: int) -> int | None:
        for i in _upwards(start, self._nodes):
            if self._is_barrier(i):
                return i if self._nodes[i].op.startswith("embedding") else None
        return None

    def _table_of(self, start: int) -> str | None:
        table = self._table(start)
        if table is not None:
            return _main_weight(self._nodes[table].weights)
        for i in _upwards(start, self._nodes):
            node = self._nodes[i]
            if self._is_barrier(i):
                return None  # another layer's output, or a stream, however deep it lies: no table
            if node.weights and not node.parents:
                return node.weights[0]  # a slice of a parameter: `self.positions[:, :length]`
        return None

    def _indexed_by_input(self, start: int) -> bool:
        table = self._table(start)
        return table is not None and self._reads_input(self._nodes[table].parents)


def _upwards(start: int, nodes: list[Node]) -> Iterable[int]:
    """A chain of first parents, at most twenty long."""
    index = start
    for _ in range(20):
        yield index
        if not nodes[index].parents:
            return
        index = nodes[index].parents[0]


def _main_weight(weights: tuple[str, ...]) -> str | None:
    """The weight among a function's parameters; of fused attention the output projection, its last one."""
    matrices = [w for w in weights if "bias" not in w.rpartition(".")[2]]
    return next((w for w in matrices if w.endswith("out_proj.weight")), matrices[0] if matrices else None)


def _from_order(trace: Trace, tree: Tree) -> Structure:
    """What neighbours in the order of calls show: right for chains of modules, silent about functions."""
    structure = Structure()
    leaves = [p for p in trace.order if next(tree.sites[p].module.children(), None) is None]
    weighted = {w.path: w.full_name for w in tree.weights if w.fans[0] is not None}
    for at, path in enumerate(leaves):
        after = _neighbours(leaves[at + 1 :], tree, weighted)
        before = _neighbours(leaves[:at][::-1], tree, weighted)
        direct = activation_module(tree.sites[leaves[at + 1]].module) if at + 1 < len(leaves) else None
        structure.around[path] = Around(before[0], after[0], before[1], after[1], direct)
    used = [weighted[p] for p in leaves if p in weighted]
    if used:
        structure.roles[used[0]] = Role.INPUT
        structure.roles[used[-1]] = Role.OUTPUT
        structure.reads_output.add(used[-1])
    return structure


def _neighbours(paths: list[str], tree: Tree, weighted: dict[str, str]) -> tuple[str | None, str | None]:
    activation = norm = None
    for path in paths:
        if path in weighted:
            break
        activation = activation or activation_module(tree.sites[path].module)
        norm = norm or norm_module(tree.sites[path].module)
    return activation, norm
