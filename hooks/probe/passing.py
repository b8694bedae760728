"""What goes into weighted modules: rms of the input, and of the loss's gradient with respect to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import torch
from torch import nn

from initscope.hooks.client.guard import Guard
from initscope.hooks.moments import merge_all
from initscope.hooks.probe.capture import inside_backward
from initscope.hooks.probe.hooking import Callback
from initscope.hooks.probe.outputs import main_tensor, tensors_in
from initscope.hooks.probe.reduce import Part, measure, to_moments
from initscope.hooks.probe.walk import Tree, why_not
from initscope.hooks.report.rows import Passed

_INPUT: Final = "input"
_GRADIENT: Final = "gradient"


class Passing:
    """Hooks on the modules that hold a matrix, while it is entered."""

    def __init__(self, tree: Tree, guard: Guard) -> None:
        self._guard = guard
        self._parts: dict[tuple[str, str], list[Part]] = {}
        self._handles: list[Any] = []
        paths = dict.fromkeys(w.path for w in tree.weights if w.tensor.dim() > 1)
        self._sites = [tree.sites[path] for path in paths if tree.sites[path].watched]

    def __enter__(self) -> Self:
        for site in self._sites:
            hook = Callback(self._entering, site.path)
            self._handles.append(site.module.register_forward_pre_hook(hook, with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def found(self) -> Mapping[str, Passed]:
        """What was measured, by module path."""
        return {path: Passed(self._rms(path, _INPUT), self._rms(path, _GRADIENT)) for path, _ in self._parts}

    def _entering(self, path: str, _module: nn.Module, args: Any, kwargs: Any) -> None:
        # Our calls are none of the model's: the observer of the first forward must not see them.
        with self._guard.shield("input hook"), torch._C.DisableTorchFunction():
            x = main_tensor(tensors_in((*args, *kwargs.values())))
            if x is None or why_not(x) is not None:
                return
            if not inside_backward():
                self._add(path, _INPUT, x.detach())
            # A leaf is the user's own tensor: a hook on it would stay there for ever.
            if x.requires_grad and not x.is_leaf:
                x.register_hook(Callback(self._gradient, path))  # type: ignore[no-untyped-call]

    def _gradient(self, path: str, gradient: torch.Tensor) -> None:
        with self._guard.shield("input gradient hook"):
            if why_not(gradient) is None:
                self._add(path, _GRADIENT, gradient)

    def _add(self, path: str, what: str, x: torch.Tensor) -> None:
        parts = self._parts.setdefault((path, what), [])
        parts += [(n, cell.tolist() if isinstance(cell, torch.Tensor) else cell) for n, cell in measure(x)]

    def _rms(self, path: str, what: str) -> float | None:
        value = merge_all(to_moments(n, cell) for n, cell in self._parts.get((path, what), ())).rms  # type: ignore[arg-type]
        return value if math.isfinite(value) else None
