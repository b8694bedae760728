"""A check alone, before any step, gives each network of the demo the verdict that its training deserves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from initscope.hooks import check
from initscope.hooks.demo import catalogue, recipes
from initscope.hooks.demo.catalogue import DemoRun
from initscope.hooks.vocabulary import Verdict


def loss_fn(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.flatten(0, -2), labels.flatten())


@pytest.mark.parametrize("run", catalogue.RUNS, ids=[run.name for run in catalogue.RUNS])
def test_a_check_says_before_the_training_what_the_training_will_show(run: DemoRun) -> None:
    torch.set_num_threads(1)
    training = recipes.build(run.name)
    report = check(training.model, next(iter(training.data.batches)), loss_fn, optimizer=training.optimizer)
    assert report.verdict is (Verdict.CRITICAL if run.is_broken else Verdict.OK)
    if run.is_broken:
        assert report.findings[0].cause is run.cause
    else:
        assert check(training.model).verdict is Verdict.OK
