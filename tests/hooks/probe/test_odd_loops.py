"""Loops that people write around a model, and what must not become of their numbers."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from initscope.hooks import Finding, Monitor, watch
from initscope.hooks.vocabulary import Kind
from tests.support import models
from tests.support.recorded import train, watched


class Interrupted(nn.Module):
    """Two layers; a Ctrl-C between them when `now`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 3)
        self.now = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if self.now:
            raise KeyboardInterrupt
        out: torch.Tensor = self.second(x)
        return out


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)


def batch(rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 8), torch.zeros(rows, dtype=torch.long)


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("include", ["0", "1"], ids=["a frozen layer", "an activation"])
def test_steps_count_where_nothing_that_is_watched_is_trained(include: str) -> None:
    model = small()
    model[0].requires_grad_(False)
    monitor, r = watched(model, include=include)
    opt = sgd(model)
    for _ in range(3):
        opt.zero_grad()
        for _ in range(2):
            x, y = batch()
            models.loss_of(model(x), y).backward()
        opt.step()
    monitor.close()
    assert sorted(r.steps) == [0, 1, 2]
    assert r.at(2, include).moments.count == 2 * 6 * 16


def test_an_evaluation_after_a_ctrl_c_in_a_forward_does_not_count() -> None:
    model = Interrupted()
    monitor, r = watched(model)
    opt = sgd(model)
    train(model, opt, [batch()], models.loss_of)
    model.now = True
    with pytest.raises(KeyboardInterrupt):
        model(batch()[0])
    model.now = False
    model.eval()
    with torch.no_grad():
        model(batch(50)[0])
    model.train()
    train(model, opt, [batch()], models.loss_of)
    monitor.close()
    assert r.at(1, "second").moments.count == 6 * 3


def test_long_accumulation_is_no_missing_optimizer(caplog: pytest.LogCaptureFixture) -> None:
    model = small()
    monitor, r = watched(model)
    opt = sgd(model)
    train(model, opt, [batch()], models.loss_of)
    for _ in range(60):
        x, y = batch()
        models.loss_of(model(x), y).backward()
    opt.step()
    monitor.close()
    assert "no torch optimizer" not in caplog.text
    assert r.description.notes == []


def test_a_watch_between_forward_and_step_is_no_missing_forward() -> None:
    model = small()
    opt = sgd(model)
    x, y = batch()
    loss = models.loss_of(model(x), y)
    monitor, r = watched(model)
    loss.backward()
    opt.step()
    train(model, opt, [batch()] * 2, models.loss_of)
    monitor.close()
    assert r.description.notes == []


def test_autocast_does_not_round_what_is_measured() -> None:
    model = small()
    found = []
    for enabled in (False, True):
        monitor, r = watched(model, schedule=[0])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            model(batch()[0])
        monitor.close()
        found.append(r.at(0, "0", "weight", Kind.WEIGHT).channels.row_similarity)
    assert found[0] == found[1]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is (deprecated|not supported):DeprecationWarning")
