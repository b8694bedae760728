"""Training with and without `watch` is bitwise the same, whatever the collector does."""

from __future__ import annotations

import pytest
import torch

from initscope.hooks import watch
from tests.support import models
from tests.support.collector import running_collector
from tests.support.collector_stub import CollectorStub, Mode, closed_port

STEPS = 50


def train(name: str, url: str | None, token: str | None = None, *, watched: bool = True, **options):
    """The state after 50 steps: parameters, buffers, optimizer state, the generator's state."""
    torch.set_num_threads(1)
    torch.manual_seed(11)
    model, batch = {
        "gpt": (models.Gpt, lambda i: models.tokens(4, seed=i)),
        "cnn": (models.Cnn, lambda i: models.images(4, seed=i)),
    }[name]
    model = model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    monitor = watch(model, url=url, token=token, **options) if watched else None
    for step in range(STEPS):
        inputs, labels = batch(step)
        optimizer.zero_grad()
        loss = models.loss_of(model(inputs), labels)
        loss.backward()
        optimizer.step()
        if monitor is not None:
            monitor.log(loss=loss)
    if monitor is not None:
        monitor.close()
    state = {n: t.clone() for n, t in model.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{n}": t.clone() for n, t in moments.items()}
    return state | {"rng": torch.get_rng_state()}


def check_equal(got, expected):
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


@pytest.fixture(scope="module")
def bare():
    return {name: train(name, None, watched=False) for name in ("gpt", "cnn")}


@pytest.fixture(autouse=True)
def _short_exit(monkeypatch):
    monkeypatch.setenv("INITSCOPE_FLUSH_TIMEOUT", "1")


@pytest.mark.parametrize("name", ["gpt", "cnn"])
def test_with_a_collector_that_is_up(bare, name, tmp_path):
    with running_collector(tmp_path) as collector:
        check_equal(train(name, collector.url, collector.token), bare[name])
        assert collector.counts()[2] > 0  # it really was measured


@pytest.mark.parametrize("name", ["gpt", "cnn"])
def test_with_a_collector_that_is_down(bare, name):
    check_equal(train(name, f"http://127.0.0.1:{closed_port()}", "token"), bare[name])


@pytest.mark.parametrize("mode", [Mode.BLACK_HOLE, Mode.DRIP, Mode.RESET, Mode.GARBAGE, Mode.UNAUTHORIZED, Mode.ERROR])
def test_with_a_collector_that_misbehaves(bare, mode):
    with CollectorStub(mode) as stub:
        check_equal(train("gpt", stub.url, "token"), bare["gpt"])
        assert stub.log.seen(mode)  # the fault happened
        assert not stub.log.stored


def test_without_a_collector_with_the_diagnosis_in_the_process(bare):
    check_equal(train("gpt", None), bare["gpt"])


def test_with_a_training_that_a_critical_finding_would_stop(bare):
    check_equal(train("cnn", None, on_finding="raise"), bare["cnn"])
