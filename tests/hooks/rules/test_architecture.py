"""Remarks on shapes that are hard to start, and shapes that only look so."""

from __future__ import annotations

import pytest
from torch import nn

from initscope.hooks.rules import Finding
from initscope.hooks.vocabulary import Severity
from tests.support import networks as n
from tests.support import started


def remarks(model: nn.Module) -> list[Finding]:
    return [f for f in started.findings(model, next(n.vectors())[0]) if f.rule == "architecture"]


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (lambda: n.mlp(5, nn.Sigmoid), "sigmoid"),
        (lambda: n.mlp(8, width=6), "ReLU layers of at most 6 units"),
        (lambda: n.mlp(30, nn.Tanh, width=16), "by chance alone"),
    ],
)
def test_a_shape_that_is_hard_to_start_is_noted(model: object, word: str) -> None:
    found = remarks(model())  # type: ignore[operator]
    assert any(word in f.diagnosis for f in found)
    assert {f.severity for f in found} == {Severity.INFO}


@pytest.mark.parametrize(
    "model",
    [
        lambda: n.mlp(3, nn.Sigmoid),
        lambda: n.mlp(8, nn.Sigmoid, norm=nn.BatchNorm1d),
        lambda: n.mlp(3, width=6),
        lambda: n.mlp(10),
        lambda: n.mlp(30, nn.Tanh, width=16, norm=nn.LayerNorm),
    ],
)
def test_shapes_that_start_well_are_silent(model: object) -> None:
    assert remarks(model()) == []  # type: ignore[operator]
