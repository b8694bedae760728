"""Thresholds of the collector's file and of a run, and rules that fail, through the evaluator and a real collector."""

import dataclasses
import logging
import time

import pytest

from initscope.hooks import wire
from initscope.hooks.rules.selection import select
from initscope.hooks.vocabulary import RunStatus
from initscope.hooks.wire import RunDescription
from initscope.service.alerting import thresholds
from initscope.service.alerting.evaluate import Evaluator
from initscope.service.alerting.failures import Failures
from initscope.service.store.models import FindingRow, Run
from tests.support.collector import batch, running_collector, stats
from tests.support.judging import LARGE, Clock, arrive, judge, read, states

RULES_FILE = """
plugins = ["tests.support.own_rules"]

[plugin-wide-weight]
rms = 1.5

[weight-scale]
enabled = false
"""


@pytest.fixture
def judging_by_file(database_url, tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text(RULES_FILE)
    with running_collector(tmp_path, database_url, rules=file) as collector:
        yield collector


def send_and_wait(collector, run_id, description):
    """A run of one step whose weight has rms 2, judged to its end; the rules that found something."""
    session = int.from_bytes(run_id.encode())
    collector.send(
        batch(
            records={("fc", 0): stats(std=2.0)}, run_id=run_id, session=session, description=description,
            last_step=0, status=RunStatus.FINISHED,
        )
    )  # fmt: skip
    run = wire.run_uuid("default", run_id)
    deadline = time.monotonic() + 30
    while collector.http.get(f"/api/v1/runs/{run}").json()["attempts"][0]["evaluated_step"] != 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = collector.http.get(f"/api/v1/runs/{run}/findings").json()["findings"]
    return run, {finding["rule"] for finding in found}


def test_the_file_holds_for_every_run_and_a_runs_own_limits_go_on_top(judging_by_file):
    cases = {
        "plain": (RunDescription(), True),
        "higher": (RunDescription(limits={"plugin-wide-weight": {"rms": 5.0}}), False),
        "lower": (RunDescription(limits={"plugin-wide-weight": {"rms": 1.9}}), True),
        "off": (RunDescription(disabled_rules=["plugin-wide-weight"]), False),
        "newer": (RunDescription(limits={"of-tomorrow": {"x": 1.0}, "plugin-wide-weight": {"y": 9.0}}), True),
    }
    for run_id, (description, is_found) in cases.items():
        run, rules = send_and_wait(judging_by_file, run_id, description)
        assert ("plugin-wide-weight" in rules) == is_found, run_id
        assert "weight-scale" not in rules
    told = judging_by_file.http.get(f"/api/v1/rules?run={run}").json()
    assert told["ignored"] == ["of-tomorrow", "plugin-wide-weight.y"]


def test_what_a_run_may_ask_for_is_bounded(embedded):
    many = {f"rule-{n}": {"x": 1.0} for n in range(1_001)}
    deep = {"rule": {f"x{n}": 1.0 for n in range(65)}}
    for limits, field in ((many, "description.limits"), (deep, "description.limits.rule")):
        answer = embedded.post(wire_body(RunDescription(limits=limits)))
        assert answer.status_code == 422
        assert answer.json()["error"]["field"] == field
    body = wire_body(RunDescription(limits={"rule": {"x": 7.25}}))
    for value in (b'"Infinity"', b'"NaN"', b'"much"', b"[]"):
        answer = embedded.post(body.replace(b"7.25", value))
        assert answer.status_code == 422, value
        assert answer.json()["error"]["field"] == "description.limits.rule.x"


def wire_body(description):
    from initscope.hooks import encoding

    return encoding.to_json(batch(description=description))


def test_a_rule_that_fails_silences_no_other_and_resolves_nothing(database, run, caplog):
    def fails_later(window, limits):
        if window.step in (1, 2, 3):
            raise ZeroDivisionError("mine")
        return [dataclasses.replace(f, rule="fragile") for f in LARGE.check(window, limits)]

    fragile = dataclasses.replace(LARGE, id="fragile", check=fails_later, patience=1, clear_after=1)
    evaluator = Evaluator(database, select([fragile, LARGE]))
    arrive(database, run, {0: 20.0, 1: 20.0, 2: 20.0, 3: 20.0, 4: 1.0})
    with caplog.at_level(logging.ERROR):
        assert judge(database, evaluator) == 5
    assert {f.rule for f in read(database, FindingRow)} == {"fragile", "large-weights"}
    assert [s for s in states(database) if s[1] == "resolved"] == [("open", "resolved", 4)], "not by its silence at 1"
    assert caplog.text.count("rule fragile failed; the other rules judge on") == 1
    assert "ZeroDivisionError: mine" in caplog.text


def test_a_rule_that_goes_on_failing_is_told_once_a_minute(caplog):
    clock = Clock()
    failures = Failures(clock)
    for seconds in (0, 30, 61):
        clock.now = 100.0 + seconds
        failures.note(LARGE, ZeroDivisionError())
        assert failures.taken() == {LARGE.id}
        assert failures.taken() == set()
    assert caplog.text.count("large-weights failed") == 2


def test_a_runs_limits_are_read_at_each_pass(database, run):
    """A description comes with the first batch, and may come again."""
    with database.write() as conn:
        conn.execute(Run.__table__.update().values(description={"limits": {"large-weights": {"rms": 30.0}}}))
    arrive(database, run, {0: 20.0, 1: 20.0, 2: 20.0})
    judge(database, Evaluator(database, select([LARGE])))
    assert read(database, FindingRow) == []
    with database.write() as conn:
        conn.execute(Run.__table__.update().values(description={"disabled_rules": ["something-else"]}))
    arrive(database, run, {3: 20.0, 4: 20.0})
    judge(database, Evaluator(database, select([LARGE])))
    assert [(f.state, f.first_step) for f in read(database, FindingRow)] == [("open", 3)]


@pytest.mark.parametrize("description", [{}, {"limits": None, "disabled_rules": None}])
def test_a_run_of_a_client_without_thresholds_has_those_of_the_collector(description):
    selection = select([LARGE])
    assert thresholds.of_run(selection, description) == selection
    assert thresholds.ignored(selection, description) == []
