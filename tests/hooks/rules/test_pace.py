"""Parts that learn too fast, hardly, or only because gradients are clipped; and slow drifts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.moments import TensorStats
from initscope.hooks.rules import Finding, Window
from initscope.hooks.rules.pace import UNEVEN_UPDATES
from initscope.hooks.rules.trends import LOGIT_DRIFT, RANK_COLLAPSE
from initscope.hooks.vocabulary import Kind, Severity
from initscope.hooks.wire import TensorInfo
from tests.support import networks as n
from tests.support.live import seen


def started(depth: int = 4) -> nn.Sequential:
    model = n.mlp(depth)
    torch.manual_seed(5)
    with torch.no_grad():
        n.draw(n.he)(model)
    return model


def test_a_matrix_drawn_far_too_small_learns_unevenly_and_is_an_info() -> None:
    def weak(model: nn.Sequential) -> None:
        n.draw(n.he)(model)
        model[6].weight.mul_(0.04)

    def judged(start: Callable[[nn.Sequential], object]) -> list[Finding]:
        window = n.watched(n.mlp(6), start=start, optimizer=n.sgd(0.0005), steps=15)[-1]
        return list(UNEVEN_UPDATES.check(window, UNEVEN_UPDATES.limits))

    (found,) = judged(weak)
    assert (found.severity, found.module_path) == (Severity.INFO, "6")
    assert judged(n.draw(n.he)) == []


def faint(factor: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda output, labels: F.cross_entropy(output, labels) * factor


def test_gradients_under_eps_are_a_warning() -> None:
    found = seen(started(), optimizer=n.adam(), steps=8, loss_fn=faint(1e-8)).worst["starved-updates"]
    assert found.severity is Severity.WARNING
    assert found.remedy.startswith("eps=")
    assert float(found.evidence["rms"]) < 1e-8


def test_gradients_well_above_eps_and_optimizers_without_one_are_silent() -> None:
    assert "starved-updates" not in seen(started(), optimizer=n.adam(), steps=8).worst
    assert "starved-updates" not in seen(started(), optimizer=n.sgd(), steps=8, loss_fn=faint(1e-8)).worst


def test_a_large_eps_is_meant() -> None:
    def damped(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=1e-3, eps=1e-1)

    found = seen(started(), optimizer=damped, steps=8)
    assert found.worst["starved-updates"].severity is Severity.INFO
    assert found.alarms == {}


def test_steps_that_are_all_clipped_by_far_are_a_warning_after_a_hundred() -> None:
    found = seen(started(), optimizer=n.sgd(0.01), steps=132, clip=1e-3)
    assert found.worst["clip-saturation"].severity is Severity.WARNING
    assert found.first_step["clip-saturation"] >= 100
    assert float(found.worst["clip-saturation"].evidence["typical_factor"]) > 10


def test_light_clipping_and_none_are_no_alarm() -> None:
    assert seen(started(), optimizer=n.sgd(0.01), steps=132, clip=0.25).alarms == {}
    assert "clip-saturation" not in seen(started(), optimizer=n.sgd(0.01), steps=132, clip=1e6).worst


def changed(window: Window, kind: Kind, change: Callable[[TensorInfo, TensorStats], TensorStats]) -> Window:
    """The window with other records of a kind at its last step."""
    rows = {
        key: change(window.model.tensors[key], stats) if window.model.tensors[key].kind is kind else stats
        for key, stats in window.now.items()
    }
    return replace(window, steps={**window.steps, window.step: rows})


def late() -> Window:
    return n.watched(n.mlp(5), start=n.draw(n.he), optimizer=n.adam(), steps=22)[-1]


def test_rows_that_become_alike_are_noted() -> None:
    window = late()

    def alike(_: TensorInfo, stats: TensorStats) -> TensorStats:
        return replace(stats, channels=replace(stats.channels, row_similarity=0.99))

    (found,) = RANK_COLLAPSE.check(changed(window, Kind.WEIGHT, alike), RANK_COLLAPSE.limits)
    assert (found.severity, found.subject, found.module_path) == (Severity.INFO, "units", "2")
    assert not list(RANK_COLLAPSE.check(window, RANK_COLLAPSE.limits))


def test_samples_that_become_alike_are_noted() -> None:
    def faded(_: TensorInfo, stats: TensorStats) -> TensorStats:
        return replace(stats, channels=replace(stats.channels, signal_fraction=0.01))

    (found,) = RANK_COLLAPSE.check(changed(late(), Kind.ACTIVATION, faded), RANK_COLLAPSE.limits)
    assert (found.severity, found.subject) == (Severity.INFO, "samples")


def test_logits_that_grow_far_are_noted() -> None:
    window = late()

    def large(tensor: TensorInfo, stats: TensorStats) -> TensorStats:
        m = stats.moments
        return replace(stats, moments=replace(m, m2=m.m2 * 1e4, mean=m.mean * 100)) if tensor.module_path else stats

    (found,) = LOGIT_DRIFT.check(changed(window, Kind.ACTIVATION, large), LOGIT_DRIFT.limits)
    assert (found.severity, found.module_path) == (Severity.INFO, "10")
    assert not list(LOGIT_DRIFT.check(window, LOGIT_DRIFT.limits))
