"""Rules and thresholds that a user gives to `watch`: here, and on their way to a collector."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from initscope.hooks import Finding, Monitor, register, watch
from initscope.hooks.rules import RULES, registry
from initscope.hooks.rules.registry import RuleError
from tests.support import models
from tests.support.collector_stub import CollectorStub
from tests.support.own_rules import rule
from tests.support.recorded import train

LIMITED = next(r for r in RULES if {"warning", "critical"} <= r.limits.keys())


@pytest.fixture(autouse=True)
def _own_rules_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_added", {})


def found_in(monitor: Monitor, model: torch.nn.Module) -> set[str]:
    with monitor:
        train(model, torch.optim.SGD(model.parameters(), lr=1e-3), [models.vectors()] * 2, models.loss_of)
        return {finding.rule for finding in monitor.findings}


def test_a_registered_rule_judges_a_training() -> None:
    register(rule())
    model = models.mlp()
    assert "my-rule" in found_in(watch(model), model)
    assert "my-rule" not in found_in(watch(model, rules={"my-rule": False}), model)
    assert "my-rule" not in found_in(watch(model, rules={"my-rule": {"from_step": 9.0}}), model)


def test_the_file_of_the_environment_holds_and_a_keyword_goes_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(rule())
    file = tmp_path / "rules.toml"
    file.write_text("[my-rule]\nfrom_step = 9\n")
    monkeypatch.setenv("INITSCOPE_RULES", str(file))
    model = models.mlp()
    assert "my-rule" not in found_in(watch(model), model)
    assert "my-rule" in found_in(watch(model, rules={"my-rule": {"from_step": 1.0}}), model)
    monkeypatch.setenv("INITSCOPE_RULES", str(tmp_path / "absent.toml"))
    with pytest.raises(RuleError, match=r"absent\.toml: cannot be read"):
        watch(model)


def test_a_rule_that_fails_is_told_and_the_others_judge(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INITSCOPE_RAISE", "0")

    def fails(_window: Any, _limits: Any) -> list[Finding]:
        raise ZeroDivisionError("mine")

    model = models.mlp()
    with caplog.at_level(logging.WARNING):
        assert found_in(watch(model, rules=[replace(rule("broken"), check=fails), rule()]), model) == {"my-rule"}
    assert caplog.text.count("an error in its rule broken; the training is not affected") == 1
    assert "ZeroDivisionError: mine" in caplog.text


def test_thresholds_travel_to_the_collector_which_judges_by_them(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(f"[{LIMITED.id}]\nwarning = 4\n")
    with CollectorStub() as stub:
        for given in ({LIMITED.id: {"warning": 4.0}, RULES[0].id: False}, file):
            model = models.mlp()
            assert found_in(watch(model, url=stub.url, token="t", rules=given), model) == set()
        first, second = (b.header["description"] for b in stub.log.batches if b.header["sequence"] == 0)
    assert first["limits"] == second["limits"] == {LIMITED.id: {"warning": 4.0}}
    assert first["disabled_rules"] == [RULES[0].id]
    assert "disabled_rules" not in second


def test_rules_themselves_cannot_travel_and_the_refusal_says_where_they_belong() -> None:
    with pytest.raises(ValueError, match=r"`plugins` of its rules file \(initscope serve --rules FILE\); or set"):
        watch(models.mlp(), url="http://127.0.0.1:9", rules=[rule()])
    with CollectorStub() as stub:
        model = models.mlp()
        found: list[Finding] = []
        monitor = watch(model, url=stub.url, token="t", rules=[rule()], on_finding=found.append)
        assert found_in(monitor, model) == {"my-rule"}
        assert "limits" not in stub.log.batches[0].header["description"]
    assert [f.rule for f in found] == ["my-rule"]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"forward-drit": False}, RuleError, "rules: there is no rule 'forward-drit'; did you mean 'forward-drift'?"),
        ({LIMITED.id: {"warnig": 1.0}}, RuleError, "the rule has no limit 'warnig'; did you mean 'warning'?"),
        ("/nowhere/rules.toml", RuleError, "/nowhere/rules.toml: cannot be read: No such file"),
        (5, TypeError, "rules: rules, or a mapping of rule ids to limits, got int"),
        ([5], TypeError, "rules: a Rule, got int"),
    ],
    ids=str,
)
def test_what_chooses_no_rules_is_refused_by_name(given: Any, error: type[Exception], words: str) -> None:
    model = models.mlp()
    with pytest.raises(error) as caught:
        watch(model, rules=given)
    assert words in str(caught.value)
    assert not model._forward_pre_hooks
