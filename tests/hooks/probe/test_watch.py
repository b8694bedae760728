"""The public surface: what may be given, what comes back, and what is said when it cannot work."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from initscope.hooks import Finding, watch
from initscope.hooks.client import ConfigError
from initscope.hooks.probe.hooking import Callback
from initscope.hooks.probe.local import LocalDiagnosis
from initscope.hooks.probe.schedule import Schedule, schedule_from
from initscope.hooks.rules import RULES, Model, Window, diagnose
from initscope.hooks.rules.selection import select
from initscope.hooks.vocabulary import Kind, RunStatus, Severity
from tests.support import models
from tests.support.collector_stub import CollectorStub, Mode
from tests.support.recorded import train, watched

CIRCLE: dict[str, Any] = {}
CIRCLE["itself"] = CIRCLE


def sgd(model: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


def deep(std: float, depth: int = 10) -> nn.Sequential:
    model = models.mlp(width=32, depth=depth)
    for p in model.parameters():
        nn.init.normal_(p, 0, std) if p.dim() > 1 else nn.init.zeros_(p)
    return model


def test_watching_twice_returns_the_same_monitor_until_it_is_closed() -> None:
    model = models.mlp()
    first = watch(model)
    assert watch(model) is first
    assert watch(nn.DataParallel(model)) is first
    first.close()
    first.close()
    second = watch(model)
    assert second is not first
    assert not second.is_closed


def test_disabled_means_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSCOPE_DISABLED", "1")
    model = models.mlp()
    with watch(model) as monitor:
        train(model, sgd(model), [models.vectors()], models.loss_of)
        monitor.log(loss=1.0)
        monitor.step()
        assert monitor.findings == []
        assert "INITSCOPE_DISABLED" in monitor.report()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_zero_network_is_named_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 5))
    for p in model.parameters():
        nn.init.zeros_(p)
    monitor = watch(model)
    for loss in train(model, sgd(model), [models.vectors()] * 4, models.loss_of):
        monitor.log(loss=loss)
    found = monitor.findings
    assert found[0].severity is Severity.CRITICAL
    assert found[0].cause == "zero_symmetric"
    report = monitor.report()
    monitor.close()
    told = capsys.readouterr().err
    for words in (found[0].diagnosis.split()[0], "zero_symmetric", "CRITICAL", "change"):
        assert words in told
        assert words in report
    assert told.count(found[0].rule + ")") == 1, "told once, not at every step"
    assert "verdict critical" in told


def test_drift_is_found_and_a_healthy_network_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    for std, verdict in ((1.0, Severity.CRITICAL), ((2 / 32) ** 0.5, None)):
        model = deep(std)
        with watch(model) as monitor:
            train(model, sgd(model, 1e-3), [models.vectors(32)] * 3, models.loss_of)
            worst = [f.severity for f in monitor.findings if f.severity is not Severity.INFO][:1]
        assert worst == ([verdict] if verdict else [])
    assert "initscope: CRITICAL" in capsys.readouterr().err


def test_on_finding_is_called_once_for_each_finding_that_opens() -> None:
    found: list[Finding] = []
    model = deep(1.0)
    with watch(model, on_finding=found.append) as monitor:
        train(model, sgd(model, 1e-9), [models.vectors(32)] * 4, models.loss_of)
        opened = monitor.findings
    assert [f.fingerprint for f in found] == list(dict.fromkeys(f.fingerprint for f in found))
    assert {f.fingerprint for f in opened} <= {f.fingerprint for f in found}
    assert found


def test_only_the_given_rules_judge() -> None:
    chosen = [rule for rule in RULES if rule.id == "zero-weight"] or [RULES[0]]
    model = deep(1.0)
    with watch(model, rules=chosen) as monitor:
        train(model, sgd(model, 1e-9), [models.vectors(32)] * 2, models.loss_of)
        assert {f.rule for f in monitor.findings} <= {chosen[0].id}
    with pytest.raises(ValueError, match="rules"):
        watch(models.mlp(), rules=chosen, url="http://127.0.0.1:9")


def test_an_error_in_the_callback_is_told_and_stops_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INITSCOPE_RAISE", "0")

    def broken(_: Finding) -> None:
        raise RuntimeError("the user's callback")

    model = deep(1.0)
    with watch(model, on_finding=broken) as monitor:
        train(model, sgd(model, 1e-9), [models.vectors(32)] * 2, models.loss_of)
        assert monitor.findings
    assert "on_finding" in caplog.text


def test_an_optimizer_that_never_steps_is_said_once_and_step_zero_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    model = models.mlp()
    monitor, r = watched(model)
    x, _ = models.vectors()
    with caplog.at_level(logging.WARNING):
        for _ in range(120):
            model(x)
    assert caplog.text.count("no torch optimizer has stepped") == 1
    assert r.steps == {}
    monitor.close()
    assert list(r.steps) == [0]
    assert r.get(0, "0", "weight", Kind.WEIGHT) is not None
    assert r.at(0, "0").moments.count == 64 * 8 * 24, "the first 64 forwards"
    assert r.get(0, "0", "weight", Kind.GRADIENT) is None
    assert any("monitor.step()" in note for note in r.description.notes)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"model": object()}, TypeError, "torch.nn.Module, got object"),
        ({"model": nn.Linear(2, 3, device="meta")}, ValueError, "weight is on the meta device"),
        ({"model": nn.LazyLinear(3)}, ValueError, "weight is lazy"),
        ({"optimizer": "adam"}, TypeError, "optimizer"),
        ({"config": SimpleNamespace(lr=1)}, TypeError, "got SimpleNamespace"),
        ({"config": CIRCLE}, ValueError, "config"),
        ({"tags": None}, TypeError, "tags"),
        ({"include": 5}, TypeError, "include"),
        ({"on_finding": 5}, TypeError, "on_finding"),
        ({"url": 8642}, ValueError, "url (INITSCOPE_URL) must be text, got int"),
        ({"token": 5, "url": "http://127.0.0.1:9"}, ValueError, "token (INITSCOPE_TOKEN) must be text, got int"),
        ({"optimizer": 3}, TypeError, "monitor.step()"),
        ({"schedule": 0}, ValueError, "schedule"),
        ({"schedule": "often"}, TypeError, "schedule"),
        ({"schedule": [-1, 2]}, ValueError, "schedule"),
        ({"schedule": []}, ValueError, "schedule"),
        ({"schedule": True}, TypeError, "schedule"),
        ({"step": -1}, ValueError, "step"),
        ({"step": 1.5}, ValueError, "step"),
        ({"tags": "one"}, TypeError, "tags"),
        ({"include": [3]}, TypeError, "include"),
        ({"url": "collector:8642"}, ConfigError, "http://"),
        ({"project": "x" * 200}, ConfigError, "project"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_by_name(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    model = arguments.pop("model", None) or models.mlp()
    with pytest.raises(error) as caught:
        watch(model, **arguments)
    assert words in str(caught.value)
    if isinstance(model, nn.Module):
        hooks = [*model._forward_hooks.values(), *model._forward_pre_hooks.values()]
        assert not any(isinstance(hook, Callback) for hook in hooks)


def test_the_default_schedule_is_dense_at_the_start() -> None:
    due = schedule_from(None)
    sampled = [s for s in range(13_001) if due(s)]
    assert sampled[:21] == list(range(21))
    assert sampled[21:39] == list(range(30, 201, 10))
    assert sampled[39:137] == list(range(300, 10_001, 100))
    assert sampled[137:] == [11_000, 12_000, 13_000]


def test_schedules_come_in_four_forms() -> None:
    assert [s for s in range(10) if schedule_from(3)(s)] == [0, 3, 6, 9]
    assert [s for s in range(10) if schedule_from([1, 5])(s)] == [1, 5]
    assert [s for s in range(10) if schedule_from(lambda s: s == 2)(s)] == [2]
    assert [s for s in range(10) if schedule_from(Schedule(((2, 1),), 4))(s)] == [0, 1, 2, 4, 8]
    for stages, after in ((((5, 1), (5, 2)), 1), (((5, 0),), 1), (((5, 1),), 0), ((("a", 1),), 1)):
        with pytest.raises(ValueError, match="schedule"):
            Schedule(stages, after)  # type: ignore[arg-type]


def test_a_rank_that_is_not_the_first_tells_of_activations_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("INITSCOPE_RUN_ID", "r")
    model = models.mlp()
    monitor, r = watched(model)
    train(model, sgd(model), [models.vectors()], models.loss_of)
    monitor.close()
    kinds = {r.infos[key].kind for key in r.steps[0]}
    assert kinds == {Kind.ACTIVATION, Kind.ACTIVATION_GRADIENT}


def test_everything_arrives_at_a_collector_over_http() -> None:
    with CollectorStub() as stub:
        model = models.mlp()
        with watch(model, url=stub.url, token="t", run="mine", project="p") as monitor:
            for loss in train(model, sgd(model), [models.vectors(seed=s) for s in range(5)], models.loss_of):
                monitor.log(loss=loss)
            assert monitor.findings == []
            assert stub.url in monitor.report()
        rows = sum(len(b.records) for b in stub.log.batches)
        assert rows == 5 * (8 * 3 + 7 * 2)
        assert len(stub.log.scalars) == 5
        first, last = stub.log.batches[0].header, stub.log.batches[-1].header
        assert (first["run"]["name"], first["run"]["project"]) == ("mine", "p")
        assert first["description"]["model_class"] == "Sequential"
        assert last["status"] == "finished"
        assert last["last_step"] == 4


@pytest.mark.parametrize("mode", [None, Mode.OK, Mode.BLACK_HOLE, Mode.GARBAGE, Mode.ERROR])
def test_weights_after_fifty_steps_are_bitwise_equal_whatever_the_collector_does(
    mode: Mode | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INITSCOPE_FLUSH_TIMEOUT", "0.3")
    batches = [models.vectors(seed=s) for s in range(50)]
    ends = []
    for watching in (False, True):
        torch.manual_seed(1)
        model = models.mlp()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        if not watching:
            train(model, optimizer, batches, models.loss_of)
        elif mode is None:
            with watch(model, url="http://127.0.0.1:9", token="t"):
                train(model, optimizer, batches, models.loss_of)
        else:
            with CollectorStub(mode) as stub, watch(model, url=stub.url, token="t"):
                train(model, optimizer, batches, models.loss_of)
        ends.append(list(model.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_forked_child_nothing_happens() -> None:
    with CollectorStub() as stub:
        model = models.mlp()
        monitor = watch(model, url=stub.url, token="t")
        child = os.fork()
        if child == 0:
            try:
                train(model, sgd(model), [models.vectors()] * 2, models.loss_of)
                monitor.log(loss=1.0)
                monitor.close()
                os._exit(0 if monitor.is_closed and not monitor.current_step else 3)
            finally:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        train(model, sgd(model), [models.vectors()], models.loss_of)
        monitor.close()
        assert {b.header["session"]["pid"] for b in stub.log.batches} == {os.getpid()}


SCRIPT = """
    import torch
    from initscope.hooks import watch
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    watch(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(6):
        optimizer.zero_grad()
        model(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
"""


@pytest.mark.parametrize(("end", "status", "code"), [("", "finished", 0), ("raise OSError('mine')", "failed", 1)])
def test_a_script_with_one_line_is_closed_at_its_end(end: str, status: str, code: int, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT) + end)
    with CollectorStub() as stub:
        environment = {**os.environ, "INITSCOPE_URL": stub.url, "INITSCOPE_TOKEN": "t", "INITSCOPE_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        assert stub.log.batches[-1].header["status"] == status
        steps = {int(s) for b in stub.log.batches for s in b.records.columns["step"]}
        assert steps == set(range(6))


def test_the_diagnosis_tells_when_a_finding_is_gone() -> None:
    words = io.StringIO()
    model = deep(1.0)
    monitor, r = watched(model)
    local = LocalDiagnosis(select(), stream=words)
    assert monitor._story is not None
    monitor._story._sinks.append(local)
    optimizer = sgd(model, 0.0)
    train(model, optimizer, [models.vectors(32)] * 2, models.loss_of)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.25)
    train(model, optimizer, [models.vectors(32)] * 6, models.loss_of)
    monitor.close()
    assert r.status is RunStatus.FINISHED
    assert "CRITICAL" in words.getvalue()
    assert "resolved at step" in words.getvalue()


def test_the_diagnosis_gives_way_after_every_rule_and_judges_the_same() -> None:
    model = deep(1.0)
    monitor, r = watched(model)
    pauses: list[str] = []
    patient = LocalDiagnosis(
        select(), stream=io.StringIO(), pause=lambda: pauses.append(threading.current_thread().name)
    )
    assert monitor._story is not None
    monitor._story._sinks.append(patient)
    train(model, sgd(model, 0.0), [models.vectors(32)], models.loss_of)
    found = patient.open_findings()
    monitor.close()
    window = Window(Model(r.infos, r.description), {0: r.steps[0]}, r.steps[0])
    ready = [rule for rule in select().active if rule.judges(window)]
    assert len(ready) > 5
    assert pauses == ["initscope-diagnosis"] * (len(ready) + 2)
    at_once = [f for f in diagnose(window, select().active) if patient._rules[f.rule].patience == 1]
    assert {f.rule for f in found} == {f.rule for f in at_once}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["before", "after", "in place", "script"])
def test_a_compiled_model_is_left_alone_and_says_so(how: str) -> None:
    torch._dynamo.reset()
    model = models.mlp()
    target: nn.Module = model
    if how == "in place":
        model.compile(backend="eager")
    monitor = None
    if how == "script":
        target = model = torch.jit.script(model)
    if how == "after":
        monitor, r = watched(model)
    if how in ("before", "after"):
        target = torch.compile(model, backend="eager")  # type: ignore[assignment]
    if monitor is None:
        monitor, r = watched(target)
    x, y = models.vectors()
    optimizer = sgd(model)
    for _ in range(3):
        optimizer.zero_grad()
        models.loss_of(target(x), y).backward()
        optimizer.step()
    monitor.close()
    assert sorted(r.steps) == [0, 1, 2]
    for kind in (Kind.WEIGHT, Kind.GRADIENT, Kind.UPDATE):
        assert r.get(1, "2", "weight", kind) is not None
    assert any("compiled" in note for note in r.description.notes)
