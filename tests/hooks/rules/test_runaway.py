"""Starts that look fine at first and then run away; and healthy ones that only grow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.rules import Window
from initscope.hooks.rules.runaway import ACTIVATION_RUNAWAY, GRADIENT_SPIKE, LOSS_JUMP, output_growth
from initscope.hooks.rules.updates import UPDATE_RATIO
from initscope.hooks.vocabulary import Cause, Severity
from tests.support import networks as n
from tests.support.live import seen


def started(depth: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    model = n.mlp(depth, activation)
    torch.manual_seed(5)
    with torch.no_grad():
        n.draw(n.he if activation is nn.ReLU else n.xavier)(model)
    return model


def windows(rate: float, steps: int) -> list[Window]:
    return n.watched(n.mlp(5), start=n.draw(n.he), optimizer=n.sgd(rate), steps=steps)


def test_a_rate_that_looks_fine_at_the_first_step_is_critical_before_anything_is_nan() -> None:
    found = seen(started(5), optimizer=n.sgd(0.6), steps=30)
    critical = {rule: f for rule, f in found.worst.items() if f.severity is Severity.CRITICAL}
    assert critical
    assert {f.cause for f in critical.values()} == {Cause.LR_TOO_HIGH}
    assert min(found.first_step[rule] for rule in critical) > 0


def test_outputs_that_run_away_are_measured_against_their_start() -> None:
    seen_windows = windows(1.2, 6)
    last = next(w for w in seen_windows if max(output_growth(w).values()) > 5)
    (finding,) = ACTIVATION_RUNAWAY.check(last, ACTIVATION_RUNAWAY.limits)
    layer = next(x for x in last.model.layers if x.path == str(finding.evidence["layers"]).split(",")[0])
    now, start = last.stats(layer.output), last.first(layer.output)
    assert now is not None
    assert start is not None
    assert now.moments.rms > 8 * max(start.moments.rms, 1.0)
    assert (finding.severity, finding.cause) == (Severity.CRITICAL, Cause.LR_TOO_HIGH)


def test_outputs_that_grow_while_the_loss_falls_are_a_warning_at_most() -> None:
    last = next(w for w in windows(1.2, 6) if max(output_growth(w).values()) > 5)
    falling = replace(last, scalars={"loss": [(s, 2.0 - 0.01 * s) for s in sorted(last.steps)]})
    (finding,) = ACTIVATION_RUNAWAY.check(falling, ACTIVATION_RUNAWAY.limits)
    assert finding.severity is Severity.WARNING


def test_layers_that_start_small_may_grow() -> None:
    model = n.mlp(6, norm=nn.LayerNorm)
    torch.manual_seed(5)
    with torch.no_grad():
        n.draw(n.normal(0.02))(model)
    assert seen(model, optimizer=n.adam(3e-3), steps=30).alarms == {}


def test_a_loss_that_jumps_needs_a_second_sign_to_be_critical() -> None:
    calm = windows(0.005, 4)[-1]
    jumped = replace(calm, scalars={"loss": [(0, 1.4), (1, 1.3), (2, 9.0), (3, 9.0)]})
    (finding,) = LOSS_JUMP.check(jumped, LOSS_JUMP.limits)
    assert finding.severity is Severity.WARNING
    wild = windows(1.2, 4)[-1]
    loud = [*wild.scalars["loss"][:-1], (wild.step, 50.0)]
    (finding,) = LOSS_JUMP.check(replace(wild, scalars={"loss": loud}), LOSS_JUMP.limits)
    assert (finding.severity, finding.cause) == (Severity.CRITICAL, Cause.LR_TOO_HIGH)


@pytest.mark.parametrize("losses", [(1.4, 1.3, 1.2, 3.0), (1.4, 1.3, 1.2, 1.0), (9.0, 8.0, 12.0, 12.0)])
def test_a_loss_that_wavers_is_no_jump(losses: tuple[float, ...]) -> None:
    calm = windows(0.005, 4)[-1]
    assert not list(LOSS_JUMP.check(replace(calm, scalars={"loss": list(enumerate(losses))}), LOSS_JUMP.limits))


def test_another_loss_is_compared_with_its_own_start() -> None:
    class Line(nn.Sequential):
        pass

    model = Line(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def squared(output: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(output.squeeze(1), labels.float())

    assert seen(model, optimizer=n.sgd(0.01), steps=12, loss_fn=squared).alarms == {}
    torch.manual_seed(1)
    wild = Line(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    found = seen(wild, optimizer=n.sgd(1.0), steps=12, loss_fn=squared)
    assert Severity.CRITICAL in {f.severity for f in found.worst.values()}


def test_a_batch_of_outliers_makes_a_gradient_spike() -> None:
    def batches() -> n.Batches:
        for step, (x, y) in enumerate(n.vectors()):
            yield (x * 3e3 if step == 8 else x), y

    found = seen(started(3), optimizer=n.sgd(1e-6), batches=batches(), steps=10)
    assert found.worst["gradient-spike"].severity is Severity.WARNING
    assert "clip_grad_norm_" in found.worst["gradient-spike"].remedy
    assert "gradient-spike" not in seen(started(3), optimizer=n.sgd(1e-6), steps=12).worst


def test_clipped_gradients_hide_a_spike_unless_their_norm_is_logged() -> None:
    calm = windows(0.005, 8)[-1]
    norms = [(s, 1.0) for s in range(7)] + [(7, 5e3)]
    assert not list(GRADIENT_SPIKE.check(calm, GRADIENT_SPIKE.limits))
    assert list(
        GRADIENT_SPIKE.check(replace(calm, scalars={**calm.scalars, "grad_norm": norms}), GRADIENT_SPIKE.limits)
    )


def test_large_steps_are_critical_only_where_the_loss_does_not_fall() -> None:
    def judged(losses: list[float]) -> Severity:
        large = next(w for w in n.watched(n.mlp(5), start=n.draw(n.he), optimizer=n.adam(0.06), steps=4)[::-1])
        window = replace(large, scalars={"loss": list(enumerate(losses))})
        limits = {**UPDATE_RATIO.limits, "critical": 1e9, "large": 0.02}
        (finding,) = UPDATE_RATIO.check(window, limits)
        return finding.severity

    assert judged([1.4, 1.3, 1.2, 1.1]) is Severity.INFO
    assert judged([1.4, 1.3, 2.5, 1.1]) is Severity.CRITICAL
