"""The adapter in loops of every kind: it never raises, changes nothing, and closes what it opened."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initscope.hooks.probe import monitor as monitors
from initscope.hooks.probe.monitor import Monitor
from initscope.hooks.vocabulary import Cause
from tests.benchmarks.startbench_adapter import make_monitor
from tests.benchmarks.starts.catalogue import CASES
from tests.benchmarks.starts.training import take_step
from tests.benchmarks.verdicts import WORDS

STARTBENCH_WORDS = {
    "zero_symmetric",
    "constant_symmetric",
    "too_large_explode",
    "too_small_vanish",
    "saturated_activations",
    "dead_relu",
    "missing_residual_scaling",
    "wrong_gain_for_activation",
    "wrong_fan_mode",
    "bad_bias",
    "bad_embedding_scale",
    "bad_output_head",
    "attention_logit_blowup",
    "nonfinite",
    "lr_too_high",
    "frozen_or_disconnected_layer",
    "unscaled_input",
    "none",
}
LOOPS = (
    "gan/he",
    "lora/b_zero",
    "two_heads/he",
    "named_inputs/xavier",
    "bag_sparse/default",
    "loop_accumulate/he",
    "loop_skipped/he",
    "loop_average/he",
    "loop_bfloat16/he",
    "vae/default",
    "siamese/he",
    "sign_momentum/he",
)
STEPS = 4


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def train(case_id: str, *, watched: bool):
    """The state after some steps: parameters, buffers, optimizers, the generator; and the adapter's verdict."""
    training = CASES[case_id].build(0)
    optimizers = {"main": training.optimizer, **training.others}
    info = {"optimizers": optimizers, "loss_fn": training.loss_fn, "T": 100}
    monitor = make_monitor(training.model, training.optimizer, info) if watched else None
    for step in range(STEPS):
        if monitor is not None:
            monitor.before_step(step)
        loss = take_step(
            training,
            step,
            (lambda told, step=step: monitor.after_backward(step, told)) if monitor else (lambda _: None),
        )
        if monitor is not None:
            monitor.after_step(step, loss)
    state = dict(training.model.state_dict())
    for name, optimizer in optimizers.items():
        for i, moments in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{i}.{key}": torch.as_tensor(value) for key, value in moments.items()}
    return state | {"rng": torch.get_rng_state()}, monitor


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    left, _ = list(monitors._live.values()), monitors._live.clear()
    for monitor in left:
        monitor.close()


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


# torch says once a process that it does not check sparse tensors by itself.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("case_id", LOOPS)
def test_training_is_bitwise_the_same_and_every_watch_is_closed(case_id):
    bare, _ = train(case_id, watched=False)
    seen, monitor = train(case_id, watched=True)
    assert seen.keys() == bare.keys()
    for name, value in bare.items():
        assert torch.equal(seen[name], value), name
    verdict = monitor.verdict()
    assert verdict["level"] in ("ok", "warning", "critical")
    assert "error" not in verdict
    assert monitors._live == {}
    assert hooks_of(monitor._model) == 0


def test_parts_that_the_loop_calls_by_themselves_are_watched_by_themselves():
    _, monitor = train("gan/generator_dead", watched=True)
    assert set(monitor._monitors) == {"generator", "discriminator"}
    verdict = monitor.verdict()
    assert verdict["level"] == "critical"
    assert any(layer.startswith("generator.") for layer in verdict["layers"])


def test_a_model_that_is_called_as_a_whole_is_watched_as_a_whole():
    _, monitor = train("two_heads/he", watched=True)
    assert set(monitor._monitors) == {""}
    monitor.verdict()


def test_lazy_parameters_are_watched_once_they_have_a_shape():
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = make_monitor(model, optimizer, {"loss_fn": F.cross_entropy})
    for step in range(2):
        monitor.before_step(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(torch.randn(6, 5)), torch.zeros(6, dtype=torch.long))
        loss.backward()
        monitor.after_backward(step, float(loss.detach()))
        optimizer.step()
        monitor.after_step(step, float(loss.detach()))
    assert isinstance(monitor._monitors[""], Monitor)
    assert "error" not in monitor.verdict()


def test_what_breaks_inside_is_in_the_verdict_and_not_in_the_training(monkeypatch):
    model = nn.Linear(3, 2)
    monitor = make_monitor(model, torch.optim.SGD(model.parameters(), lr=0.1), {})

    def broken(*_):
        raise OSError("no such thing")

    monkeypatch.setattr(monitor.book, "note", broken)
    monitor.after_step(0, 1.0)
    assert monitor.verdict()["error"] == "OSError: no such thing"
    assert monitors._live == {}


@pytest.mark.parametrize(
    "info", [{}, {"optimizers": None, "loss_fn": None}, {"optimizers": {"a": object()}, "loss_fn": 3}]
)
def test_an_odd_info_is_no_error(info):
    model = nn.Linear(3, 2)
    monitor = make_monitor(model, torch.optim.SGD(model.parameters(), lr=0.1), info)
    monitor.after_step(0, math.nan)
    assert monitor.verdict() == {"level": "ok", "step": None, "causes": [], "layers": [], "rules": []}


def test_a_critical_start_is_told_with_its_step_cause_and_layer():
    _, monitor = train("named_inputs/constant", watched=True)
    verdict = monitor.verdict()
    assert verdict["level"] == "critical"
    assert verdict["warn_step"] <= verdict["step"] < STEPS
    assert verdict["causes"][0] == "constant_symmetric"
    assert verdict["layers"][0].startswith("net.")


def test_every_cause_has_a_word_of_startbenchs():
    assert {WORDS.get(cause, cause.value) for cause in Cause} <= STARTBENCH_WORDS
