"""Truncated normal draws: what is cut, what is given back, what breaks."""

from __future__ import annotations

import math

import torch
from torch import nn

from initscope.hooks.rules import Finding
from initscope.hooks.vocabulary import Cause, Severity
from tests.support import networks as n
from tests.support import started

X = next(n.vectors())[0]


def judged(model: nn.Module) -> list[Finding]:
    return [f for f in started.findings(model, X) if f.rule == "truncation"]


def truncated(model: nn.Sequential, shrink: float = 1.0) -> nn.Sequential:
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                std = math.sqrt(2 / layer.in_features) / shrink
                nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
                nn.init.zeros_(layer.bias)
    return model


def broken(model: nn.Sequential, layers: tuple[int, ...]) -> nn.Sequential:
    """Normal draws whose outliers were clamped to the bounds at ±2."""
    with torch.no_grad():
        n.draw(n.normal(0.02))(model)
        for at in layers:
            model[at].weight.view(-1)[::3000] = -2.0  # type: ignore[union-attr]
    return model


def test_what_truncation_takes_is_noted() -> None:
    (found,) = judged(truncated(n.mlp(5, width=128)))
    assert (found.severity, found.cause) == (Severity.INFO, Cause.TRUNCATION)
    assert "model[2].weight.data.div_(0.87962566)" in found.remedy


def test_what_was_given_back_is_silent() -> None:
    assert judged(truncated(n.mlp(5, width=128), 0.87962566)) == []


def test_a_cut_that_is_none_is_silent() -> None:
    model = n.mlp(5, width=128)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
    assert judged(model) == []


def test_outliers_at_the_bounds_of_several_matrices_are_critical() -> None:
    (found,) = judged(broken(n.mlp(5, width=128, norm=nn.LayerNorm), (3, 6)))
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.TRUNCATION, "3")
    assert float(found.evidence["kurtosis"]) > 100


def test_outliers_in_one_matrix_are_a_warning() -> None:
    (found,) = judged(broken(n.mlp(5, width=128, norm=nn.LayerNorm), (3,)))
    assert found.severity is Severity.WARNING


def test_sparse_identity_and_laplace_draws_are_not_broken() -> None:
    model = n.mlp(6, width=128)
    with torch.no_grad():
        n.draw(n.he)(model)
        nn.init.sparse_(model[2].weight, 0.9)
        nn.init.eye_(model[4].weight)
        model[6].weight.copy_(torch.distributions.Laplace(0.0, 0.1).sample(model[6].weight.shape))
    assert judged(model) == []


def test_trained_weights_with_heavy_tails_are_not_broken() -> None:
    model = n.mlp(3, width=128)
    n.train(model, start=n.draw(n.he), optimizer=n.adam(1e-2), steps=200)
    assert judged(model) == []
