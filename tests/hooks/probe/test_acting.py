"""What happens when a finding opens: telling, calling, and stopping the training at a step boundary."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import optimizer as torch_optimizer

from initscope.hooks import BadStart, Finding, Monitor, watch
from initscope.hooks.client import ConfigError
from initscope.hooks.probe.hooking import Callback
from initscope.hooks.rules import Severity
from tests.support import models
from tests.support.collector_stub import CollectorStub, Mode
from tests.support.own_rules import rule
from tests.support.recorded import train, watched

MOST_STEPS = 200


@pytest.fixture(autouse=True)
def _as_users_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # The guard must be swallowing errors of ours: BadStart has to pass a guard that is at work.
    monkeypatch.setenv("INITSCOPE_RAISE", "0")


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    train(model, optimizer, [models.vectors()], models.loss_of)


def train_until_raised(model: nn.Module, optimizer: torch.optim.Optimizer, monitor: Monitor) -> BadStart:
    """Trains, the diagnosis never more than a step behind, until it stops the training."""
    for _ in range(MOST_STEPS):
        try:
            step(model, optimizer)
        except BadStart as error:
            return error
        assert isinstance(monitor.findings, list)  # waits for the diagnosis
    pytest.fail("nothing stopped the training")


def has_hooks(model: nn.Module) -> bool:
    ours = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    ours += [
        *torch_optimizer._global_optimizer_pre_hooks.values(),
        *torch_optimizer._global_optimizer_post_hooks.values(),
    ]
    return any(isinstance(hook, Callback) for hook in ours)


def test_a_zero_network_stops_with_its_finding() -> None:
    model = models.mlp()
    for p in model.parameters():
        nn.init.zeros_(p)
    monitor = watch(model, on_finding="raise")
    error = train_until_raised(model, sgd(model), monitor)
    assert error.finding.severity is Severity.CRITICAL
    assert error.finding.cause == "zero_symmetric"
    assert error.finding.step == 0
    said = str(error)
    for words in ("critical", error.finding.rule, error.finding.diagnosis, error.finding.remedy.splitlines()[0]):
        assert words in said
    assert error.finding.module_path is None or error.finding.module_path in said
    assert monitor.is_closed


def test_the_error_survives_the_way_between_processes() -> None:
    model = models.mlp()
    error = train_until_raised(model, sgd(model), watch(model, on_finding="raise", rules=[rule()]))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert isinstance(copy, BadStart)
    assert copy.finding == error.finding
    assert str(copy) == str(error)
    assert "  change: first line\n          second line" in str(error)


def test_it_comes_at_the_next_training_forward_and_only_once() -> None:
    model = models.mlp()
    optimizer = sgd(model)
    monitor, r = watched(model, on_finding="raise", rules=[rule()])
    x, _ = models.vectors()
    step(model, optimizer)
    assert monitor.findings  # the end of a step is known with the next forward, or where someone asks
    with torch.no_grad():
        model(x)
    model.eval()
    model(x)
    model.train()
    assert not monitor.is_closed
    with pytest.raises(BadStart):
        model(x)
    assert monitor.is_closed
    assert r.status == "failed"
    assert model(x).shape == (len(x), models.CLASSES)
    step(model, optimizer)
    assert monitor.current_step == 1


def test_it_comes_at_the_optimizers_step_if_that_is_next() -> None:
    model = models.mlp()
    optimizer = sgd(model)
    monitor, r = watched(model, on_finding="raise", rules=[rule()])
    step(model, optimizer)
    x, y = models.vectors()
    models.loss_of(model(x), y).backward()
    before = [p.clone() for p in model.parameters()]
    assert monitor.findings
    with pytest.raises(BadStart):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert r.status == "failed"
    assert sorted(r.steps) == [0, 1], "what was measured of the step that never ended is told"
    optimizer.step()
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_it_comes_at_a_step_that_the_loop_counts_itself() -> None:
    model = models.mlp()
    monitor = watch(model, on_finding="raise", rules=[rule()])
    x, _ = models.vectors()
    model(x)
    monitor.step()
    model(x)
    assert monitor.findings
    with pytest.raises(BadStart):
        monitor.step()
    assert monitor.is_closed


def test_afterwards_the_model_trains_on_as_if_it_had_never_been_watched() -> None:
    ends = []
    for watching in (True, False):
        torch.manual_seed(3)
        model = models.mlp()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        if watching:
            monitor = watch(model, on_finding="raise", rules=[rule(step=1)])
            step(model, optimizer)
            step(model, optimizer)
            assert monitor.findings
            with pytest.raises(BadStart):
                step(model, optimizer)
            assert not has_hooks(model)
            assert watch(model) is not monitor
            watch(model).close()
        else:
            step(model, optimizer)
            step(model, optimizer)
        for _ in range(5):
            step(model, optimizer)
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("severity", [Severity.INFO, Severity.WARNING])
def test_what_is_not_critical_never_stops_anything(severity: Severity) -> None:
    model = models.mlp()
    with watch(model, on_finding="raise", rules=[rule(severity=severity)]) as monitor:
        for _ in range(4):
            step(model, sgd(model))
            assert [f.severity for f in monitor.findings] == [severity]
    assert monitor.is_closed


def test_a_warning_that_becomes_critical_stops_it() -> None:
    model = models.mlp()
    both = rule(severity=Severity.WARNING)
    worse = rule(step=3)

    def check(window: Any, limits: Any) -> list[Finding]:
        return list(worse.check(window, limits)) or list(both.check(window, limits))

    monitor = watch(model, on_finding="raise", rules=[type(both)(**{**vars(both), "check": check})])
    error = train_until_raised(model, sgd(model), monitor)
    assert (error.finding.severity, error.finding.step) == (Severity.CRITICAL, 3)


def test_a_run_that_has_ended_is_not_stopped_any_more() -> None:
    model = models.mlp()
    monitor = watch(model, on_finding="raise", rules=[rule()])
    step(model, sgd(model))
    monitor.close()
    assert monitor.findings
    step(model, sgd(model))


def test_another_watched_model_around_it_lets_the_error_pass_and_goes_on() -> None:
    inner = models.mlp()
    outer = nn.Sequential(inner)
    optimizer = sgd(outer)
    around, inside = watch(outer), watch(inner, on_finding="raise", rules=[rule()])
    step(outer, optimizer)
    assert inside.findings
    with pytest.raises(BadStart):
        outer(models.vectors()[0])
    assert inside.is_closed
    assert not around.is_closed
    before = around.current_step
    for _ in range(3):
        step(outer, optimizer)
    assert around.current_step == before + 3


def test_an_optimizer_that_two_models_share_counts_on_for_the_other() -> None:
    a, b = models.mlp(), models.mlp()
    optimizer = torch.optim.SGD([*a.parameters(), *b.parameters()], lr=0.01)
    stays = watch(a)
    stops = watch(b, on_finding="raise", rules=[rule()])
    x, y = models.vectors()

    def both() -> None:
        optimizer.zero_grad()
        (models.loss_of(a(x), y) + models.loss_of(b(x), y)).backward()

    both()
    optimizer.step()
    both()
    assert stops.findings
    with pytest.raises(BadStart):
        optimizer.step()
    optimizer.step()
    for _ in range(2):
        both()
        optimizer.step()
    assert stays.current_step == 4


def test_with_a_collector_the_run_has_failed_and_all_of_it_is_delivered(capsys: pytest.CaptureFixture[str]) -> None:
    with CollectorStub() as stub:
        model = models.mlp()
        monitor = watch(model, on_finding="raise", rules=[rule()], url=stub.url, token="t")
        for _ in range(3):
            step(model, sgd(model))
            if monitor.findings:
                break
        with pytest.raises(BadStart):
            step(model, sgd(model))
        last = stub.log.batches[-1].header
        assert last["status"] == "failed"
        books = last["books"]
        assert books["recorded"] == sum(b.count for b in stub.log.batches)
        assert "pending" not in books or books["pending"] == sum(b.count for b in stub.log.batches[-1:])
    told = capsys.readouterr().err
    assert told.count("by what rank 0 of 1 shows alone") == 1
    assert told.index("shows alone") < told.index("CRITICAL")
    assert monitor.page is not None
    assert monitor.page in told


def test_print_tells_in_the_terminal_also_with_a_collector(capsys: pytest.CaptureFixture[str]) -> None:
    with CollectorStub() as stub:
        for action, told in (("print", True), (lambda _: None, False), (None, False)):
            model = models.mlp()
            chosen = {"rules": [rule()]} if action is not None else {}
            with watch(model, url=stub.url, token="t", on_finding=action, **chosen) as monitor:
                for _ in range(2):
                    step(model, sgd(model))
                assert bool(monitor.findings) == (action is not None)
            said = capsys.readouterr().err
            assert ("CRITICAL" in said) == told
            assert ("shows alone" in said) == told


def test_a_healthy_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    model = models.mlp()
    with watch(model, on_finding="raise", rules=[rule(step=10**6)]):
        for _ in range(4):
            step(model, sgd(model))
    assert capsys.readouterr().err == ""


def test_the_environment_asks_for_it_and_a_keyword_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSCOPE_ON_FINDING", "raise")
    model = models.mlp()
    train_until_raised(model, sgd(model), watch(model, rules=[rule()]))
    model = models.mlp()
    with watch(model, rules=[rule()], on_finding="print") as monitor:
        for _ in range(3):
            step(model, sgd(model))
            assert monitor.findings
    monkeypatch.setenv("INITSCOPE_ON_FINDING", "explode")
    with pytest.raises(ConfigError, match="INITSCOPE_ON_FINDING must be print or raise, got 'explode'"):
        watch(models.mlp())
    monkeypatch.delenv("INITSCOPE_ON_FINDING")
    with pytest.raises(TypeError, match='on_finding: "print", "raise" or a function of a finding, got \'stop\''):
        watch(models.mlp(), on_finding="stop")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [Mode.BLACK_HOLE, Mode.ERROR])
def test_a_collector_that_hangs_does_not_hold_the_error_back(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSCOPE_FLUSH_TIMEOUT", "0.3")
    with CollectorStub(mode) as stub:
        model = models.mlp()
        train_until_raised(model, sgd(model), watch(model, on_finding="raise", rules=[rule()], url=stub.url, token="t"))
        assert stub.log.seen(mode)
        assert not has_hooks(model)
