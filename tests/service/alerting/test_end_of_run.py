"""What the end of a run, or of an attempt, does to its findings."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, update

from initscope.hooks.rules.selection import select
from initscope.service.alerting.evaluate import Evaluator
from initscope.service.store import evaluation
from initscope.service.store.models import Attempt, FindingRow, Run, Session
from tests.support import seeds
from tests.support.judging import LARGE, arrive, end, judge, read, states


def test_an_ended_run_closes_its_open_findings_and_keeps_them(database, run):
    run_no, _ = run
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 20.0, 1: 20.0})
    judge(database, evaluator)
    with database.write() as conn:
        conn.execute(update(Run).where(Run.run_no == run_no).values(status="finished"))
    judge(database, Evaluator(database, select([LARGE])))
    assert [f.state for f in read(database, FindingRow)] == ["closed"]
    assert states(database)[-1] == ("open", "closed", 1)
    with database.read() as conn:
        assert evaluation.pending(conn) == []


def test_a_lost_run_is_no_work_although_a_rank_never_reached_its_last_step(database, run):
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 1.0})
    arrive(database, run, {1: 1.0}, reach=False)  # its process was killed before it could say that all had come
    end(database, run, "lost")
    with database.write() as conn:
        conn.execute(update(Run).where(Run.run_no == run[0]).values(last_step=5))
    assert judge(database, evaluator) == 2
    with database.read() as conn:
        assert evaluation.pending(conn) == []


def test_findings_of_an_attempt_are_closed_when_the_next_one_begins(database, run):
    run_no, tensor_no = run
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 20.0, 1: 20.0})
    judge(database, evaluator)
    with database.write() as conn:
        values = {"run_no": run_no, "number": 1, "world_size": 1, "created_at": datetime.now(UTC)}
        conn.execute(insert(Attempt).values(**values))
        conn.execute(update(Run).where(Run.run_no == run_no).values(attempt=1, last_step=0))
        seeds.add_session(conn, run_no, attempt=1, last_step=0)
        seeds.add_records(conn, [seeds.record_row(run_no, tensor_no, 0, seeds.normal(1.0), attempt=1)])
    judge(database, evaluator)
    assert [(f.attempt, f.state) for f in read(database, FindingRow)] == [(0, "closed")]
    assert [a.evaluated_step for a in read(database, Attempt)] == [1, 0]
    end(database, run)
    with database.read() as conn:
        assert evaluation.pending(conn) == []


@pytest.mark.parametrize("status", ["running", "finished"])
def test_a_run_without_news_is_no_work(database, run, status):
    run_no, _ = run
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 20.0, 10: 20.0})
    with database.write() as conn:  # the run went on to a step that is not sampled
        conn.execute(update(Run).where(Run.run_no == run_no).values(last_step=15, status=status))
        conn.execute(update(Session).where(Session.run_no == run_no).values(last_step=15))
    judge(database, evaluator)
    with database.read() as conn:
        assert evaluation.pending(conn) == []


def test_a_silent_run_is_lost_and_a_fresh_one_is_not(database, run):
    run_no, _ = run
    now = datetime.now(UTC)
    with database.write() as conn:
        assert evaluation.mark_lost(conn, now + timedelta(seconds=119)) == 0
        assert evaluation.mark_lost(conn, now + timedelta(seconds=121)) == 1
    assert next(r.status for r in read(database, Run) if r.run_no == run_no) == "lost"


def test_a_run_that_goes_on_after_its_end_goes_on_with_its_findings(database, run):
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 20.0, 1: 20.0})
    end(database, run)
    judge(database, evaluator)
    assert [(f.episode, f.state) for f in read(database, FindingRow)] == [(0, "closed")]
    end(database, run, "running")
    arrive(database, run, {2: 20.0})
    judge(database, evaluator)
    assert [(f.episode, f.state, f.last_step) for f in read(database, FindingRow)] == [(0, "open", 2)]
    arrive(database, run, {3: 1.0, 4: 1.0})
    judge(database, Evaluator(database, select([LARGE])))
    assert [(f.episode, f.state) for f in read(database, FindingRow)] == [(0, "resolved")]
    assert states(database)[1:] == [
        ("pending", "open", 1), ("open", "closed", 1), ("closed", "open", 2), ("open", "resolved", 4),
    ]  # fmt: skip


def test_rows_that_come_after_the_end_make_no_second_finding_of_the_same(database, run):
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 20.0, 1: 20.0})
    end(database, run, "failed")
    judge(database, evaluator)
    before = states(database)
    for step in (2, 3):
        arrive(database, run, {step: 20.0})
        judge(database, evaluator)
    assert [(f.episode, f.state, f.last_step) for f in read(database, FindingRow)] == [(0, "closed", 3)]
    assert states(database) == before


def test_late_rows_of_a_step_before_a_finding_was_resolved_do_not_open_it_again(database, run):
    evaluator = Evaluator(database, select([LARGE]))
    arrive(database, run, {0: 20.0, 1: 20.0, 2: 1.0, 3: 1.0, 4: 1.0})
    judge(database, evaluator)
    with database.write() as conn:
        conn.execute(update(Attempt).where(Attempt.run_no == run[0]).values(dirty_step=0))
    judge(database, evaluator)
    assert [(f.episode, f.state) for f in read(database, FindingRow)] == [(0, "resolved")]
    assert len(states(database)) == 3
