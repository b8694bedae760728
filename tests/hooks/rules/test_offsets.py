"""Weights with a mean of their own, and biases that outweigh the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from initscope.hooks.vocabulary import Cause, Severity
from tests.support import networks as n
from tests.support import started


def uniform(low: float, high: float) -> n.Start:
    return lambda module: nn.init.uniform_(module.weight, low, high)  # type: ignore[arg-type]


def in_hidden(start: n.Start, model: nn.Sequential) -> nn.Sequential:
    """He in all layers, then `start` in all but the head."""
    with torch.no_grad():
        n.draw(n.he)(model)
        for layer in list(model)[:-1]:
            if isinstance(layer, nn.Linear):
                start(layer)
    return model


def test_weights_that_are_all_positive_are_critical_in_a_plain_net() -> None:
    model = in_hidden(uniform(0.0, 2 / 64), n.mlp(8))
    found = started.of("mean-shift", started.findings(model, next(n.vectors())[0]))
    assert (found.severity, found.cause) == (Severity.CRITICAL, Cause.CONSTANT_SYMMETRIC)
    assert found.module_path == "0"
    assert found.evidence["shifted_layers"] == 8.0


def test_batch_norm_does_not_mend_them() -> None:
    model = in_hidden(uniform(0.0, 2 / 64), n.mlp(8, norm=nn.BatchNorm1d))
    found = started.of("mean-shift", started.findings(model, next(n.vectors())[0]))
    assert found.severity is Severity.WARNING


@pytest.mark.parametrize("norm", [None, nn.BatchNorm1d])
def test_weights_around_zero_are_silent(norm: type[nn.Module] | None) -> None:
    model = in_hidden(uniform(-0.3, 0.3), n.mlp(8, norm=norm))
    assert not [f for f in started.findings(model, next(n.vectors())[0]) if f.rule == "mean-shift"]


def test_the_remedy_draws_around_zero() -> None:
    model = in_hidden(uniform(0.0, 2 / 64), n.mlp(8))
    found = started.of("mean-shift", started.findings(model, next(n.vectors())[0]))
    exec(found.remedy, {"nn": nn, "model": model})  # noqa: S102 - what a person would paste
    assert started.alarms(started.findings(model, next(n.vectors())[0], steps=3)) == []


def test_one_shifted_layer_is_info() -> None:
    model = in_hidden(n.he, n.mlp(8))
    nn.init.uniform_(model[4].weight, 0.0, 2 / 64)
    found = started.of("mean-shift", started.findings(model, next(n.vectors())[0]))
    assert (found.severity, found.module_path) == (Severity.INFO, "4")


def test_biases_that_switch_a_layer_off_are_critical() -> None:
    model = in_hidden(n.he, n.mlp(6))
    nn.init.constant_(model[4].bias, -20.0)
    found = started.of("bias-init", started.findings(model, next(n.vectors())[0]))
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.BAD_BIAS, "4")
    assert found.remedy == "nn.init.zeros_(model[4].bias)"


def test_the_shift_of_a_norm_that_switches_its_units_off_is_critical() -> None:
    model = in_hidden(n.he, n.cnn(4, batch_norm=True))
    nn.init.constant_(model[4].bias, -8.0)
    found = started.of("bias-init", started.findings(model, next(n.images())[0]))
    assert (found.severity, found.module_path, found.tensor_name) == (Severity.CRITICAL, "4", "bias")


def test_negative_biases_in_front_of_a_norm_do_nothing() -> None:
    model = in_hidden(n.he, n.mlp(6, norm=nn.BatchNorm1d))
    nn.init.constant_(model[3].bias, -20.0)
    assert started.alarms(started.findings(model, next(n.vectors())[0])) == []


def test_large_biases_are_info() -> None:
    model = in_hidden(n.he, n.mlp(6))
    for layer in list(model)[:-1]:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias, std=8.0)
    found = started.of("bias-init", started.findings(model, next(n.vectors())[0]))
    assert found.severity is Severity.INFO


@pytest.mark.parametrize("what", ["head prior", "small positive", "forget gate"])
def test_biases_that_are_meant_are_silent(what: str) -> None:
    model: nn.Module = in_hidden(n.he, n.mlp(4))
    x = next(n.vectors())[0]
    if what == "head prior":
        nn.init.constant_(model[-1].bias, -4.6)  # type: ignore[index]
    elif what == "small positive":
        for layer in list(model)[:-1]:  # type: ignore[call-overload]
            if isinstance(layer, nn.Linear):
                nn.init.constant_(layer.bias, 0.1)
    else:
        model = Gated()
    assert not [f for f in started.findings(model, x) if f.rule == "bias-init"]


class Gated(nn.Module):
    """An LSTM whose forget gates start wide open."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(4, 16, batch_first=True), nn.Linear(16, 4)
        with torch.no_grad():
            self.cell.bias_ih_l0[16:32] = 5.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.cell(x.view(-1, 4, 4))[0][:, -1])
        return out
