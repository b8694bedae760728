"""Hook bodies: outputs of modules and the gradients with respect to them.

Gated at the very top; nothing is returned to torch, and no tensor is kept after a hook: only sums of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn

from initscope.hooks.client.guard import Guard
from initscope.hooks.probe import channels
from initscope.hooks.probe.describe import Registry
from initscope.hooks.probe.graph import Structure
from initscope.hooks.probe.hooking import Callback
from initscope.hooks.probe.kinds import activation_module, channel_axis
from initscope.hooks.probe.outputs import tensors_in
from initscope.hooks.probe.reduce import measure
from initscope.hooks.probe.take import Row, Take
from initscope.hooks.probe.walk import Site, why_not
from initscope.hooks.vocabulary import MAX_TENSOR_NAME, Kind

_NO_GRAPH_TASK: Final = -1


def inside_backward() -> bool:
    """Whether autograd is running on this thread: a forward in there is a recomputation."""
    return torch._C._current_graph_task_id() != _NO_GRAPH_TASK


def inside_transform() -> bool:
    """Whether a torch.func transform (vmap, grad) or torch.jit.trace is running.

    A transform's tensors have no values that could be read; a trace would take our calls for the model's.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return torch._C._get_tracing_state() is not None


class Capture:
    """Measures what watched modules return, into the open take."""

    def __init__(self, registry: Registry, guard: Guard, note: Callable[[str], None]) -> None:
        self.take: Take | None = None
        self.forward_on = False
        """Whether a training forward of the root is running."""
        self.thread = 0
        """The thread that it is running on."""
        self.is_paused = False
        """Whether what happens now is none of the training's business."""
        self.measuring = False
        """Whether our own torch calls are running (the observer must not take them for the model's)."""
        self.structure: Structure | None = None
        self._registry = registry
        self._guard = guard
        self._note = note
        self._handles: list[Any] = []
        self._sites: dict[int, Site] = {}
        self._peaks: dict[int, torch.Tensor] = {}
        self._layouts: dict[int, int] = {}
        self._batch_second: tuple[int, ...] | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the training forward that is running is another thread's: this one's calls are no part of it."""
        return self.forward_on and self.thread != threading.get_ident()

    def attach(self, sites: list[Site]) -> None:
        """Puts the forward hooks in place, if they are not."""
        if not self._handles:
            self._handles = [s.module.register_forward_hook(Callback(self.on_output, s)) for s in sites]

    def detach(self) -> None:
        """Takes the hooks away: a step that is not sampled runs none."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def close(self) -> None:
        """Takes the hooks away and lets go of the model."""
        self.detach()
        self._sites.clear()
        self._peaks.clear()

    def on_output(self, site: Site, module: nn.Module, _args: Any, output: Any) -> None:
        """Forward hook of a watched module."""
        take = self.take
        if take is None or self._guard.off or self.is_paused:
            return
        again = inside_backward()
        if not (self.forward_on or again):
            return
        # DataParallel runs its replicas on threads.
        if self.is_elsewhere and not (again or getattr(module, "_is_replica", False)):
            return
        with self._guard.shield("forward hook"):
            self.measuring = True
            try:
                self._measure_all(site, output, take, again)
            finally:
                self.measuring = False

    def on_gradient(self, take: Take, key: int, gradient: torch.Tensor) -> None:
        """Tensor hook of an output: the gradient of the loss with respect to it."""
        if take.sealed or self._guard.off:
            return
        with self._guard.shield("gradient hook"):
            take.backwards += 1
            if why_not(gradient) is None:
                take.row(key).parts += measure(gradient)

    def _measure_all(self, site: Site, output: Any, take: Take, again: bool) -> None:
        found = tensors_in(output)
        for class_name in found.unknown:
            self._note(f"not measured, an output of {site.path or 'the model'} is a {class_name}")
        for name, tensor in found.tensors:
            reason = "its name is too long" if len(name) > MAX_TENSOR_NAME else why_not(tensor)
            if reason is not None:
                self._note(f"not measured, {reason}: {name} of {site.path or 'the model'}")
                continue
            if not again:
                key = self._registry.key(site, name, Kind.ACTIVATION, tensor)
                if key is not None:
                    self._measure(site, name, tensor.detach(), take.row(key), key)
            # A leaf is the user's own tensor or parameter: a hook on it would stay there for ever.
            if tensor.requires_grad and not tensor.is_leaf:
                key = self._registry.key(site, name, Kind.ACTIVATION_GRADIENT, tensor)
                if key is not None:
                    tensor.register_hook(Callback(self.on_gradient, take, key))  # type: ignore[no-untyped-call]

    def _measure(self, site: Site, name: str, x: torch.Tensor, row: Row, key: int) -> None:
        row.parts += measure(x)
        x = self._batch_first(site.module, name, x)
        axis = channel_axis(site.module, x, self._layouts.get(x.dim()))
        self._layouts[x.dim()] = axis
        row.add_sums(channels.sample_sums(x, axis))
        self._sites[key] = site
        own = activation_module(site.module)
        following = self._following(site)
        if not self.is_settled or own in channels.DEAD_AFTER or following in channels.DEAD_AFTER:
            self._add_peaks(key, channels.channel_peaks(x, axis))
        for name_of_flat in channels.FLAT_BEYOND if own in (None, *channels.FLAT_BEYOND) else ():
            if own == name_of_flat or (own is None and (following == name_of_flat or not self.is_settled)):
                cell = channels.saturated(x, name_of_flat, own=own is not None)
                row.saturated.setdefault(name_of_flat, []).append((x.numel(), cell))

    def settle(self, take: Take) -> None:
        """Before a take is sealed: keeps of each row what its module's surroundings make meaningful."""
        take.forget(take.rows.keys() - self._registry.infos.keys())
        for key, row in take.rows.items():
            site = self._sites.get(key)
            if site is None:
                continue
            own, following = activation_module(site.module), self._following(site)
            row.flat = own if own in channels.FLAT_BEYOND else following if own is None else None
            peaks = self._peaks.get(key)
            if peaks is not None and (own in channels.DEAD_AFTER or following in channels.DEAD_AFTER):
                row.dead = channels.dead_cell(peaks)
            elif self.is_settled:
                self._peaks.pop(key, None)

    @property
    def is_settled(self) -> bool:
        """Whether the model's first forward has been read."""
        return self.structure is not None

    def _following(self, site: Site) -> str | None:
        """The activation that takes a module's output as it is."""
        around = self.structure.around.get(site.path) if self.structure else None
        return around.direct_activation if around else None

    def _add_peaks(self, key: int, peaks: torch.Tensor | None) -> None:
        seen = self._peaks.get(key)
        if peaks is None:
            return
        if seen is None or seen.shape != peaks.shape or seen.device != peaks.device:
            self._peaks[key] = peaks.clone()
        else:
            torch.maximum(seen, peaks, out=seen)

    def _batch_first(self, module: nn.Module, name: str, x: torch.Tensor) -> torch.Tensor:
        """Recurrent and attention modules may have time first; what follows them in that shape has it too."""
        if x.dim() != 3:
            return x
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            if isinstance(module, nn.RNNBase):
                second = name.startswith("output.1") or not module.batch_first
            else:
                second = name == "output.0" and not module.batch_first
            self._batch_second = tuple(x.shape[:2]) if second else None
        return x.transpose(0, 1) if self._batch_second == tuple(x.shape[:2]) else x
