"""Models that are partly trained: which matrices are fresh, and whether that is meant."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from initscope.hooks.rules import Finding, Model, diagnose
from initscope.hooks.rules.provenance import MIXED_PROVENANCE
from initscope.hooks.vocabulary import Cause, Severity
from initscope.hooks.wire import RunDescription
from tests.support import networks as n
from tests.support import started

X = next(n.vectors(seed=9))[0]


def trained() -> nn.Sequential:
    """Six layers of 64 that have learned for long."""
    model = n.mlp(6)
    n.train(model, start=n.draw(n.he), optimizer=n.adam(1e-2), steps=500)
    return model


def judged(model: nn.Module) -> list[Finding]:
    return [f for f in started.findings(model, X) if f.rule == "mixed-provenance"]


def test_a_layer_that_was_drawn_anew_inside_a_trained_model_is_a_warning() -> None:
    model = trained()
    with torch.no_grad():
        nn.init.kaiming_normal_(model[6].weight, nonlinearity="relu")  # type: ignore[arg-type]
        nn.init.zeros_(model[6].bias)  # type: ignore[arg-type]
    (found,) = judged(model)
    assert (found.severity, found.cause) == (Severity.WARNING, Cause.MIXED_PROVENANCE)
    assert (found.module_path, found.evidence["layers"]) == ("6", "6")


def test_a_new_head_on_a_trained_model_is_no_alarm() -> None:
    model = nn.Sequential(*list(trained())[:-1], nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    assert started.alarms(judged(model)) == []


def test_trained_and_fresh_models_are_silent() -> None:
    assert judged(trained()) == []
    fresh = n.mlp(6)
    n.draw(n.he)(fresh)
    assert judged(fresh) == []


def test_a_model_that_was_said_to_be_trained_and_is_not_is_critical() -> None:
    (window, *_) = n.watched(n.mlp(6), start=n.draw(n.he), steps=1)
    said = Model(window.model.tensors, RunDescription(pretrained=True))
    (found,) = diagnose(replace(window, model=said), [MIXED_PROVENANCE])
    assert (found.severity, found.cause) == (Severity.CRITICAL, Cause.MIXED_PROVENANCE)
