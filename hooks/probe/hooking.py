"""Callables that may stand in the user's modules: they survive pickling and copying as nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """What a hook becomes in a copy of the model."""


class Callback:
    """`target(*bound, *args)` as a hook that returns None.

    A model with such a hook can be pickled, saved and deep-copied; in the copy the hook is an empty function, so that
    a copy is never measured as if it were the model.
    """

    __slots__ = ("_bound", "_target")

    def __init__(self, target: Callable[..., None], *bound: Any) -> None:
        self._target = target
        self._bound = bound

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Runs the target; its result is dropped, because a hook's result would replace the module's output."""
        self._target(*self._bound, *args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _make_nothing, ()


def _make_nothing() -> Callable[..., None]:
    return _nothing
