"""A rule, rows as ingest would leave them, and what the evaluator made of them."""

from sqlalchemy import select, update

from initscope.hooks.rules import Finding, Rule
from initscope.hooks.vocabulary import Cause, Kind, Severity
from initscope.service.store import evaluation
from initscope.service.store.models import FindingTransition, Run, Session
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
    title="", statistic="", harmless="", remedy="", source="",
)  # fmt: skip


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


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


def end(database, run, status="finished"):
    with database.write() as conn:
        conn.execute(update(Run).where(Run.run_no == run[0]).values(status=status))
