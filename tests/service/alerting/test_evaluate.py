"""The evaluator: rows in the database become episodes, each step judged once, in order."""

import dataclasses

import pytest
from sqlalchemy import update

from initscope.hooks.rules import Finding, Rule
from initscope.hooks.rules.selection import select
from initscope.hooks.vocabulary import Cause, Kind, Severity
from initscope.hooks.wire import TensorInfo
from initscope.service.alerting import evaluate
from initscope.service.alerting.evaluate import Evaluator
from initscope.service.store import evaluation, writes
from initscope.service.store.models import FindingRow, FindingTransition, Run
from initscope.service.store.read_tensors import load_tensors
from tests.support import seeds
from tests.support.judging import LARGE, arrive, judge, read, states


def test_a_finding_opens_when_its_patience_is_spent_and_resolves_after_clean_steps(database, run):
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 20.0, 1: 20.0, 2: 1.0, 3: 1.0})
    assert judge(database, evaluator) == 4
    assert states(database) == [(None, "pending", 0), ("pending", "open", 1), ("open", "resolved", 3)]
    (finding,) = read(database, FindingRow)
    assert (finding.state, finding.first_step, finding.opened_step, finding.resolved_step) == ("resolved", 0, 1, 3)
    assert finding.evidence["rms"] == pytest.approx(20.0)
    assert finding.opened_at is not None


def test_steps_that_come_one_by_one_give_the_same_as_all_at_once_and_as_a_fresh_evaluator_each(database, run):
    values = [20.0, 20.0, 1.0, 20.0, 1.0, 1.0, 20.0, 20.0]
    evaluator = Evaluator(database, select([LARGE]))
    for step, rms in enumerate(values):
        arrive(database, run, {step: rms})
        if step % 3 == 0:
            evaluator = Evaluator(database, select([LARGE]))  # as after a restart: state comes from the database
        assert judge(database, evaluator) == 1
    assert [(f.episode, f.state) for f in read(database, FindingRow)] == [(0, "resolved"), (1, "open")]
    assert [t.to_state for t in read(database, FindingTransition)] == [
        "pending", "open", "resolved", "pending", "open",
    ]  # fmt: skip


def test_a_finding_about_several_layers_keeps_its_identity_over_a_restart(database, run):
    def everywhere(window, limits):  # noqa: ARG001
        yield Finding(
            rule="large-weights",
            severity=Severity.CRITICAL,
            cause=Cause.TOO_LARGE_EXPLODE,
            step=window.step,
            module_path=f"layer{window.step}",  # the worst layer changes, the finding stays the same
            subject="weights",
            diagnosis="",
            remedy="",
        )

    rule = dataclasses.replace(LARGE, check=everywhere)
    for step in range(4):
        arrive(database, run, {step: 1.0})
        judge(database, Evaluator(database, select([rule])))
    (finding,) = read(database, FindingRow)
    assert (finding.fingerprint, finding.episode, finding.seen_count) == ("large-weights|weights", 0, 4)


def test_nothing_is_judged_twice(database, run):
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 20.0, 1: 20.0})
    assert judge(database, evaluator) == 2
    assert judge(database, evaluator) == 0
    assert len(read(database, FindingTransition)) == 2


def test_the_time_of_opening_is_kept(database, run):
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 20.0})
    judge(database, evaluator)
    assert read(database, FindingRow)[0].opened_at is None  # still pending
    arrive(database, run, {1: 20.0, 2: 20.0})
    judge(database, evaluator)
    opened = read(database, FindingRow)[0].opened_at
    assert opened is not None
    arrive(database, run, {3: 20.0})
    judge(database, evaluator)
    (finding,) = read(database, FindingRow)
    assert finding.opened_at == opened < finding.updated_at


def test_a_pending_finding_that_goes_away_leaves_no_finding(database, run):
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 20.0})
    judge(database, evaluator)
    assert [f.state for f in read(database, FindingRow)] == ["pending"]
    arrive(database, run, {1: 1.0})
    judge(database, evaluator)
    assert read(database, FindingRow) == []


def test_the_window_holds_the_last_twenty_sampled_steps_and_the_baseline(database, run):
    seen = []

    def look(window, limits):  # noqa: ARG001
        seen.append((list(window.steps), window.baseline_step))
        return ()

    rule = dataclasses.replace(LARGE, check=look)
    arrive(database, run, {10 * step: 20.0 for step in range(30)})
    while judge(database, Evaluator(database, select([rule]))):
        pass
    arrive(database, run, {300: 20.0})
    judge(database, Evaluator(database, select([rule])))  # a fresh one loads its window from the database
    for newest, (steps, baseline) in zip(range(0, 310, 10), seen, strict=True):
        assert steps == list(range(max(0, newest - 190), newest + 10, 10))
        assert baseline == 0


def test_two_collectors_write_every_transition_once(database, run):
    arrive(database, run, {0: 20.0, 1: 20.0})
    first, second = Evaluator(database, select([LARGE])), Evaluator(database, select([LARGE]))
    with database.read() as conn:
        (work,) = evaluation.pending(conn)
    first.evaluate(work)
    second.evaluate(work)  # saw the same work before the first one had written
    assert len(read(database, FindingTransition)) == 2
    arrive(database, run, {2: 1.0, 3: 1.0})
    assert judge(database, second) == 2
    assert [f.state for f in read(database, FindingRow)] == ["resolved"]


def test_nan_in_a_record_and_in_evidence_survives_the_way_through_the_database(database, run):
    run_no, tensor_no = run

    def absent(window, limits):  # noqa: ARG001
        for tensor, stats in window.each(Kind.WEIGHT):
            yield Finding(
                rule="absent",
                severity=Severity.CRITICAL,
                cause=Cause.NONFINITE,
                step=window.step,
                module_path=tensor.module_path,
                diagnosis="",
                remedy="",
                evidence={"mean": stats.moments.mean, "limit": float("inf"), "nan_count": stats.moments.nan_count},
            )

    rule = Rule(id="absent", family="test", check=absent, title="", statistic="", harmless="", remedy="", source="")
    with database.write() as conn:
        seeds.add_records(conn, [seeds.record_row(run_no, tensor_no, 0, seeds.normal(1.0, count=8, nan_count=8))])
        conn.execute(update(Run).where(Run.run_no == run_no).values(last_step=0, status="finished"))
    judge(database, Evaluator(database, select([rule])))
    (finding,) = read(database, FindingRow)
    assert finding.evidence == {"mean": "NaN", "limit": "Infinity", "nan_count": 8}


def test_descriptions_are_read_again_only_when_they_were_written(database, run, monkeypatch):
    read = []
    monkeypatch.setattr(
        evaluate, "load_tensors", lambda conn, run_no: read.append(run_no) or load_tensors(conn, run_no)
    )
    seen = []
    rule = dataclasses.replace(LARGE, check=lambda window, _: seen.append(window.model) or ())
    evaluator = Evaluator(database, select([rule]))
    for step in range(3):
        arrive(database, run, {step: 1.0})
        judge(database, evaluator)
    assert len(read) == 1
    assert seen[2] is seen[0]
    tensor = TensorInfo(key=7, module_path="later", name="output", kind=Kind.ACTIVATION, depth=1)
    with database.write() as conn:
        writes.save_tensors(conn, run[0], [tensor])
    arrive(database, run, {3: 1.0})
    judge(database, evaluator)
    assert len(read) == 2
    assert "later" in {t.module_path for t in seen[3].tensors.values()}