def test_a_trace_of_the_model_holds_the_model_only() -> None:
    """As TensorBoard's add_graph makes one."""
    model = small()
    x = batch()[0]
    plain = torch.jit.trace(model, x)
    monitor, r = watched(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(model, x)
    assert str(traced.inlined_graph).count("aten::") == str(plain.inlined_graph).count("aten::")
    train(model, sgd(model), [batch()], models.loss_of)
    monitor.close()
    assert r.at(0, "0").moments.count == 6 * 16


@pytest.mark.parametrize("value", [10**400, "text", None, [1.0]], ids=lambda v: str(v)[:8])
def test_what_is_no_number_is_refused_with_a_warning(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    monitor, r = watched(small())
    with caplog.at_level(logging.WARNING):
        monitor.log(loss=value)
    assert r.scalars == []
    assert monitor._story is not None
    assert monitor._story.guard.errors == 0


def zeros() -> nn.Sequential:
    model = small()
    for p in model.parameters():
        nn.init.zeros_(p)
    return model


def test_a_callback_may_ask_for_the_findings() -> None:
    seen: list[list[Finding]] = []
    took: list[float] = []

    def ask(_: Finding) -> None:
        start = time.monotonic()
        seen.append(monitor.findings)
        took.append(time.monotonic() - start)

    model = zeros()
    monitor = watch(model, on_finding=ask)
    train(model, sgd(model), [batch()] * 2, models.loss_of)
    assert monitor.findings
    monitor.close()
    assert seen
    assert max(took) < 5.0, "it would wait ten seconds for itself"


def test_a_callback_may_close_the_monitor() -> None:
    errors: list[BaseException] = []
    called = threading.Event()

    def stop(_: Finding) -> None:
        try:
            monitor.close("failed")
        except BaseException as error:  # noqa: BLE001 - it is what the test is about
            errors.append(error)
        called.set()

    model = zeros()
    monitor: Monitor = watch(model, on_finding=stop)
    train(model, sgd(model), [batch()], models.loss_of)
    train(model, sgd(model), [batch()], models.loss_of)
    assert called.wait(30)
    assert errors == []
    assert monitor.is_closed


def test_parameters_that_were_replaced_after_watch_are_not_measured_and_it_is_said() -> None:
    model = small()
    monitor, r = watched(model)
    model[2] = nn.Linear(16, 3)
    model[0].bias = nn.Parameter(torch.full((16,), 5.0))
    train(model, sgd(model), [batch()] * 2, models.loss_of)
    monitor.close()
    assert sorted(r.steps) == [0, 1]
    for step in (0, 1):
        assert r.get(step, "2", "weight", Kind.WEIGHT) is None, "a matrix that is in the model no more"
        assert r.get(step, "0", "bias", Kind.WEIGHT) is None
        assert r.get(step, "0", "weight", Kind.WEIGHT) is not None
    told = [note for note in r.description.notes if "replaced" in note]
    assert len(told) == 1
    assert "0.bias" in told[0]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # the compiler's
@pytest.mark.parametrize("whole", [True, False])
def test_a_function_that_is_compiled_inside_the_model_stays_so(whole: bool) -> None:
    torch._dynamo.reset()
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    act = torch.compile(lambda x: torch.tanh(x) * 2, backend=backend, fullgraph=whole)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.second(act(self.first(x)))

    model = Model()
    monitor, r = watched(model)
    train(model, sgd(model), [batch()] * 3, models.loss_of)
    monitor.close()
    assert sorted(r.steps) == [0, 1, 2]
    assert set(graphs) == {4}, "input, tanh, product, output"
    assert r.info("first").depth == 0


class WithActor(nn.Module):
    """Two layers; between them another thread calls the model, as the actors of reinforcement learning do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 3)
        self.actor: Any = None

    def forward(self, x: torch.Tensor) -> Any:
        x = self.first(x)
        if self.actor is not None:
            thread, self.actor = threading.Thread(target=self.actor), None
            thread.start()
            thread.join()
        return self.second(x)


@pytest.mark.parametrize("grad", [False, True])
def test_another_thread_s_forward_leaves_the_training_s_alone(grad: bool) -> None:
    model = WithActor()
    monitor, r = watched(model)
    opt = sgd(model)
    modes: list[int] = []

    def act() -> None:
        with torch.set_grad_enabled(grad):
            model(batch(50)[0])
        modes.append(torch._C._len_torch_function_stack())

    for _ in range(2):
        model.actor = act
        train(model, opt, [batch()], models.loss_of)
        modes.append(torch._C._len_torch_function_stack())
    monitor.close()
    assert modes == [0, 0, 0, 0], "no observer is left on a thread"
    for step in (0, 1):
        assert r.at(step, "first").moments.count == 6 * 8
        assert r.at(step, "second").moments.count == 6 * 3
    assert (r.info("first").depth, r.info("second").depth) == (0, 1)


def test_a_layer_that_is_thawed_later_is_described_as_trained() -> None:
    model = small()
    model[0].requires_grad_(False)
    monitor, r = watched(model)
    opt = sgd(model)
    train(model, opt, [batch()], models.loss_of)
    assert not r.info("0").trainable
    model[0].requires_grad_(True)
    opt.add_param_group({"params": list(model[0].parameters())})
    train(model, opt, [batch()], models.loss_of)
    monitor.close()
    for name, kind in (("weight", Kind.WEIGHT), ("weight", Kind.GRADIENT), ("output", Kind.ACTIVATION)):
        assert r.info("0", name, kind).trainable
    assert r.get(1, "0", "weight", Kind.GRADIENT) is not None


def test_a_gradient_that_cannot_be_measured_is_noted() -> None:
    model = nn.Sequential(nn.Embedding(20, 8, sparse=True), nn.Linear(8, 3))
    monitor, r = watched(model)
    train(model, sgd(model), [(torch.randint(20, (6,)), batch()[1])], models.loss_of)
    monitor.close()
    assert r.get(0, "0", "weight", Kind.GRADIENT) is None
    assert r.description.notes == ["not measured, it is sparse or quantised: the gradient of 0.weight"]


def test_micro_batches_merge_where_only_a_frozen_layer_in_the_middle_is_watched() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    model[1].requires_grad_(False)
    monitor, r = watched(model, include="1")
    opt = sgd(model)
    for _ in range(3):
        x, y = batch()
        models.loss_of(model(x), y).backward()
    opt.step()
    monitor.close()
    assert r.at(0, "1").moments.count == 3 * 6 * 8
