"""startbench's view of initscope: a monitor for its `run_monitor.py`, built on `watch` and nothing else.

In the root of the repository: `python DIR/run_monitor.py dev tests.benchmarks.startbench_adapter:make_monitor OUT`
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from initscope.hooks import Finding, watch
from initscope.hooks.vocabulary import Cause, Severity

_WORDS = {
    Cause.DUPLICATED_TENSORS: "constant_symmetric",
    Cause.STUCK_BRANCH: "zero_symmetric",
    Cause.STARVED_UPDATE: "too_small_vanish",
    Cause.NORM_GAIN: "zero_symmetric",
    Cause.NUMERIC_RANGE: "nonfinite",
}
"""Causes that startbench has no word for, by the nearest that it has."""


class StartbenchMonitor:
    """Notes at which step each finding was first seen open, and how bad it got."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, info: Mapping[str, Any]) -> None:
        self.loss_fn = info.get("loss_fn")
        self.steps: dict[str, tuple[int, int | None]] = {}
        self.newest: dict[str, Finding] = {}
        self.shape: tuple[int, ...] | None = None
        self._hook = model.register_forward_hook(self._see)
        with contextlib.redirect_stderr(io.StringIO()):
            self.monitor = watch(model, optimizer)

    def _see(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            self.shape = tuple(output.shape)

    def after_step(self, step: int, loss: float) -> None:
        """Logs the loss and asks what is open."""
        self.monitor.log(loss=self._as_logged(loss))
        for finding in self.monitor.findings:
            self.newest[finding.fingerprint] = finding
            warned, failed = self.steps.get(finding.fingerprint, (step, None))
            if finding.severity is Severity.CRITICAL and failed is None:
                failed = step
            if finding.severity is not Severity.INFO:
                self.steps[finding.fingerprint] = (warned, failed)

    def _as_logged(self, loss: float) -> float | torch.Tensor:
        """The loss as a user logs it, a tensor with its graph: startbench hands over a float."""
        if self.shape is None or self.loss_fn is None or len(self.shape) < 2:
            return loss
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            guess = self.loss_fn(torch.zeros(self.shape, requires_grad=True), torch.zeros(self.shape[:-1]).long())
            return guess - guess.detach() + loss
        return loss

    def verdict(self) -> dict[str, Any]:
        """What run_monitor.py writes."""
        self._hook.remove()
        self.monitor.close()
        order = sorted(self.steps, key=lambda f: (self.steps[f][1] is None, self.steps[f][1] or 0, self.steps[f][0]))
        found = [self.newest[f] for f in order]
        fails = [failed for _, failed in self.steps.values() if failed is not None]
        out: dict[str, Any] = {
            "level": "critical" if fails else "warning" if self.steps else "ok",
            "step": min(fails, default=None),
            "causes": list(dict.fromkeys(_WORDS.get(f.cause, f.cause.value) for f in found)),
            "layers": list(dict.fromkeys(path for f in found for path in _layers(f))),
        }
        if self.steps:
            out["warn_step"] = min(warned for warned, _ in self.steps.values())
        return out


def _layers(finding: Finding) -> list[str]:
    return [finding.module_path] if finding.module_path else []


def make_monitor(model: nn.Module, optimizer: torch.optim.Optimizer, info: Mapping[str, Any]) -> StartbenchMonitor:
    """The factory that `run_monitor.py` calls."""
    return StartbenchMonitor(model, optimizer, info)
