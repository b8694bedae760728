"""The course of a training as the hooks see it: which step it is, when a take begins, and when it ends.

A step begins with the first training forward after an optimizer's step, and ends when every optimizer that moves the
model has stepped; where that cannot be known yet, with the next training forward.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import nn

from initscope.hooks.client.guard import Guard
from initscope.hooks.probe import channels, choices, optimizers
from initscope.hooks.probe.acting import Alarm
from initscope.hooks.probe.capture import Capture, inside_backward, inside_transform
from initscope.hooks.probe.describe import Registry
from initscope.hooks.probe.graph import structure_of
from initscope.hooks.probe.hooking import Callback
from initscope.hooks.probe.observe import Observer, Trace
from initscope.hooks.probe.reduce import measure_all
from initscope.hooks.probe.reporter import Reporter
from initscope.hooks.probe.take import Record, Take
from initscope.hooks.probe.traits import read_traits
from initscope.hooks.probe.updates import Updates
from initscope.hooks.probe.walk import Tree, Weight, why_not
from initscope.hooks.vocabulary import Kind

PATIENCE: Final = 50
"""Training forwards without a step of an optimizer after which the person is told."""
MAX_FORWARDS: Final = 64
"""Forwards of one step that are measured: accumulation over more is described well enough by these."""

Finish = Callable[[int, int, Callable[[], list[Record]]], None]
"""Takes (step, number of records, function that makes them)."""


class Recording:
    """Hooks on the root and on optimizers; owns the open take."""

    def __init__(
        self,
        model: nn.Module,
        tree: Tree,
        registry: Registry,
        guard: Guard,
        *,
        is_due: Callable[[int], bool],
        step: int,
        with_parameters: bool,
        is_compiled: bool,
        tell: Reporter,
        alarm: Alarm,
    ) -> None:
        self.step = step
        self.forward_step = step
        """The step of the last training forward: what is logged now belongs to it."""
        self.trace: Trace | None = None
        self.is_closed = False
        self._tree = tree
        self._registry = registry
        self._guard = guard
        self._is_due = is_due
        self._tell = tell
        self._alarm = alarm
        self._weights = list(enumerate(tree.weights)) if with_parameters else []
        self._positions = {id(w.tensor): i for i, w in enumerate(tree.weights)}
        self._parameters = {id(p): p for p in model.parameters()}
        self._capture = Capture(registry, guard, tell.note)
        self._updates = Updates(len(tree.weights))
        self._observer: Observer | None = None
        self._take: Take | None = None
        self._taken = -1
        self._stepped: dict[int, set[int]] = {}
        self._usual: set[int] = set()
        self._known_optimizers: set[int] = set()
        self._in_step = False
        self._manual = False
        self._idle_forwards = 0
        self._has_run = False
        self._has_traits = False
        self._handles = [] if is_compiled else self._hooks_on(model)
        optimizers.listen(self)

    def _hooks_on(self, model: nn.Module) -> list[Any]:
        return [
            model.register_forward_pre_hook(Callback(self.before_forward), with_kwargs=True),
            model.register_forward_hook(Callback(self.after_forward), always_call=True),
        ]

    # -- forward -------------------------------------------------------------------------------------------------------

    def before_forward(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Forward pre-hook of the root: decides whether this is a training forward."""
        if self.is_closed or self._guard.off or self.is_paused:
            return
        if inside_backward() or inside_transform() or self._capture.is_elsewhere:
            return
        if not torch.is_grad_enabled() or not module.training:
            with self._guard.shield("forward"):
                self._abandon()
            return
        if self._alarm.due:
            self._alarm.ring()
        with self._guard.shield("forward"):
            self._abandon()
            self._begin_forward(args, kwargs)

    def after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of the root, also after an error in the model."""
        if not self._capture.forward_on or inside_backward() or self._capture.is_elsewhere:
            return
        root = self._tree.sites.get("")
        if root is not None and root.watched:
            # Not by a hook of its own: that would run after this one, which ends the forward.
            self._capture.on_output(root, module, args, output)
        self._capture.forward_on = False
        if self._observer is not None:
            with self._guard.shield("first forward"):
                observer, self._observer = self._observer, None
                seen = None if self.is_closed else output  # another thread may have closed meanwhile
                trace = observer.stop(seen)
                if seen is not None:
                    self._learn(trace)

    def _abandon(self) -> None:
        """Ends a forward that Ctrl-C ended: after that torch calls no hook."""
        if self._capture.is_elsewhere:
            return
        self._capture.forward_on = False
        if self._observer is not None:
            self._observer.stop(None)
            self._observer = None

    def _begin_forward(self, args: Any, kwargs: Mapping[str, Any]) -> None:
        if self._stepped and not self._in_step:
            self._end_step()
        self._has_run = True
        self._begin_step()
        self._count_idle()
        take = self._open_take()
        if take is None:
            return
        self._drop_skipped(take)
        take.forwards += 1
        if take.forwards > MAX_FORWARDS:
            return
        self._capture.attach([s for s in self._tree.sites.values() if s.watched and s.path])
        self._capture.forward_on, self._capture.thread = True, threading.get_ident()
        if self.trace is None:
            self._observe(args, kwargs)

    def _begin_step(self) -> None:
        if self.forward_step < self.step:
            # Not earlier: what a loop logs after the optimizer's step still belongs to that step.
            self._tell.reached(self.step - 1)
            self.forward_step = self.step

    def _observe(self, args: Any, kwargs: Mapping[str, Any]) -> None:
        functional = not choices.is_compiled(self._tree.sites[""].module)
        observer = Observer(self._tree, self._guard, functional=functional, is_paused=lambda: self._capture.measuring)
        self._observer = observer
        observer.start(args, kwargs)

    def _learn(self, trace: Trace) -> None:
        self.trace = trace
        structure = structure_of(trace, self._tree)
        self._capture.structure = structure
        self._registry.refine(trace, structure)
        for path in trace.returns_child:
            self._tree.sites[path].watched = False
        self._tell.learned(trace)

    def _count_idle(self) -> None:
        self._idle_forwards += 1
        if self._idle_forwards == PATIENCE and not (self._known_optimizers or self._manual):
            self._tell.never_steps(PATIENCE)

    def _drop_skipped(self, take: Take) -> None:
        """A step that a gradient scaler skipped fires no hook: its forwards belong to no step."""
        if take.forwards and take.backwards and not self._in_step:
            if any(p.grad is not None for p in self._parameters.values()):
                return
            take.forget(take.rows.keys() - self._registry.parameter_keys)
            take.forwards = take.backwards = 0

    # -- steps ---------------------------------------------------------------------------------------------------------

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Pre-hook of any optimizer."""
        if self.is_closed or self._guard.off or not self._moved_by(optimizer):
            return
        if self._alarm.due:
            self._alarm.ring()
        with self._guard.shield("optimizer pre-hook"):
            self._abandon()
            if id(optimizer) in self._stepped:
                self._end_step()
            self._in_step = True
            self._begin_step()
            take = self._open_take()
            if take is not None:
                moved = self._positions_in(optimizer)
                self._updates.before((i, w.tensor) for i, w in self._weights if i in moved)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Post-hook: only here are gradients final, with closures and fused scalers too."""
        if self.is_closed or self._guard.off or not (moved := self._moved_by(optimizer)):
            return
        with self._guard.shield("optimizer post-hook"):
            self._in_step = False
            self._idle_forwards = 0
            if id(optimizer) not in self._known_optimizers:
                self._known_optimizers.add(id(optimizer))
                self._tell.optimizer(optimizer)
            elif not self._has_run:  # not at its first step: watch may have come between the forward and that
                self._tell.never_runs()
            if self._take is not None:
                self._read_parameters(self._positions_in(optimizer))
            self._stepped[id(optimizer)] = moved
            if self._is_complete():
                self._end_step()

    def manual_step(self) -> None:
        """The end of a step in a loop without a torch optimizer; nothing if an optimizer already counts the steps."""
        if self.is_closed or self._guard.off or self._known_optimizers:
            return
        if self._alarm.due:
            self._alarm.ring()
        with self._guard.shield("step"):
            self._manual = True
            self._idle_forwards = 0
            everything = {i for i, _ in self._weights}
            self._read_parameters(everything)
            self._stepped[0] = everything
            self._end_step()

    def _moved_by(self, optimizer: torch.optim.Optimizer) -> set[int]:
        """Ids of the model's parameters in an optimizer, watched or not: what is watched may all be frozen."""
        return {id(p) for p in optimizers.parameters_of(optimizer)} & self._parameters.keys()

    def _positions_in(self, optimizer: torch.optim.Optimizer) -> set[int]:
        found = (self._positions.get(id(p)) for p in optimizers.parameters_of(optimizer))
        return {i for i in found if i is not None}

    def _is_complete(self) -> bool:
        moved = set().union(*self._stepped.values())
        if all(key in moved for key, p in self._parameters.items() if p.requires_grad):
            return True
        return bool(self._usual) and self._usual <= self._stepped.keys()

    def _end_step(self) -> None:
        # Never fewer: one that moves its part every other step would end the steps of the others early.
        self._usual |= self._stepped.keys()
        self._stepped = {}
        self._send_take()
        self.step += 1

    # -- a check, which takes no step ----------------------------------------------------------------------------------

    @property
    def is_paused(self) -> bool:
        """Whether a check runs the model: nothing of that belongs to the training."""
        return self._capture.is_paused

    def pause(self, paused: bool) -> None:
        """Stops or begins to look."""
        self._capture.is_paused = paused

    def knows(self, ids: set[int]) -> bool:
        """Whether one of these is a parameter or module of the recorded model."""
        return not ids.isdisjoint(self._parameters) or any(id(s.module) in ids for s in self._tree.sites.values())

    def read_weights(self) -> None:
        """Weights as they are, without a forward."""
        self._begin_step()
        self._open_take()

    def read_gradients(self) -> None:
        """Gradients as they are after a backward that no step follows."""
        if self._take is not None:
            found = [(w, g) for _, w in self._weights if (g := self._gradient(w)) is not None]
            self._read(self._take, Kind.GRADIENT, found)

    # -- takes ---------------------------------------------------------------------------------------------------------

    def _open_take(self) -> Take | None:
        if self._take is None and self._taken < self.step and self._is_due(self.step):
            self._take = self._capture.take = Take(self.step)
            self._taken = self.step
            self._registry.follow(w for _, w in self._weights)
            self._read_weights(self._take)
            if not self._known_optimizers:
                # Nobody knows yet whether a hook will fire before the parameters move.
                self._updates.before((i, w.tensor) for i, w in self._weights)
        return self._take

    def _read_weights(self, take: Take) -> None:
        weights = [w for _, w in self._weights if why_not(w.tensor) is None]
        tensors = [w.tensor.detach() for w in weights]
        if not self._has_traits:
            self._has_traits = True
            self._tell.began(self._tree)
            traits = zip(weights, read_traits(tensors), strict=True)
            self._registry.learn_traits({w.full_name: found for w, found in traits})
        measured = zip(weights, measure_all(tensors), channels.row_similarities(tensors), strict=True)
        for weight, parts, alike in measured:
            row = take.row(self._registry.weight_key(weight, Kind.WEIGHT))
            row.parts, row.rows_alike = parts, alike

    def _read_parameters(self, moved: set[int]) -> None:
        take = self._take
        if take is None:
            return
        self._leave_replaced(take)
        chosen = {i: w for i, w in self._weights if i in moved}
        self._read(take, Kind.GRADIENT, [(w, g) for w in chosen.values() if (g := self._gradient(w)) is not None])
        changes = self._updates.after({i: w.tensor for i, w in chosen.items()})
        self._read(take, Kind.UPDATE, [(chosen[i], change) for i, change in changes])

    def _gradient(self, weight: Weight) -> torch.Tensor | None:
        gradient = weight.tensor.grad
        reason = None if gradient is None else why_not(gradient)
        if reason is not None:
            self._tell.note(f"not measured, {reason}: the gradient of {weight.full_name}")
            return None
        return gradient

    def _leave_replaced(self, take: Take) -> None:
        """Parameters that the model has no more: their values are nobody's weights."""
        present = {id(p) for p in self._tree.sites[""].module.parameters()}
        gone = [w for _, w in self._weights if id(w.tensor) not in present]
        if not gone:
            return
        self._weights = [(i, w) for i, w in self._weights if id(w.tensor) in present]
        take.forget({self._registry.weight_key(w, Kind.WEIGHT) for w in gone})
        names = ", ".join(w.full_name for w in gone)
        self._tell.note(f"not measured, replaced after watch (call it when the model is complete): {names}")

    def _read(self, take: Take, kind: Kind, tensors: list[tuple[Weight, torch.Tensor]]) -> None:
        for (weight, _), parts in zip(tensors, measure_all([t for _, t in tensors]), strict=True):
            take.row(self._registry.weight_key(weight, kind)).parts = parts

    def _send_take(self) -> None:
        take, self._take, self._capture.take = self._take, None, None
        self._updates.clear()
        self._capture.detach()
        if take is None:
            return
        self._capture.settle(take)
        count, records = take.seal()
        self._tell.finished(take.step, count, records)

    def close(self) -> None:
        """Takes every hook away and hands over what was measured of a step that never ended."""
        if self.is_closed:
            return
        with self._guard.shield("close"):
            self._abandon()
            if self._stepped:
                self._end_step()
            else:
                self._send_take()
            self._tell.reached(self.forward_step)
        self.is_closed = True
        optimizers.forget(self)
        for handle in self._handles:
            handle.remove()
        self._capture.close()
        # Whoever still holds a closed monitor does not hold the model.
        self._registry.close()
        self._tree.close()
        self._weights.clear()
        self._parameters.clear()
