"""startbench's view of initscope: a monitor for its `run_monitor.py`, built on `watch` and nothing else.

In the root of the repository: `make startbench STARTBENCH=DIR`, or
`python DIR/run_monitor.py dev tests.benchmarks.startbench_adapter:make_monitor OUT`
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn

from initscope.hooks import Finding, Monitor, watch
from tests.benchmarks.loss_kind import Logged, stand_in
from tests.benchmarks.verdicts import Book


class StartbenchMonitor:
    """Watches a model, whole or in parts, and keeps the book of what was found.

    A loop may call the model as a whole or only its parts (a generator and a discriminator). Which of them is known
    at the first forward: until then both are watched, from then on only what is called. What goes wrong here never
    reaches the training; the verdict says so under `error`.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, info: Mapping[str, Any]) -> None:
        self.book = Book()
        self.trouble: list[str] = []
        self._model = model
        self._optimizers = _optimizers(optimizer, info)
        self._stand_in: Logged = float
        self._norm: float | None = None
        self._monitors: dict[str, Monitor] = {}
        self._handles: list[Any] = []
        self._guard(self._read_loss, info.get("loss_fn"))
        self._guard(self._attach)

    def before_step(self, _step: int) -> None:
        """Watches a model whose parameters were lazy until now."""
        if not self._monitors:
            self._guard(self._attach)

    def after_backward(self, _step: int, _loss: float) -> None:
        """Notes the norm of all gradients, as a user logs what `clip_grad_norm_` returns."""
        self._guard(self._measure)

    def after_step(self, step: int, loss: float) -> None:
        """Logs the loss and asks what is open."""
        self._guard(lambda: self._log(loss))
        self._guard(lambda: self.book.note(step, self._findings()))

    def verdict(self) -> dict[str, Any]:
        """What run_monitor.py writes."""
        self._guard(self._detach)
        for monitor in self._monitors.values():
            self._guard(monitor.close)
        said = self.book.verdict()
        return {**said, "error": self.trouble[0]} if self.trouble else said

    # -- watching ------------------------------------------------------------------------------------------------------

    def _read_loss(self, loss_fn: object) -> None:
        self._stand_in = stand_in(loss_fn)

    def _attach(self) -> None:
        if any(isinstance(p, nn.UninitializedParameter) for p in self._model.parameters()):
            return
        self._monitors[""] = self._watch(self._model)
        for path, part in _parts(self._model):
            with contextlib.suppress(TypeError, ValueError):  # a part that cannot be watched is seen in the whole
                self._monitors[path] = self._watch(part)
        if len(self._monitors) == 1:
            return
        for path in self._monitors:
            part = self._model.get_submodule(path)
            self._handles.append(part.register_forward_pre_hook(lambda *_, path=path: self._guard(self._decide, path)))

    def _watch(self, part: nn.Module) -> Monitor:
        own = {id(p) for p in part.parameters()}
        mine = [o for o in self._optimizers if any(id(p) in own for g in o.param_groups for p in g["params"])]
        with contextlib.redirect_stderr(io.StringIO()):
            return watch(part, mine or None)

    def _decide(self, path: str) -> None:
        """The first forward: the whole, or the parts that the loop calls by themselves."""
        self._detach()
        unused = [p for p in self._monitors if (p == "") != (path == "")]
        for other in unused:
            self._monitors.pop(other).close()

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    # -- telling -------------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        with torch.no_grad():
            self._norm = math.sqrt(sum(float(torch.linalg.vector_norm(_dense(g).double())) ** 2 for g in gradients))

    def _log(self, loss: float) -> None:
        more = {} if self._norm is None else {"grad_norm": self._norm}
        for monitor in self._monitors.values():
            monitor.log(loss=self._stand_in(loss), **more)
        self._norm = None

    def _findings(self) -> Iterator[tuple[str, Sequence[Finding]]]:
        for path, monitor in self._monitors.items():
            yield path, monitor.findings

    def _guard(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001 - a monitor never ends a training
            self.trouble.append(f"{type(error).__name__}: {error}")


_CONTAINERS: Final = (nn.ModuleList, nn.ModuleDict)


def _parts(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The largest modules inside `model` that a loop could call by themselves: those with layers of their own."""
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, _CONTAINERS):
            yield from _parts(child, f"{path}.")
        elif any(True for _ in child.parameters()):
            yield path, child


def _optimizers(optimizer: torch.optim.Optimizer, info: Mapping[str, Any]) -> list[torch.optim.Optimizer]:
    given = [optimizer, *(info.get("optimizers") or {}).values()]
    return [o for o in {id(o): o for o in given}.values() if isinstance(o, torch.optim.Optimizer)]


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient.detach()


def make_monitor(model: nn.Module, optimizer: torch.optim.Optimizer, info: Mapping[str, Any]) -> StartbenchMonitor:
    """The factory that `run_monitor.py` calls."""
    return StartbenchMonitor(model, optimizer, info)
