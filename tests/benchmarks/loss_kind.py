"""Which loss a function computes, read off its code: it is never called, so nothing of the training can change.

A user logs the loss as a tensor with its graph, and `watch` reads there which loss it is. startbench hands over a
number only; a stand-in with the right graph takes the tensor's place.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BY_NAME: Final = {
    "cross_entropy": "cross_entropy", "CrossEntropyLoss": "cross_entropy", "nll_loss": "nll", "NLLLoss": "nll",
    "mse_loss": "mse", "MSELoss": "mse", "l1_loss": "l1", "L1Loss": "l1", "smooth_l1_loss": "smooth_l1",
    "SmoothL1Loss": "smooth_l1", "huber_loss": "huber", "HuberLoss": "huber",
    "binary_cross_entropy": "bce", "BCELoss": "bce",
    "binary_cross_entropy_with_logits": "bce", "BCEWithLogitsLoss": "bce",
}  # fmt: skip
_MOST_DEPTH: Final = 4

Logged = Callable[[float], float | Tensor]


def kind_of(loss_fn: object) -> str | None:
    """`cross_entropy`, `mse`, `bce`, …; None for none, for several at once and for sums over a batch."""
    names = set(_names(loss_fn, _MOST_DEPTH))
    kinds = {_BY_NAME[name] for name in names & _BY_NAME.keys()}
    return kinds.pop() if len(kinds) == 1 and "sum" not in names else None


def stand_in(loss_fn: object) -> Logged:
    """A function that gives a loss the graph of its kind; the number itself where the kind is not known."""
    graph = _GRAPHS.get(kind_of(loss_fn) or "")
    if graph is None:
        return lambda loss: loss

    def logged(loss: float) -> Tensor:
        with torch.enable_grad():
            root = graph(torch.full((1, 2), 0.5, requires_grad=True))
            return root - root.detach() + loss

    return logged


_GRAPHS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "cross_entropy": lambda x: F.cross_entropy(x, torch.zeros(1, dtype=torch.long)),
    "nll": lambda x: F.nll_loss(x, torch.zeros(1, dtype=torch.long)),
    "mse": lambda x: F.mse_loss(x, torch.zeros(1, 2)),
    "l1": lambda x: F.l1_loss(x, torch.zeros(1, 2)),
    "smooth_l1": lambda x: F.smooth_l1_loss(x, torch.zeros(1, 2)),
    "huber": lambda x: F.huber_loss(x, torch.zeros(1, 2)),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, torch.zeros(1, 2)),
}


def _names(function: Any, depth: int) -> Iterator[str]:
    """The names that stand in a function's code and in that of the functions it calls."""
    if depth == 0:
        return
    if isinstance(function, functools.partial):
        yield from _names(function.func, depth - 1)
        yield from (str(value) for value in function.keywords.values())
    elif isinstance(function, nn.Module):
        yield type(function).__name__
        yield str(getattr(function, "reduction", ""))
        if type(function).__name__ not in _BY_NAME:
            yield from _names(type(function).forward, depth - 1)
            for child in function.children():
                yield from _names(child, depth - 1)
    elif isinstance(function, types.MethodType):
        yield from _names(function.__func__, depth)
    elif isinstance(function, types.FunctionType):
        yield from _names_of_function(function, depth)


def _names_of_function(function: types.FunctionType, depth: int) -> Iterator[str]:
    yield function.__name__
    if function.__name__ in _BY_NAME and function.__module__ == F.__name__:
        return  # torch's own code knows all reductions
    codes = [function.__code__]
    for code in codes:
        yield from code.co_names
        yield from (c for c in code.co_consts if c == "sum")
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
    used = {name for code in codes for name in code.co_names} - _BY_NAME.keys()
    called = [function.__globals__.get(name) for name in used]
    for value in [*called, *_closed_over(function)]:
        if not isinstance(value, nn.Module) or not any(True for _ in value.parameters()):
            yield from _names(value, depth - 1)


def _closed_over(function: types.FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
