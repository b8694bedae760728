"""The training is the same with and without watch; steps are counted right; nothing is left behind."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from initscope.hooks.probe import optimizers
from initscope.hooks.probe.capture import Capture
from initscope.hooks.vocabulary import Kind
from tests.support import models
from tests.support.oracle import moments_of
from tests.support.recorded import train, watched

Batch = Callable[..., tuple[torch.Tensor, torch.Tensor]]
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Batch]] = {
    "mlp": (models.mlp, models.vectors),
    "functional": (models.FunctionalMlp, models.vectors),
    "cnn": (models.Cnn, models.images),
    "gpt with dropout": (models.Gpt, models.tokens),
    "mha": (models.MhaNet, lambda **_: (torch.randn(4, 6, 16), torch.zeros(4, dtype=torch.long))),
    "checkpointed": (lambda: models.Checkpointed(reentrant=False), models.vectors),
    "checkpointed, reentrant": (lambda: models.Checkpointed(reentrant=True), models.vectors),
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_is_bitwise_the_same_with_and_without_watch(network: str, optimizer: str) -> None:
    build, batch = NETWORKS[network]
    ends = []
    for watching in (False, True):
        torch.manual_seed(7)
        model = build()
        make = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
        opt = make(model.parameters(), lr=0.01)
        monitor = watched(model, schedule=[0, 1, 3])[0] if watching else None
        torch.manual_seed(8)
        losses = train(model, opt, [batch(seed=s) for s in range(5)], models.loss_of)
        assert torch.is_grad_enabled()
        ends.append((losses, list(model.state_dict().values()), torch.get_rng_state()))
        if monitor is not None:
            monitor.close()
    (losses, weights, rng), (losses_watched, weights_watched, rng_watched) = ends
    assert all(torch.equal(a, b) for a, b in zip(losses, losses_watched, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights, weights_watched, strict=True))
    assert torch.equal(rng, rng_watched)


def test_step_zero_holds_the_weights_that_the_first_forward_saw() -> None:
    model = models.mlp()
    monitor, r = watched(model, schedule=[0, 2])
    kept = []
    for step in range(4):
        kept.append(model[0].weight.detach().clone())
        train(model, torch.optim.SGD(model.parameters(), lr=0.5), [models.vectors(seed=step)], models.loss_of)
        assert monitor.current_step == step + 1
    monitor.close()
    assert sorted(r.steps) == [0, 2]
    for step in (0, 2):
        assert r.at(step, "0", "weight", Kind.WEIGHT).moments.rms == pytest.approx(moments_of(kept[step]).rms, rel=1e-6)
    assert r.reached_steps == [0, 1, 2, 3]


def test_what_is_logged_after_the_step_belongs_to_it() -> None:
    model = models.mlp()
    monitor, r = watched(model)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        x, y = models.vectors(seed=step)
        loss = models.loss_of(model(x), y)
        monitor.log(before=float(step))
        loss.backward()
        opt.step()
        opt.zero_grad()
        monitor.log(loss=loss, after=step, nan=float("nan"))
        loss.detach_().mul_(0)
    monitor.log(words="many", vector=torch.ones(3))  # type: ignore[arg-type]
    monitor.close()
    assert [s for s, name, _ in r.scalars if name == "loss"] == [0, 1, 2]
    assert all(v > 0 for _, name, v in r.scalars if name == "loss"), "a copy, not the tensor"
    assert [v for _, name, v in r.scalars if name in ("before", "after")] == [0, 0, 1, 1, 2, 2]
    assert {name for _, name, _ in r.scalars} == {"before", "loss", "after", "nan"}


def test_a_closure_runs_inside_the_step_and_its_gradients_are_those_of_the_end() -> None:
    for make in (
        lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
        lambda p: torch.optim.SGD(p, lr=0.1),
    ):
        model = models.mlp()
        opt = make(model.parameters())
        monitor, r = watched(model)
        x, y = models.vectors()

        def closure() -> torch.Tensor:
            opt.zero_grad()  # noqa: B023
            loss = models.loss_of(model(x), y)  # noqa: B023
            loss.backward()
            return loss

        for step in range(2):
            before = model[0].weight.detach().clone()
            opt.step(closure)
            assert monitor.current_step == step + 1
            gradient, change = model[0].weight.grad, model[0].weight.detach() - before
            assert r.at(step, "0", "weight", Kind.GRADIENT).moments.rms == pytest.approx(moments_of(gradient).rms)
            assert r.at(step, "0", "weight", Kind.UPDATE).moments.rms == pytest.approx(moments_of(change).rms)
            assert r.at(step, "0", "weight", Kind.WEIGHT).moments.rms == pytest.approx(moments_of(before).rms)
            assert r.at(step, "0").moments.count % (8 * 24) == 0
        monitor.close()


def test_a_step_inside_a_step_counts_once_and_an_error_in_one_does_not_stop_the_counting() -> None:
    class Nested(torch.optim.SGD):
        fail = False

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step(closure)
            if self.fail:
                raise RuntimeError("mine")

    model = models.mlp()
    opt = Nested(model.parameters(), lr=0.1)
    monitor, r = watched(model)
    train(model, opt, [models.vectors()] * 3, models.loss_of)
    assert sorted(r.steps) == [0, 1, 2]
    opt.fail = True
    with pytest.raises(RuntimeError, match="mine"):
        train(model, opt, [models.vectors()], models.loss_of)
    opt.fail = False
    train(model, opt, [models.vectors()] * 4, models.loss_of)
    assert monitor.current_step >= 6
    monitor.close()


def test_two_optimizers_of_one_model_make_one_step() -> None:
    model = models.mlp()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.Adam([p for m in model[1:] for p in m.parameters()], lr=0.1)
    monitor, r = watched(model)
    for step in range(3):
        x, y = models.vectors(seed=step)
        models.loss_of(model(x), y).backward()
        first.step()
        second.step()
        first.zero_grad()
        second.zero_grad()
    monitor.close()
    assert sorted(r.steps) == [0, 1, 2]
    for path in ("0", "2", "6"):
        assert r.get(2, path, "weight", Kind.GRADIENT) is not None
        assert r.get(2, path, "weight", Kind.UPDATE) is not None
    assert [o.name for o in r.description.optimizers] == ["SGD", "Adam"]


def test_an_optimizer_that_steps_every_other_time_makes_no_steps_of_its_own() -> None:
    model = models.mlp()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.Adam([p for m in model[1:] for p in m.parameters()], lr=0.1)
    monitor, r = watched(model)
    for step in range(7):
        x, y = models.vectors(seed=step)
        models.loss_of(model(x), y).backward()
        first.step()
        if step % 2 == 0:
            second.step()
        model.zero_grad()
    monitor.close()
    assert monitor.current_step == 7
    for step in range(7):
        assert r.get(step, "0", "weight", Kind.UPDATE) is not None
        assert (r.get(step, "2", "weight", Kind.UPDATE) is not None) == (step % 2 == 0)
        assert r.get(step, "0") is not None


def test_an_optimizer_of_another_model_is_not_ours() -> None:
    model, other = models.mlp(), models.mlp()
    monitor, _ = watched(model)
    train(other, torch.optim.SGD(other.parameters(), lr=0.1), [models.vectors()] * 2, models.loss_of)
    assert monitor.current_step == 0


def test_a_loop_without_an_optimizer_ends_its_steps_itself() -> None:
    model = models.mlp()
    monitor, r = watched(model)
    for step in range(3):
        x, y = models.vectors(seed=step)
        model.zero_grad()
        models.loss_of(model(x), y).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
        monitor.step()
    assert sorted(r.steps) == [0, 1, 2]
    gradient, change = (r.at(1, "0", "weight", k).moments.rms for k in (Kind.GRADIENT, Kind.UPDATE))
    assert change == pytest.approx(0.1 * gradient, rel=1e-4)


def test_step_continues_where_the_optimizer_or_the_user_says() -> None:
    model = models.mlp()
    opt = torch.optim.Adam(model.parameters())
    train(model, opt, [models.vectors()] * 4, models.loss_of)
    assert watched(model, optimizer=opt)[0].current_step == 4
    assert watched(models.mlp(), step=30)[0].current_step == 30


def test_a_skipped_step_leaves_nothing_in_the_next() -> None:
    model = models.mlp()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor, r = watched(model)
    x, y = models.vectors()
    models.loss_of(model(x * 1e3), y).backward()  # a gradient scaler would skip here: no step, gradients dropped
    opt.zero_grad()
    train(model, opt, [(x, y)], models.loss_of)
    monitor.close()
    assert r.at(0, "0").moments.count == 8 * 24
    assert r.at(0, "0").moments.abs_max < 100


def test_unsampled_steps_run_no_hook_body(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = Capture.on_output
    monkeypatch.setattr(
        Capture, "on_output", lambda self, site, *a: (calls.append(site.path), original(self, site, *a))
    )
    model = models.mlp()
    monitor, _ = watched(model, schedule=[0, 3])
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    counts = []
    for _ in range(5):
        calls.clear()
        train(model, opt, [models.vectors()], models.loss_of)
        counts.append(len(calls))
        assert all(not m._forward_hooks for m in model)
    assert counts == [7 + 1, 0, 0, 7, 0]  # the root once: then it is known to be its last child's output
    monitor.close()


def test_no_activation_outlives_its_forward() -> None:
    model = models.FunctionalMlp()
    monitor, _ = watched(model)
    alive: list[weakref.ref[torch.Tensor]] = []
    model.second.register_forward_hook(lambda _m, _a, out: alive.append(weakref.ref(out)))
    x, y = models.vectors()
    gc.disable()
    try:
        for _ in range(2):
            model(x)
            assert alive[-1]() is None, "a forward without a backward"
            loss = models.loss_of(model(x), y)
            loss.backward()
            del loss
            assert alive[-1]() is None
    finally:
        gc.enable()
    monitor.close()


def test_a_watched_model_can_be_pickled_saved_and_copied() -> None:
    model = models.mlp()
    monitor, r = watched(model)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = models.vectors()
    copies = []

    def copy_now(*_: Any) -> None:
        copies.append(copy.deepcopy(model))
        copies.append(pickle.loads(pickle.dumps(model)))  # noqa: S301
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        copies.append(torch.load(buffer, weights_only=False))

    train(model, opt, [(x, y)], lambda out, y: (copy_now(), models.loss_of(out, y))[1])
    copy.deepcopy(opt)
    pickle.dumps(opt)
    copy.deepcopy(monitor)
    recorded_steps = dict(r.steps)
    for twin in copies:
        train(twin, torch.optim.SGD(twin.parameters(), lr=0.1), [(x, y)], models.loss_of)
    assert r.steps == recorded_steps
    assert list(model.state_dict()) == list(models.mlp().state_dict())
    monitor.close()


def test_close_leaves_no_hook_behind() -> None:
    model = models.Cnn()
    handles = len(optimizers._handles)
    monitor, _ = watched(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), [models.images()], models.loss_of)
    model(models.images()[0])
    monitor.close()
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert len(optimizers._handles) == handles == 0
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None, "a closed monitor does not keep the model"


def test_an_error_in_the_model_passes_and_ends_the_observation() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = models.mlp()
            self.fail = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.fail:
                raise ValueError("the user's own")
            return self.inner(x)

    model = Failing()
    monitor, r = watched(model)
    with pytest.raises(ValueError, match="the user's own"):
        model(models.vectors()[0])
    assert not torch.overrides._get_current_function_mode_stack()
    model.fail = False
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), [models.vectors()], models.loss_of)
    monitor.close()
    assert r.info("inner.2").depth == 2


def test_an_error_of_ours_never_reaches_the_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("INITSCOPE_RAISE", "0")

    def broken(*_: Any) -> None:
        raise RuntimeError("our bug")

    monkeypatch.setattr(Capture, "_measure", broken)
    model = models.mlp()
    monitor, _ = watched(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), [models.vectors()] * 3, models.loss_of)
    monitor.close()
    assert "switched off" in caplog.text


def test_an_interrupt_passes_through_and_the_next_forward_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    model = models.mlp()
    monitor, r = watched(model)
    with monkeypatch.context() as patch:
        patch.setattr(Capture, "_measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model(models.vectors()[0])
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), [models.vectors()], models.loss_of)
    assert not torch.overrides._get_current_function_mode_stack()
    monitor.close()
    assert r.info("2").activation_after == "relu"
    assert r.at(0, "2").moments.count == 8 * 24


def test_forwards_inside_transforms_are_no_training_forwards() -> None:
    model = models.mlp()
    monitor, r = watched(model)
    weights = {k: v.detach() for k, v in model.named_parameters()}

    def call(p: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, p, (x,)).sum()

    x, y = models.vectors()
    torch.func.vmap(torch.func.grad(call), in_dims=(None, 0))(weights, x)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), [(x, y)], models.loss_of)
    monitor.close()
    assert r.at(0, "0").moments.count == 8 * 24
