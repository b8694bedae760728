"""Which loss a function computes, without calling it."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initscope.hooks.probe.loss import loss_of
from tests.benchmarks.loss_kind import kind_of, stand_in


def by_token(output, targets):
    return F.cross_entropy(output.flatten(0, 1), targets.flatten())


def masked(output, targets):
    return (F.mse_loss(output, targets[0], reduction="none") * targets[1]).mean()


def of_two(output, targets):
    return F.cross_entropy(output[0], targets) + F.mse_loss(output[1], output[2])


def over_a_batch(output, targets):
    return F.cross_entropy(output, targets, reduction="sum")


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.CrossEntropyLoss()

    def forward(self, output, targets):
        return self.inner(output, targets)


def calls_another(output, targets):
    return 0.5 * by_token(output, targets)


@pytest.mark.parametrize(
    ("loss_fn", "kind"),
    [
        (F.cross_entropy, "cross_entropy"),
        (F.mse_loss, "mse"),
        (F.binary_cross_entropy_with_logits, "bce"),
        (nn.CrossEntropyLoss(), "cross_entropy"),
        (nn.CrossEntropyLoss(reduction="sum"), None),
        (partial(F.cross_entropy, label_smoothing=0.1), "cross_entropy"),
        (partial(F.cross_entropy, reduction="sum"), None),
        (lambda output, targets: F.cross_entropy(output["logits"], targets), "cross_entropy"),
        (by_token, "cross_entropy"),
        (calls_another, "cross_entropy"),
        (masked, "mse"),
        (Wrapped(), "cross_entropy"),
        (of_two, None),
        (over_a_batch, None),
        (lambda output, targets: (output - targets).pow(2).mean(), None),
        (None, None),
        ("mse_loss", None),
        (len, None),
    ],
)
def test_the_kind_is_read_off_the_code(loss_fn, kind):
    assert kind_of(loss_fn) == kind


def test_a_function_that_reaches_itself_ends():
    def loop(output, targets):
        return loop(output, targets) + F.mse_loss(output, targets)

    assert kind_of(loop) == "mse"


@pytest.mark.parametrize("loss_fn", [F.cross_entropy, F.nll_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss,
                                     F.binary_cross_entropy])  # fmt: skip
def test_the_stand_in_has_the_value_and_the_graph(loss_fn):
    logged = stand_in(loss_fn)(2.5)
    assert float(logged.detach()) == pytest.approx(2.5)
    assert loss_of(logged) == kind_of(loss_fn)


def test_a_loss_that_is_not_finite_stays_so():
    assert math.isnan(float(stand_in(F.cross_entropy)(math.nan).detach()))
    assert math.isinf(float(stand_in(F.cross_entropy)(math.inf).detach()))


def test_an_unknown_loss_is_handed_on_as_the_number():
    assert stand_in(len)(1.5) == 1.5


def test_the_loss_is_never_called_and_chance_stays_where_it_is():
    def loss_fn(output, targets):
        raise AssertionError("called")
        return F.mse_loss(output + torch.randn_like(output), targets)

    before = torch.get_rng_state()
    with torch.no_grad():
        assert loss_of(stand_in(loss_fn)(1.0)) == "mse"
    assert torch.equal(before, torch.get_rng_state())
