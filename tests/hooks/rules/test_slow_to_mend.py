"""Starts that no step can mend in time: a loss that stays high, recurrent matrices at their bounds, frozen zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks import Finding
from initscope.hooks.vocabulary import Cause, Severity
from tests.support import architectures as a
from tests.support.starts import Batch, Seen, next_token, sequences, start, vectors


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


def of(seen: Seen, rule: str) -> Finding | None:
    return next((f for f in seen.of(Severity.INFO) if f.rule == rule), None)


def classifier(factor: float, lr: float) -> Seen:
    model = a.plain_mlp(depth=3)
    with torch.no_grad():
        model[-1].weight.mul_(factor)  # type: ignore[union-attr, operator]
    return start(model, torch.optim.Adam(model.parameters(), lr), vectors(), steps=16)


def test_a_loss_that_starts_far_too_high_and_stays_there_is_critical() -> None:
    found = of(classifier(100.0, 1e-4), "stuck-loss")
    assert found is not None
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.BAD_OUTPUT_HEAD, "6")
    assert found.step - 0 <= 12
    assert found.evidence["left"] > 0.6  # type: ignore[operator]


def test_a_high_first_loss_that_falls_is_not() -> None:
    assert of(classifier(8.0, 1e-2), "stuck-loss") is None


def test_a_loss_that_is_a_sum_over_samples_is_not_taken_for_one_that_stays_high() -> None:
    model = a.plain_mlp(depth=3)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    seen = start(model, optimizer, vectors(), lambda out, y: F.cross_entropy(out, y, reduction="sum"), steps=16)
    assert seen.losses[0] > 30.0
    assert seen.alarms == []


def regression(bias: float) -> Iterator[Batch]:
    g = torch.Generator().manual_seed(2)
    direction = torch.randn(16, 1, generator=g) / 4
    while True:
        x = torch.randn(32, 16, generator=g)
        yield x, x @ direction + bias


def squared(model: nn.Sequential, target: float = 0.0) -> Seen:
    return start(model, torch.optim.Adam(model.parameters(), 1e-3), regression(target), F.mse_loss, steps=16)


def test_a_squared_error_that_the_outputs_alone_make_is_critical() -> None:
    model = a.plain_mlp(depth=3, classes=1)
    nn.init.constant_(model[-1].bias, 100.0)  # type: ignore[union-attr, arg-type]
    found = of(squared(model), "stuck-loss")
    assert found is not None
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.BAD_BIAS, "6")


@pytest.mark.parametrize("target", [0.0, 100.0])
def test_a_squared_error_that_the_targets_make_is_not(target: float) -> None:
    assert of(squared(a.plain_mlp(depth=3, classes=1), target), "stuck-loss") is None


def recurrent(kind: type[nn.RNNBase], change: Callable[[Tensor], object]) -> Seen:
    model = a.Recurrent(kind)
    with torch.no_grad():
        change(model.cell.weight_hh_l0)  # type: ignore[arg-type]
    return start(model, torch.optim.Adam(model.parameters(), 3e-3), sequences(), next_token, steps=6)


def test_a_plain_cell_whose_states_are_flat_is_critical() -> None:
    found = of(recurrent(nn.RNN, lambda w: w.mul_(30.0)), "recurrent-scale")
    assert found is not None
    assert (found.severity, found.cause, found.module_path) == (
        Severity.CRITICAL,
        Cause.SATURATED_ACTIVATIONS,
        "cell",
    )
    assert found.evidence["gain"] == pytest.approx(30 / 3**0.5, rel=0.05)


def test_a_gated_cell_of_the_same_gain_is_a_warning() -> None:
    found = of(recurrent(nn.LSTM, lambda w: w.mul_(30.0)), "recurrent-scale")
    assert found is not None
    assert found.severity is Severity.WARNING


@pytest.mark.parametrize("change", [nn.init.orthogonal_, nn.init.eye_, nn.init.xavier_normal_])
def test_usual_recurrent_matrices_are_silent(change: Callable[[Tensor], Tensor]) -> None:
    assert of(recurrent(nn.RNN, change), "recurrent-scale") is None


def test_the_remedy_of_a_recurrent_layer_heals_it() -> None:
    found = of(recurrent(nn.GRU, lambda w: w.mul_(30.0)), "recurrent-scale")
    assert found is not None
    model = a.Recurrent(nn.GRU)
    exec(found.remedy, {"nn": nn, "model": model})  # noqa: S102 - what a person would paste
    healed = start(model, torch.optim.Adam(model.parameters(), 1e-2), sequences(), next_token, steps=20)
    assert healed.alarms == []
    assert healed.gain > 0.2


def frozen_table(value: float) -> Seen:
    model = a.Recurrent(nn.GRU)
    if value == 0.0:
        nn.init.zeros_(model.table.weight)
    model.table.weight.requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return start(model, torch.optim.Adam(parameters, 1e-2), sequences(), next_token, steps=4)


def test_a_table_that_is_frozen_at_zero_is_critical_and_one_that_is_only_frozen_is_not() -> None:
    found = of(frozen_table(0.0), "zero-weights")
    assert found is not None
    assert (found.severity, found.module_path) == (Severity.CRITICAL, "table")
    assert of(frozen_table(1.0), "zero-weights") is None
