"""Watches the first training forward once: who calls what, in which order, on whose output.

A TorchFunctionMode sees functional calls (`F.relu`, `x + y`), module hooks say which module an output belongs to.
Nothing holds a tensor: the trace is a list of small nodes, tensors are recognised by weak references.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from initscope.hooks.client.guard import Guard
from initscope.hooks.probe.hooking import Callback
from initscope.hooks.probe.outputs import main_tensor, tensors_in
from initscope.hooks.probe.walk import Tree

INPUT: Final = "input"
MODULE: Final = "module"


@dataclass(slots=True)
class Node:
    """A call, or an output that a module returned (`op` is MODULE and `label` its path).

    `parents` are nodes of tensors that went in (always older), `weights` names of parameters that did; `owner` is the
    path of the innermost module that was running.
    """

    op: str
    parents: tuple[int, ...]
    owner: str | None
    label: str | None = None
    weights: tuple[str, ...] = ()


@dataclass(slots=True)
class Trace:
    """What the first forward showed. `order`: module paths as they finished for the first time."""

    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    returns_child: dict[str, str] = field(default_factory=dict)
    output: int | None = None
    batch_size: int | None = None
    output_shape: tuple[int, ...] = ()
    functional: bool = False
    """Whether functional calls were seen; else only modules and their order are known."""


class Observer:
    """Lives from the start to the end of one forward of the root."""

    def __init__(self, tree: Tree, guard: Guard, *, functional: bool, is_paused: Callable[[], bool]) -> None:
        self.trace = Trace(functional=functional)
        self._tree = tree
        self._guard = guard
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}
        self._weights = {id(w.tensor): w.full_name for w in tree.weights}
        self._stack: list[str] = []
        self._handles: list[Any] = []
        self._mode = _Mode(self, is_paused) if functional else None

    def start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Labels the model's inputs and begins to listen."""
        for tensor in _tensors((args, kwargs)):
            self._name(tensor, self._add(Node(INPUT, (), None)))
            if self.trace.batch_size is None and tensor.dim():
                self.trace.batch_size = tensor.shape[0]
        for path, site in self._tree.sites.items():
            if path:
                before, after = Callback(self.entering, path), Callback(self.leaving, path)
                self._handles.append(site.module.register_forward_pre_hook(before, with_kwargs=True))
                self._handles.append(site.module.register_forward_hook(after))
        self.trace.inputs[""] = tuple(range(len(self.trace.nodes)))
        self._stack.append("")
        if self._mode is not None:
            self._mode.__enter__()  # type: ignore[no-untyped-call]

    def stop(self, output: Any) -> Trace:
        """Ends listening; `output` is what the root returned, None if it raised."""
        if self._mode is not None:
            # Not ours on top: somebody's mode above it was never left, and pops it with its own.
            if _get_current_function_mode() is self._mode:  # type: ignore[no-untyped-call]
                self._mode.__exit__(None, None, None)
            self._mode.observer = None
            self._mode = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if output is not None:
            self.leaving("", None, None, output)
            tensor = main_tensor(tensors_in(output))
            if tensor is not None:
                self.trace.output = self._node_of(tensor)
                self.trace.output_shape = tuple(tensor.shape)
        self._known.clear()
        return self.trace

    def entering(self, path: str, _module: nn.Module, args: Any, kwargs: Any) -> None:
        """Forward pre-hook."""
        with self._guard.shield("first forward"):
            nodes = (self._node_of(t) for t in _tensors((args, kwargs)))
            self.trace.inputs.setdefault(path, tuple(n for n in nodes if n is not None))
            self._stack.append(path)

    def leaving(self, path: str, _module: nn.Module | None, _args: Any, output: Any) -> None:
        """Forward hook: the output's tensors are the module's from now on."""
        with self._guard.shield("first forward"):
            if self._stack and self._stack[-1] == path:
                self._stack.pop()
            if path not in self.trace.order:
                self.trace.order.append(path)
            found = tensors_in(output).tensors
            for _, tensor in found:
                parent = self._node_of(tensor)
                label = None if parent is None else self.trace.nodes[parent].label
                if label is not None and len(found) == 1 and self._tree.sites[label].watched:
                    self.trace.returns_child[path] = self.trace.returns_child.get(label, label)
                parents = self.trace.inputs.get(path, ()) if parent is None else (parent,)
                self._name(tensor, self._add(Node(MODULE, parents, self._owner(), path)))

    def called(self, function: Any, args: Any, kwargs: Any, result: Any) -> None:
        """A torch function returned."""
        with self._guard.shield("first forward"):
            made = list(_tensors(result))
            if not made:
                return
            given = list(_tensors((args, kwargs)))
            parents = dict.fromkeys(n for n in map(self._node_of, given) if n is not None)
            weights = tuple(self._weights[id(t)] for t in given if id(t) in self._weights)
            name = getattr(function, "__name__", "")
            node = self._add(Node(name, tuple(parents), self._owner(), weights=weights))
            for tensor in made:
                if id(tensor) not in self._weights:
                    self._name(tensor, node)

    def _owner(self) -> str | None:
        return self._stack[-1] if self._stack else None

    def _add(self, node: Node) -> int:
        self.trace.nodes.append(node)
        return len(self.trace.nodes) - 1

    def _name(self, tensor: torch.Tensor, node: int) -> None:
        self._known[id(tensor)] = (weakref.ref(tensor), node)

    def _node_of(self, tensor: torch.Tensor) -> int | None:
        # An id is reused after its tensor died: only the reference tells.
        reference, node = self._known.get(id(tensor), (None, 0))
        return node if reference is not None and reference() is tensor else None


class _Mode(TorchFunctionMode):
    """Passes every call on as it is and tells the observer about it."""

    def __init__(self, observer: Observer, is_paused: Callable[[], bool]) -> None:
        super().__init__()
        self.observer: Observer | None = observer
        self._is_paused = is_paused

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.compiler.is_compiling():  # a compiled function inside the model: it would compile us too, or refuse
            return result
        if self.observer is not None and not self._is_paused():
            self.observer.called(func, args, kwargs, result)
        return result


def _tensors(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif depth < 4 and isinstance(value, tuple | list | Mapping):
        parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
        for part in parts:
            yield from _tensors(part, depth + 1)
