"""Rows that are late, on their way, or of ranks that are missing."""

import dataclasses

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from initscope.hooks.rules.selection import select
from initscope.service.alerting.evaluate import Evaluator
from initscope.service.store import evaluation
from initscope.service.store.models import Attempt, FindingRow, Run
from tests.support import seeds
from tests.support.judging import LARGE, Clock, arrive, judge, large_weights, read


def test_a_step_waits_for_missing_ranks_but_not_for_ever(database, run):
    run_no, _ = run
    with database.write() as conn:
        conn.execute(update(Attempt).where(Attempt.run_no == run_no).values(world_size=2))
    clock = Clock()
    evaluator = Evaluator(database, select([LARGE]), clock)
    arrive(database, run, {0: 20.0})
    assert judge(database, evaluator) == 0
    clock.now += 1.0
    assert judge(database, evaluator) == 0
    clock.now += 1.1
    assert judge(database, evaluator) == 1


def test_steps_wait_for_missing_ranks_together_and_not_one_after_the_other(database, run):
    clock = Clock()
    evaluator = Evaluator(database, select([LARGE]), clock)
    arrive(database, run, {0: 1.0, 1: 1.0, 2: 1.0}, reach=False)
    assert judge(database, evaluator) == 0
    clock.now += 2.1
    assert judge(database, evaluator) == 3


def test_a_step_is_judged_at_once_when_every_rank_has_reached_it(database, run):
    run_no, _ = run
    with database.write() as conn:
        conn.execute(update(Attempt).where(Attempt.run_no == run_no).values(world_size=2))
        seeds.add_session(conn, run_no, rank=1, last_step=5)
    arrive(database, run, {0: 20.0})
    assert judge(database, Evaluator(database, select([LARGE]), Clock())) == 1


def test_late_rows_bring_the_evaluation_back_to_their_step(database, run):
    run_no, _ = run
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 1.0, 1: 1.0, 2: 1.0})
    judge(database, evaluator)
    with database.write() as conn:
        late = seeds.add_tensor(conn, run_no, "late", "weight", "weight", depth=1)
        rows = [seeds.record_row(run_no, late, step, seeds.normal(50.0)) for step in (1, 2)]
        seeds.add_records(conn, rows)
        conn.execute(update(Attempt).where(Attempt.run_no == run_no).values(dirty_step=1))
    assert judge(database, evaluator) == 2
    (finding,) = read(database, FindingRow)
    assert (finding.module_path, finding.state, finding.opened_step) == ("late", "open", 2)
    assert read(database, Attempt)[0].dirty_step is None


def test_a_row_that_comes_while_its_step_is_judged_is_judged_too(database, run):
    run_no, _ = run
    late = []

    def slow(window, limits):
        if not late:
            with database.write() as conn:  # as ingest would: the step is not evaluated yet, so nothing marks it dirty
                late.append(seeds.add_tensor(conn, run_no, "late", "weight", "weight", depth=1))
                seeds.add_records(conn, [seeds.record_row(run_no, late[0], 0, seeds.normal(50.0))])
        yield from large_weights(window, limits)

    evaluator = Evaluator(database, select([dataclasses.replace(LARGE, check=slow, patience=1)]))
    arrive(database, run, {0: 1.0})
    judge(database, evaluator)
    assert read(database, FindingRow) == []
    judge(database, evaluator)
    assert [f.module_path for f in read(database, FindingRow)] == ["late"]


def test_a_step_that_comes_while_others_are_judged_is_judged_too_after_the_end(database, run):
    run_no, tensor_no = run

    def slow(window, limits):
        if not late:
            with database.write() as conn:
                late.append(1)
                seeds.add_records(conn, [seeds.record_row(run_no, tensor_no, 1, seeds.normal(50.0))])
        yield from large_weights(window, limits)

    late = []
    evaluator = Evaluator(database, select([dataclasses.replace(LARGE, check=slow, patience=1)]))
    arrive(database, run, {0: 1.0})
    with database.write() as conn:  # one rank failed, another had logged step 1 and its rows are on their way
        conn.execute(update(Run).where(Run.run_no == run_no).values(last_step=1, status="failed"))
    judge(database, evaluator)
    judge(database, evaluator)
    assert [(f.first_step, f.state) for f in read(database, FindingRow)] == [(1, "closed")]


def test_late_rows_are_not_forgotten_while_their_step_waits_for_another_rank(database, run):
    clock = Clock()
    evaluator = Evaluator(database, select([LARGE]), clock)
    arrive(database, run, {0: 1.0, 1: 1.0})
    judge(database, evaluator)
    with database.write() as conn:
        late = seeds.add_tensor(conn, run[0], "late", "weight", "weight", depth=1)
        seeds.add_records(conn, [seeds.record_row(run[0], late, step, seeds.normal(50.0)) for step in (0, 1)])
        conn.execute(update(Attempt).where(Attempt.run_no == run[0]).values(dirty_step=0, world_size=2))
    assert judge(database, evaluator) == 0
    clock.now += 3
    assert judge(database, evaluator) == 2
    assert [f.state for f in read(database, FindingRow)] == ["open"]


def test_late_rows_of_more_steps_than_one_pass_takes_are_all_judged(database, run):
    judged_steps = []

    def note(window, limits):  # noqa: ARG001
        judged_steps.append(window.step)
        return ()

    evaluator = Evaluator(database, select([dataclasses.replace(LARGE, check=note)]))
    arrive(database, run, dict.fromkeys(range(70), 1.0))
    assert [judge(database, evaluator), judge(database, evaluator)] == [50, 20]
    judged_steps.clear()
    with database.write() as conn:
        conn.execute(update(Attempt).where(Attempt.run_no == run[0]).values(dirty_step=5))
    while judge(database, evaluator):
        pass
    assert judged_steps == list(range(5, 70))


def test_a_pass_that_could_not_be_saved_leaves_nothing_behind(database, run, monkeypatch):
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 1.0})
    judge(database, evaluator)
    arrive(database, run, dict.fromkeys(range(1, 31), 20.0))

    def fail(*_):
        raise OperationalError("the disk is full", None, Exception())

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "save_step", fail)
        with pytest.raises(OperationalError):
            judge(database, evaluator)
    judge(database, evaluator)
    (finding,) = read(database, FindingRow)
    assert (finding.opened_step, finding.evidence["steps"]) == (2, 2 + 1)
