"""The evaluator: rows in the database become episodes, each step judged once, in order."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from initscope.hooks.rules import Finding, Rule
from initscope.hooks.vocabulary import Cause, Kind, Severity
from initscope.service.alerting.evaluate import Evaluator
from initscope.service.store import evaluation, schema
from initscope.service.store.engine import Database
from initscope.service.store.models import Attempt, FindingRow, FindingTransition, Run, Session
from tests.support import seeds


def large_weights(window, limits):
    for tensor, stats in window.each(Kind.WEIGHT):
        if stats.moments.rms > limits["rms"]:
            yield Finding(
                rule="large-weights",
                severity=Severity.CRITICAL,
                cause=Cause.TOO_LARGE_EXPLODE,
                step=window.step,
                module_path=tensor.module_path,
                diagnosis="too large",
                remedy="smaller",
                evidence={"rms": stats.moments.rms, "steps": len(window.steps), "baseline": window.baseline_step},
            )


LARGE = Rule(
    id="large-weights", family="test", check=large_weights, limits={"rms": 10.0}, patience=2, clear_after=2,
    title="", statistic="", harmless="", source="",
)  # fmt: skip


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    schema.ensure(database)
    yield database
    database.close()


@pytest.fixture
def run(database):
    with database.write() as conn:
        run_no, _ = seeds.add_run(conn, last_step=-1)
        conn.execute(update(Attempt).where(Attempt.run_no == run_no).values(evaluated_step=None))
        seeds.add_session(conn, run_no, last_step=-1)
        tensor_no = seeds.add_tensor(conn, run_no, "layer", "weight", "weight", depth=0)
    return run_no, tensor_no


def arrive(database, run, values, *, reach=True):
    """Rows of the weight by step, as ingest would leave them."""
    run_no, tensor_no = run
    with database.write() as conn:
        seeds.add_records(
            conn, [seeds.record_row(run_no, tensor_no, step, seeds.normal(rms)) for step, rms in values.items()]
        )
        conn.execute(update(Run).where(Run.run_no == run_no).values(last_step=max(values)))
        if reach:
            conn.execute(update(Session).where(Session.run_no == run_no).values(last_step=max(values)))


def judge(database, evaluator):
    with database.read() as conn:
        work = evaluation.pending(conn)
    return sum(evaluator.evaluate(item) for item in work)


def read(database, table):
    with database.read() as conn:
        return conn.execute(select(table.__table__)).all()


def states(database):
    return [(t.from_state, t.to_state, t.step) for t in read(database, FindingTransition)]


def test_a_finding_opens_when_its_patience_is_spent_and_resolves_after_clean_steps(database, run):
    evaluator = Evaluator(database, [LARGE])
    arrive(database, run, {0: 20.0, 1: 20.0, 2: 1.0, 3: 1.0})
    assert judge(database, evaluator) == 4
    assert states(database) == [(None, "pending", 0), ("pending", "open", 1), ("open", "resolved", 3)]
    (finding,) = read(database, FindingRow)
    assert (finding.state, finding.first_step, finding.opened_step, finding.resolved_step) == ("resolved", 0, 1, 3)
    assert finding.evidence["rms"] == pytest.approx(20.0)
    assert finding.opened_at is not None


def test_steps_that_come_one_by_one_give_the_same_as_all_at_once_and_as_a_fresh_evaluator_each(database, run):
    values = [20.0, 20.0, 1.0, 20.0, 1.0, 1.0, 20.0, 20.0]
    evaluator = Evaluator(database, [LARGE])
    for step, rms in enumerate(values):
        arrive(database, run, {step: rms})
        if step % 3 == 0:
            evaluator = Evaluator(database, [LARGE])  # as after a restart: state comes from the database
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
        judge(database, Evaluator(database, [rule]))
    (finding,) = read(database, FindingRow)
    assert (finding.fingerprint, finding.episode, finding.seen_count) == ("large-weights|weights", 0, 4)


def test_nothing_is_judged_twice(database, run):
    evaluator = Evaluator(database, [LARGE])
    arrive(database, run, {0: 20.0, 1: 20.0})
    assert judge(database, evaluator) == 2
    assert judge(database, evaluator) == 0
    assert len(read(database, FindingTransition)) == 2


def test_the_time_of_opening_is_kept(database, run):
    evaluator = Evaluator(database, [LARGE])
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
    evaluator = Evaluator(database, [LARGE])
    arrive(database, run, {0: 20.0})
    judge(database, evaluator)
    assert [f.state for f in read(database, FindingRow)] == ["pending"]
    arrive(database, run, {1: 1.0})
    judge(database, evaluator)
    assert read(database, FindingRow) == []


def test_a_step_waits_for_missing_ranks_but_not_for_ever(database, run):
    run_no, _ = run
    with database.write() as conn:
        conn.execute(update(Attempt).where(Attempt.run_no == run_no).values(world_size=2))
    clock = Clock()
    evaluator = Evaluator(database, [LARGE], clock)
    arrive(database, run, {0: 20.0})
    assert judge(database, evaluator) == 0
    clock.now += 1.0
    assert judge(database, evaluator) == 0
    clock.now += 1.1
    assert judge(database, evaluator) == 1


def test_steps_wait_for_missing_ranks_together_and_not_one_after_the_other(database, run):
    clock = Clock()
    evaluator = Evaluator(database, [LARGE], clock)
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
    assert judge(database, Evaluator(database, [LARGE], Clock())) == 1


def test_late_rows_bring_the_evaluation_back_to_their_step(database, run):
    run_no, _ = run
    evaluator = Evaluator(database, [LARGE])
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

    evaluator = Evaluator(database, [dataclasses.replace(LARGE, check=slow, patience=1)])
    arrive(database, run, {0: 1.0})
    judge(database, evaluator)
    assert read(database, FindingRow) == []
    judge(database, evaluator)
    assert [f.module_path for f in read(database, FindingRow)] == ["late"]


def test_the_window_holds_the_last_twenty_sampled_steps_and_the_baseline(database, run):
    seen = []

    def look(window, limits):  # noqa: ARG001
        seen.append((list(window.steps), window.baseline_step))
        return ()

    rule = dataclasses.replace(LARGE, check=look)
    arrive(database, run, {10 * step: 20.0 for step in range(30)})
    while judge(database, Evaluator(database, [rule])):
        pass
    arrive(database, run, {300: 20.0})
    judge(database, Evaluator(database, [rule]))  # a fresh one loads its window from the database
    for newest, (steps, baseline) in zip(range(0, 310, 10), seen, strict=True):
        assert steps == list(range(max(0, newest - 190), newest + 10, 10))
        assert baseline == 0


def test_an_ended_run_closes_its_open_findings_and_keeps_them(database, run):
    run_no, _ = run
    evaluator = Evaluator(database, [LARGE])
    arrive(database, run, {0: 20.0, 1: 20.0})
    judge(database, evaluator)
    with database.write() as conn:
        conn.execute(update(Run).where(Run.run_no == run_no).values(status="finished"))
    judge(database, Evaluator(database, [LARGE]))
    assert [f.state for f in read(database, FindingRow)] == ["closed"]
    assert states(database)[-1] == ("open", "closed", 1)
    with database.read() as conn:
        assert evaluation.pending(conn) == []


@pytest.mark.parametrize("status", ["running", "finished"])
def test_a_run_without_news_is_no_work(database, run, status):
    run_no, _ = run
    evaluator = Evaluator(database, [LARGE])
    arrive(database, run, {0: 20.0, 10: 20.0})
    with database.write() as conn:  # the run went on to a step that is not sampled
        conn.execute(update(Run).where(Run.run_no == run_no).values(last_step=15, status=status))
        conn.execute(update(Session).where(Session.run_no == run_no).values(last_step=15))
    judge(database, evaluator)
    with database.read() as conn:
        assert evaluation.pending(conn) == []


def test_two_collectors_write_every_transition_once(database, run):
    arrive(database, run, {0: 20.0, 1: 20.0})
    first, second = Evaluator(database, [LARGE]), Evaluator(database, [LARGE])
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

    rule = Rule(id="absent", family="test", check=absent, title="", statistic="", harmless="", source="")
    with database.write() as conn:
        seeds.add_records(conn, [seeds.record_row(run_no, tensor_no, 0, seeds.normal(1.0, count=8, nan_count=8))])
        conn.execute(update(Run).where(Run.run_no == run_no).values(last_step=0, status="finished"))
    judge(database, Evaluator(database, [rule]))
    (finding,) = read(database, FindingRow)
    assert finding.evidence == {"mean": "NaN", "limit": "Infinity", "nan_count": 8}


def test_a_silent_run_is_lost_and_a_fresh_one_is_not(database, run):
    run_no, _ = run
    now = datetime.now(UTC)
    with database.write() as conn:
        assert evaluation.mark_lost(conn, now + timedelta(seconds=119)) == 0
        assert evaluation.mark_lost(conn, now + timedelta(seconds=121)) == 1
    assert next(r.status for r in read(database, Run) if r.run_no == run_no) == "lost"


def end(database, run, status="finished"):
    with database.write() as conn:
        conn.execute(update(Run).where(Run.run_no == run[0]).values(status=status))


def test_a_run_that_goes_on_after_its_end_goes_on_with_its_findings(database, run):
    evaluator = Evaluator(database, [LARGE])
    arrive(database, run, {0: 20.0, 1: 20.0})
    end(database, run)
    judge(database, evaluator)
    assert [(f.episode, f.state) for f in read(database, FindingRow)] == [(0, "closed")]
    end(database, run, "running")
    arrive(database, run, {2: 20.0})
    judge(database, evaluator)
    assert [(f.episode, f.state, f.last_step) for f in read(database, FindingRow)] == [(0, "open", 2)]
    arrive(database, run, {3: 1.0, 4: 1.0})
    judge(database, Evaluator(database, [LARGE]))
    assert [(f.episode, f.state) for f in read(database, FindingRow)] == [(0, "resolved")]
    assert states(database)[1:] == [
        ("pending", "open", 1), ("open", "closed", 1), ("closed", "open", 2), ("open", "resolved", 4),
    ]  # fmt: skip


def test_rows_that_come_after_the_end_make_no_second_finding_of_the_same(database, run):
    evaluator = Evaluator(database, [LARGE])
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
    evaluator = Evaluator(database, [LARGE])
    arrive(database, run, {0: 20.0, 1: 20.0, 2: 1.0, 3: 1.0, 4: 1.0})
    judge(database, evaluator)
    with database.write() as conn:
        conn.execute(update(Attempt).where(Attempt.run_no == run[0]).values(dirty_step=0))
    judge(database, evaluator)
    assert [(f.episode, f.state) for f in read(database, FindingRow)] == [(0, "resolved")]
    assert len(states(database)) == 3
