"""Callables that may stand in the user's modules: they survive pickling and copying as nothing, and compilers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """What a hook becomes in a copy of the model."""


class Callback:
    """`target(*bound, *args)` as a hook that returns None.

    A model with such a hook can be pickled, saved and deep-copied; in the copy the hook is an empty function, so that
    a copy is never measured as if it were the model. Where torch.compile traces a hook it does nothing: no graph
    break, no recompilation, and no measurement.
    """

    __slots__ = ("_bound", "_target")

    def __init__(self, target: Callable[..., None], *bound: Any) -> None:
        self._target = target
        self._bound = bound

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Runs the target; its result is dropped, because a hook's result would replace the module's output."""
        if torch.compiler.is_compiling():
            return
        if _is_compiler_near():
            _apart(self._target, self._bound, args, kwargs)
        else:
            self._target(*self._bound, *args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _make_nothing, ()


def _make_nothing() -> Callable[..., None]:
    return _nothing


def _is_compiler_near() -> bool:
    """Whether frames called from here would be compiled: compiled code that fell back to eager calls hooks so."""
    return torch._C._dynamo.eval_frame.get_eval_frame_callback() is not None


def _apart(target: Callable[..., None], bound: Any, args: Any, kwargs: Any) -> None:
    run: Callable[..., None] = torch.compiler.disable(target)  # type: ignore[no-untyped-call]
    run(*bound, *args, **kwargs)
