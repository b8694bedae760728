"""Real networks under a real monitor: what `watch` finds, step by step."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks import Finding, watch
from initscope.hooks.vocabulary import Severity
from tests.support import networks as n

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Seen:
    """Findings by rule as they were when they were last open, at their worst; and the losses."""

    worst: dict[str, Finding] = field(default_factory=dict)
    first_step: dict[str, int] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    last: list[Finding] = field(default_factory=list)

    @property
    def alarms(self) -> dict[str, str]:
        """Rule and severity of every root that was open at some step, infos left out."""
        return {rule: f.severity.value for rule, f in self.worst.items() if f.severity is not Severity.INFO}


def cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """Over the last axis, for labels of any shape."""
    return F.cross_entropy(output.flatten(0, -2), labels.flatten())


def seen(
    model: nn.Module,
    *,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    batches: n.Batches | None = None,
    steps: int = 5,
    loss_fn: Loss = cross_entropy,
    clip: float | None = None,
    before_step: Callable[[int], object] = lambda _: None,
) -> Seen:
    """Trains a model as it is under `watch`, logging the loss, and the gradient's norm where it is clipped."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    out = Seen()
    tuner = (optimizer or n.sgd())([p for p in model.parameters() if p.requires_grad])
    with contextlib.redirect_stderr(io.StringIO()), watch(model, tuner) as monitor:
        for step, (x, y) in zip(range(steps), batches if batches is not None else n.vectors(), strict=False):
            before_step(step)
            tuner.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            if clip is not None:
                monitor.log(grad_norm=nn.utils.clip_grad_norm_(model.parameters(), clip))
            tuner.step()
            monitor.log(loss=loss)
            out.losses.append(loss.item())
            out.last = list(monitor.findings)
            for finding in out.last:
                known = out.worst.get(finding.rule)
                out.first_step.setdefault(finding.rule, step)
                if known is None or finding.severity.rank >= known.severity.rank:
                    out.worst[finding.rule] = finding
    return out
