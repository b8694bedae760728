"""Units that started equal: those that stay so, and those that part."""

from __future__ import annotations

import torch
from torch import nn

from initscope.hooks.vocabulary import Cause, Severity
from tests.support import networks as n
from tests.support import started


def test_equal_units_that_stay_equal_are_critical_after_twenty_updates() -> None:
    def equal(model: nn.Sequential) -> None:
        n.draw(n.xavier)(model)
        model[4].weight.copy_(model[4].weight[:1].expand_as(model[4].weight))
        model[-1].weight.copy_(model[-1].weight[:, :1].expand_as(model[-1].weight))

    seen = n.watched(n.mlp(3, nn.Tanh), start=equal, optimizer=n.adam(3e-3), steps=21)
    assert "symmetry-persists" not in {f.rule for f in n.everything(seen[-2])}
    stuck = started.of("symmetry-persists", n.everything(seen[-1]))
    assert (stuck.severity, stuck.cause, stuck.module_path) == (Severity.CRITICAL, Cause.CONSTANT_SYMMETRIC, "4")
    assert float(stuck.evidence["way"]) > 0.1
    # One layer of equal units alone was only a warning: now it is the root.
    assert [e.finding.rule for e in n.opened(seen) if e.severity is Severity.CRITICAL] == ["symmetry-persists"]


def test_equal_units_that_part_resolve() -> None:
    model = n.mlp(3, nn.Tanh)
    with torch.no_grad():
        model[2].weight.copy_(model[2].weight[:1].expand_as(model[2].weight))
    found = started.findings(model, next(n.vectors())[0], steps=22, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    assert not [f for f in found if f.rule == "symmetry-persists"]


def test_equal_units_that_did_not_move_are_not_judged() -> None:
    model = n.mlp(3, nn.Tanh)
    with torch.no_grad():
        model[2].weight.copy_(model[2].weight[:1].expand_as(model[2].weight))
    found = started.findings(model, next(n.vectors())[0], steps=22, optimizer=lambda p: torch.optim.SGD(p, lr=1e-7))
    assert not [f for f in found if f.rule == "symmetry-persists"]
