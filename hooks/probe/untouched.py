"""A model that is run and afterwards is bitwise what it was: tensors, gradients, attributes, flags, chance."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from initscope.hooks.probe.optimizers import listeners
from initscope.hooks.probe.outputs import tensors_in
from initscope.hooks.probe.recording import Recording

_OWN: Final = ("_parameters", "_buffers", "_modules")
"""Attributes of a module that are tables, changed in place where a parameter, buffer or child is replaced."""


@contextmanager
def untouched(model: nn.Module, *others: Any) -> Iterator[None]:
    """Restores `model` at the end, whatever happened inside; and tensors and modules in `others` (a batch, a loss).

    Values of parameters, buffers and other tensors in attributes are copied before and compared after, because a
    forward may write them without a trace (the running statistics of batch norm). `.grad` is None inside. Restored are
    also attributes that were set, training flags, and the generators of torch, of Python and of numpy. Lists and
    objects that a module changes inside itself are not.
    """
    modules = [*model.modules(), *(m for other in others if isinstance(other, nn.Module) for m in other.modules())]
    tensors = _distinct(t for m in modules for t in _tensors_of(m))
    tensors |= _distinct(t for other in others for _, t in tensors_in(other).tensors)
    with ExitStack() as undo:
        # The last to be undone: what a module's attributes name must be back before values are.
        for tensor in tensors.values():
            undo.callback(_kept_values(tensor))
            undo.callback(_kept_gradient(tensor))
        for module in modules:
            undo.callback(_kept_attributes(module))
        for generator in _generators(modules):
            undo.callback(generator)
        yield


@contextmanager
def without_gradients(loss: torch.Tensor) -> Iterator[None]:
    """Restores `.grad` of every leaf that this loss depends on, the model's own and those of anybody else."""
    with ExitStack() as undo:
        for leaf in _distinct(_leaves(loss)).values():
            undo.callback(_kept_gradient(leaf))
        yield


@contextmanager
def unwatched(model: nn.Module) -> Iterator[None]:
    """Recordings that know a parameter or module of this model see nothing of what happens inside."""
    mine = {id(p) for p in model.parameters()} | {id(m) for m in model.modules()}
    paused = [r for r in listeners() if isinstance(r, Recording) and not r.is_paused and r.knows(mine)]
    for recording in paused:
        recording.pause(True)
    try:
        yield
    finally:
        for recording in paused:
            recording.pause(False)


def _tensors_of(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from (p for p in module._parameters.values() if p is not None)
    yield from (b for b in module._buffers.values() if b is not None)
    yield from (v for v in vars(module).values() if isinstance(v, torch.Tensor))


def _distinct(tensors: Iterable[torch.Tensor]) -> dict[int, torch.Tensor]:
    return {id(t): t for t in tensors}


def _kept_values(tensor: torch.Tensor) -> Callable[[], None]:
    """What puts the values back; nothing for tensors without plain memory."""
    if tensor.is_meta or tensor.layout is not torch.strided or is_traceable_wrapper_subclass(tensor):
        return _nothing
    kept = tensor.detach().clone()

    def restore() -> None:
        with torch.no_grad():
            if tensor.shape != kept.shape:
                tensor.data = kept
            elif not _is_same(tensor.detach(), kept):
                tensor.detach().copy_(kept)

    return restore


def _is_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit by bit: NaN is itself, and -0 is not 0."""
    if a.is_quantized:
        return torch.equal(a, b)
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)) if a.numel() else True


def _kept_gradient(tensor: torch.Tensor) -> Callable[[], None]:
    """Takes the gradient away, and the hooks that would use a new one: an optimizer may step in them."""
    if not tensor.is_leaf:
        return _nothing
    gradient, tensor.grad = tensor.grad, None
    hooks: dict[Any, Any] = getattr(tensor, "_post_accumulate_grad_hooks", None) or {}
    kept = dict(hooks)
    hooks.clear()

    def restore() -> None:
        tensor.grad = gradient
        hooks.update(kept)

    return restore


def _kept_attributes(module: nn.Module) -> Callable[[], None]:
    if isinstance(module, torch.jit.ScriptModule):  # its attributes live elsewhere
        training = module.training
        return lambda: setattr(module, "training", training)
    attributes = dict(vars(module))
    tables = [(attributes[name], dict(attributes[name])) for name in _OWN]

    def restore() -> None:
        for table, content in tables:
            table.clear()
            table.update(content)
        now = vars(module)
        for name in now.keys() - attributes.keys():
            del now[name]
        now.update(attributes)

    return restore


def _generators(modules: Iterable[nn.Module]) -> Iterator[Callable[[], None]]:
    """What puts each source of chance back."""
    cpu = torch.get_rng_state()
    yield lambda: torch.set_rng_state(cpu)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        devices = torch.cuda.get_rng_state_all()
        yield lambda: torch.cuda.set_rng_state_all(devices)
    if torch.backends.mps.is_available():
        mps = torch.mps.get_rng_state()
        yield lambda: torch.mps.set_rng_state(mps)
    python = random.getstate()
    yield lambda: random.setstate(python)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state = numpy.random.get_state()
        yield lambda: numpy.random.set_state(state)
    for generator in {v for m in modules for v in vars(m).values() if isinstance(v, torch.Generator)}:
        yield _kept_generator(generator)


def _kept_generator(generator: torch.Generator) -> Callable[[], None]:
    state = generator.get_state()

    def restore() -> None:
        generator.set_state(state)

    return restore


def _leaves(loss: torch.Tensor) -> Iterator[torch.Tensor]:
    """Tensors that a backward pass from here would give a gradient to."""
    queue: list[Any] = [loss.grad_fn]
    seen = set(queue)
    for node in queue:
        if node is None:
            continue
        variable = getattr(node, "variable", None)
        if isinstance(variable, torch.Tensor):
            yield variable
        following = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= following
        queue += following


def _nothing() -> None:
    return None
