"""How a batch goes into a model and its output into a loss, where a person gives them as a training loop has them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from initscope.hooks.probe.outputs import main_tensor, tensors_in

LossFn = Callable[..., torch.Tensor]


class NoLossError(TypeError):
    """What should be a loss is no number."""


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of the model; the loss function's second one, where there is one; what was guessed, in words."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    target: Any = None
    has_target: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        given = [_shown(a) for a in self.args] + [f"{name}={_shown(a)}" for name, a in self.kwargs.items()]
        return f"model({', '.join(given)})"


def arranged(model: nn.Module, batch: Any, loss_fn: LossFn | None) -> Call:
    """The call that a batch stands for.

    With a loss function, a tuple or list is (inputs, target), or (*inputs, target) if it is longer; anything else goes
    into both the model and the loss (an autoencoder; a dict that holds the labels). Without one, everything goes into
    the model, but of a pair only the first part if the model takes one argument. Inputs that are a tuple or list are
    positional arguments, a mapping's items keyword arguments.
    """
    parts = _parts(batch)
    if loss_fn is not None and parts is not None and len(parts) > 1:
        inputs = parts[0] if len(parts) == 2 else parts[:-1]
        return _call(model, inputs, parts[-1], has_target=True)
    if loss_fn is not None:
        return _call(model, batch, batch, has_target=True)
    if parts is not None and len(parts) == 2 and not _takes(model.forward, 2) and _takes(model.forward, 1):
        note = "the second part of the batch was not used: give loss_fn to have the loss judged as well"
        return _call(model, parts[0], notes=(note,))
    return _call(model, batch)


def loss_from(loss_fn: LossFn | None, output: Any, call: Call) -> tuple[torch.Tensor, bool]:
    """(a scalar to start the backward pass from, whether it is the training's own loss).

    Without a loss function: the output's `loss`, or the output itself if it is one number. Else the output times
    fixed random numbers, which gives a gradient of ordinary size to every element. NoLossError for a loss that is
    no number.
    """
    if loss_fn is not None:
        with_target = call.has_target and (_takes(loss_fn, 2) or not _takes(loss_fn, 1))
        return _scalar(loss_fn(output, call.target) if with_target else loss_fn(output), "loss_fn returned"), True
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, torch.Tensor):
        return _scalar(own, "the output's loss is"), True
    if isinstance(output, torch.Tensor) and output.numel() == 1 and output.dtype.is_floating_point:
        return output.reshape(()), True
    return _random_projection(output), False


def is_noise(call: Call) -> bool:
    """Whether the first floating-point input has positions (three or more axes) and is independent noise over them.

    Outputs are averaged over positions before samples are compared, and averages of noise are all alike: of a batch
    that somebody made up with `torch.randn` nobody can say whether the output depends on the input. Noise: neighbours
    do not correlate along any axis, and means of samples spread as those of independent numbers do.
    """
    x = main_tensor(tensors_in((*call.args, *call.kwargs.values())))
    if x is None or x.dim() < 3 or x.shape[0] < 4 or x[0].numel() < 16:
        return False
    x = x.detach().float()
    x = x - x.mean()
    square = float(x.square().mean())
    if not 0.0 < square < math.inf:
        return False
    spread = float(x.flatten(1).mean(1).var()) * x[0].numel() / square
    return _SPREAD[0] < spread < _SPREAD[1] and all(
        abs(_neighbours(x, axis)) < _CHANCE * square / math.sqrt(x.numel()) + _LEAST * square
        for axis in range(1, x.dim())
        if x.shape[axis] > 1
    )


_SPREAD: Final = (0.2, 4.0)
"""Variance of the means of samples, in units of what independent numbers have: real images have hundreds."""
_CHANCE: Final = 5.0
_LEAST: Final = 0.01


def _neighbours(x: torch.Tensor, axis: int) -> float:
    """Covariance of neighbours along an axis, of centred numbers."""
    n = x.shape[axis]
    return float((x.narrow(axis, 0, n - 1) * x.narrow(axis, 1, n - 1)).mean())


def _call(
    model: nn.Module, inputs: Any, target: Any = None, *, has_target: bool = False, notes: tuple[str, ...] = ()
) -> Call:
    if isinstance(inputs, Mapping) and all(isinstance(name, str) for name in inputs):
        return Call((), dict(inputs), target, has_target, notes)
    parts = _parts(inputs)
    several = parts is not None and (_takes(model.forward, len(parts)) or not _takes(model.forward, 1))
    return Call(parts if several and parts is not None else (inputs,), {}, target, has_target, notes)


def _parts(value: Any) -> tuple[Any, ...] | None:
    is_sequence = isinstance(value, tuple | list) and not isinstance(value, PackedSequence)
    return tuple(value) if is_sequence else None


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many positional arguments; True where its signature is unknown."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _scalar(value: Any, what: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise NoLossError(f"{what} {type(value).__name__}, where a tensor of one number is needed")
    if value.numel() != 1:
        raise NoLossError(f"{what} a tensor of shape {tuple(value.shape)}, where one number is needed: take its mean")
    return value.reshape(())


def _random_projection(output: Any) -> torch.Tensor:
    found = [t for _, t in tensors_in(output).tensors if t.dtype.is_floating_point and t.requires_grad]
    main = main_tensor(tensors_in(output))
    chosen = main if main is not None and main.requires_grad else found[0] if found else main
    if chosen is None:
        raise NoLossError(f"the model returned {type(output).__name__} without a floating-point tensor: give loss_fn")
    generator = torch.Generator("cpu").manual_seed(0)
    numbers = torch.randn(chosen.shape, generator=generator, device="cpu")
    return (chosen.float() * numbers.to(chosen.device)).mean()


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__
