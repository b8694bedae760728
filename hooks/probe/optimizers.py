"""Steps of optimizers, by torch.optim's global step hooks: optimizers are found, not given."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, Final, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from initscope.hooks.probe.hooking import Callback
from initscope.hooks.vocabulary import MAX_NAME
from initscope.hooks.wire import OptimizerInfo


class Listener(Protocol):
    """Told about steps of every optimizer in the process."""

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer begins its step; with a closure, forward and backward are still to come."""

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients are final and the parameters have moved."""


_listeners: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_handles: Final[list[Any]] = []
_running: Final[dict[int, list[str]]] = {}
"""Hooks fired since a step began, by id of its optimizer: a subclass that calls super().step() fires each twice."""


def listen(listener: Listener) -> None:
    """Starts telling `listener`."""
    _listeners.add(listener)
    if not _handles:
        _handles.append(register_optimizer_step_pre_hook(Callback(_before)))
        _handles.append(register_optimizer_step_post_hook(Callback(_after)))


def forget(listener: Listener) -> None:
    """Stops; with the last listener the hooks are gone from torch."""
    _listeners.discard(listener)
    if not _listeners:
        while _handles:
            _handles.pop().remove()
        _running.clear()


def listeners() -> list[Any]:
    """Those who are told."""
    return list(_listeners)


def _before(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    fired = _running.setdefault(id(optimizer), [])
    # After a post hook only another one closes a nested step; a pre hook says that the outer step raised.
    if fired and fired[-1] == "post":
        fired.clear()
    fired.append("pre")
    if len(fired) == 1:
        try:
            for listener in list(_listeners):
                listener.before_step(optimizer)
        except BaseException:  # a training that is stopped here never makes this step: no post hook ends it
            _running.pop(id(optimizer), None)
            raise


def _after(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    fired = _running.get(id(optimizer), [])
    fired.append("post")
    if fired.count("post") < fired.count("pre"):
        return
    _running.pop(id(optimizer), None)
    for listener in list(_listeners):
        listener.after_step(optimizer)


def parameters_of(optimizer: torch.optim.Optimizer) -> Iterable[torch.Tensor]:
    """All parameters of an optimizer."""
    return (p for group in optimizer.param_groups for p in group["params"])


def steps_done(optimizer: Any) -> int:
    """Steps that the optimizer's own state says it has made; 0 without such a state."""
    states = getattr(optimizer, "state", None) or {}
    counts = [s["step"] for s in states.values() if isinstance(s, dict) and "step" in s]
    return max((int(c) for c in counts), default=0)


def describe(optimizer: torch.optim.Optimizer) -> list[OptimizerInfo]:
    """Hyperparameters of each parameter group; those given as device tensors are left out. RMSprop's α is its β₂."""
    name = type(optimizer).__name__[:MAX_NAME]
    found = []
    for group in optimizer.param_groups:
        betas = group.get("betas", (None, group.get("alpha") if "RMSprop" in name else None))
        found.append(
            OptimizerInfo(
                name=name,
                lr=_number(group.get("lr")),
                momentum=_number(group.get("momentum")),
                beta1=_number(betas[0]),
                beta2=_number(betas[1]),
                eps=_number(group.get("eps")),
                weight_decay=_number(group.get("weight_decay")),
            )
        )
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor):
        return float(value) if value.is_cpu and value.numel() == 1 else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
