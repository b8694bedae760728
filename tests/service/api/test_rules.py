"""The catalogue over HTTP, with the thresholds that hold."""

from __future__ import annotations

from pathlib import Path

from initscope.hooks.rules import RULES
from tests.support import seeds
from tests.support.collector import Collector, running_collector

LIMITED = next(rule for rule in RULES if {"warning", "critical"} <= rule.limits.keys())
OTHER = next(rule for rule in RULES if rule is not LIMITED)


def by_id(answer: dict) -> dict[str, dict]:
    return {rule["id"]: rule for rule in answer["rules"]}


def test_every_rule_is_there_with_its_texts_and_its_own_limits(embedded: Collector) -> None:
    answer = embedded.http.get("/api/v1/rules").json()
    assert (answer["run"], answer["ignored"]) == (None, [])
    rules = by_id(answer)
    assert list(rules)[: len(RULES)] == [rule.id for rule in RULES]
    for rule in RULES:
        told = rules[rule.id]
        assert told["limits"] == told["default_limits"] == dict(rule.limits)
        assert (told["title"], told["statistic"], told["remedy"], told["source"]) == (
            rule.title, rule.statistic, rule.remedy, rule.source,
        )  # fmt: skip
        assert (told["is_enabled"], told["is_own"], told["patience"]) == (True, False, rule.patience)


def test_the_collectors_file_and_then_the_runs_limits_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(f'plugins = ["tests.support.own_rules"]\n[{LIMITED.id}]\nwarning = 77.0\ncritical = 88.0\n')
    with running_collector(tmp_path, rules=file) as collector:
        with collector.database.write() as conn:
            asked = {"limits": {LIMITED.id: {"warning": 99.0}}, "disabled_rules": [OTHER.id, "unknown"]}
            _, run = seeds.add_run(conn, description=asked)
        general = by_id(collector.http.get("/api/v1/rules").json())
        assert general[LIMITED.id]["limits"] == {**LIMITED.limits, "warning": 77.0, "critical": 88.0}
        assert general[LIMITED.id]["default_limits"] == dict(LIMITED.limits)
        assert general["plugin-wide-weight"]["is_own"]
        answer = collector.http.get(f"/api/v1/rules?run={run}").json()
        own = by_id(answer)
        assert own[LIMITED.id]["limits"] == {**LIMITED.limits, "warning": 99.0, "critical": 88.0}
        assert not own[OTHER.id]["is_enabled"]
        assert (answer["run"], answer["ignored"]) == (run, ["unknown"])


def test_a_run_that_is_not_there_is_a_404(embedded: Collector) -> None:
    answer = embedded.http.get("/api/v1/rules?run=nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]["field"] == "run"
