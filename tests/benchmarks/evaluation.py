"""Evaluating one new step of 1,000 tensors: reading it, the rules (each of them, too), and the slices inside a job.

The windows are full (baseline and 20 sampled steps) and come from real trainings. Rules are measured in CPU time with a
window made anew for each repetition, as for each step; the model's description stays, as in the collector.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import insert, update

from initscope.hooks.probe.acting import Action
from initscope.hooks.probe.local import LocalDiagnosis
from initscope.hooks.rules import RULES, Model, Rule, advance, diagnose, judged
from initscope.hooks.rules.selection import select
from initscope.hooks.vocabulary import RunStatus
from initscope.hooks.wire import Scalar
from initscope.service.alerting.evaluate import Evaluator
from initscope.service.store import evaluation, models, rows, schema, writes
from initscope.service.store.engine import Database
from tests.benchmarks.report import Table
from tests.benchmarks.windows import Recording, recordings
from tests.support import seeds
from tests.support.postgres import running_postgres


def run(*, quick: bool) -> Iterator[Table]:
    """Three tables: the whole, each rule, the slices of the diagnosis inside the job."""
    rounds = 3 if quick else 9
    found = recordings()
    yield _whole(found, rounds)
    yield _by_rule(found, rounds)
    yield _slices(found)


def _whole(found: list[Recording], rounds: int) -> Table:
    table = Table(
        "Evaluating one new step",
        (
            "model",
            "tensors",
            "database",
            "read, ms",
            "of it CPU",
            "bare driver, ms",
            "read ÷ bare",
            "rules, ms CPU",
            "whole pass, ms",
        ),
        note=f"`python -m tests.benchmarks evaluation`: full windows; medians of {rounds} steps. Read: what is new, "
        "its records and scalars, as the rules want them; the bare driver fetches the same records in the same "
        "minute. The whole pass also saves.",
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        urls = {"SQLite": f"sqlite:///{Path(folder) / 'evaluation'}-%d.db"}
        postgres = stack.enter_context(running_postgres())
        for number, recording in enumerate(found):
            cpu = _cpu(recording, rounds)
            for name in ("SQLite", "PostgreSQL"):
                url = urls[name] % number if name in urls else postgres.create_database()
                read, used, bare, whole = _passes(recording, url, rounds)
                row = (read, used, bare, read / bare, cpu, whole)
                table.rows.append((recording.name, len(recording.tensors), name, *row))
    return table


def _cpu(recording: Recording, rounds: int) -> float:
    """Milliseconds of the rules, folding and life cycle of the last step."""
    model = Model(recording.tensors, recording.description)
    last = max(recording.steps)
    rules = {rule.id: rule for rule in RULES}
    episodes: dict[str, Any] = {}
    for step in sorted(recording.steps):
        window = recording.window(step, model)
        episodes, _ = advance(episodes, diagnose(window, RULES), step, rules, judged(window, RULES))

    def once() -> None:
        window = recording.window(last, model)
        advance(episodes, diagnose(window, RULES), last + 1, rules, judged(window, RULES))

    return _milliseconds(once, rounds)


def _milliseconds(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - started))
    return median(times)


def _passes(recording: Recording, url: str, rounds: int) -> tuple[float, float, float, float]:
    """Milliseconds of (reading, CPU of it, the bare driver, the whole pass) for the last steps, one at a time."""
    database = Database(url)
    try:
        schema.ensure(database)
        numbers = _store(database, recording)
        evaluator = _Timed(database)
        last = max(recording.steps)
        found: list[tuple[float, float, float, float]] = []
        for step in range(last + 1):
            _arrive(database, step, recording, numbers)
            started = time.perf_counter()
            with database.read() as connection:
                work = evaluation.pending(connection)
            count = sum(evaluator.evaluate(item) for item in work)
            whole = 1e3 * (time.perf_counter() - started)
            if count != 1:
                raise RuntimeError(f"step {step}: {count} steps judged")
            found.append((*evaluator.reading, _bare(database, numbers[-1], step, len(recording.steps[step])), whole))
        timed = found[-min(rounds, last) :]
        read, used, bare, whole = (median(column) for column in zip(*timed, strict=True))
        return read, used, bare, whole
    finally:
        database.close()


class _Timed(Evaluator):
    """Notes how long the last reading took: (milliseconds, of them CPU)."""

    reading = (0.0, 0.0)

    def _read(self, work: evaluation.Work) -> Any:
        started, used = time.perf_counter(), time.thread_time()
        found = super()._read(work)
        self.reading = 1e3 * (time.perf_counter() - started), 1e3 * (time.thread_time() - used)
        return found


def _bare(database: Database, run_no: int, step: int, count: int) -> float:
    """Milliseconds in which the driver alone fetches the records of a step."""
    with database.read() as connection:
        query = (
            f"SELECT {', '.join(rows.COLUMNS)} FROM tensor_stats "  # noqa: S608 - own names
            f"WHERE run_no = {int(run_no)} AND step = {int(step)} AND attempt = 0"
        )
        driver: Any = connection.connection.driver_connection
        started = time.perf_counter()
        cursor = driver.cursor()
        cursor.execute(query)
        found = cursor.fetchall()
        seconds = time.perf_counter() - started
        cursor.close()
    if len(found) != count:
        raise RuntimeError(f"step {step}: {len(found)} rows")
    return 1e3 * seconds


def _store(database: Database, recording: Recording) -> dict[int, int]:
    """The run and its tensors; tensor_no by key, and the run's number under −1."""
    with database.write() as connection:
        run_no, _ = seeds.add_run(connection)
        connection.execute(update(models.Attempt).values(evaluated_step=None))
        seeds.add_session(connection, run_no, last_step=-1)
        writes.save_tensors(connection, run_no, recording.tensors.values())
        numbers = {key: tensor.tensor_no for key, tensor in writes.load_tensors(connection, run_no).items()}
    return {**numbers, -1: run_no}


def _arrive(database: Database, step: int, recording: Recording, numbers: dict[int, int]) -> None:
    run_no = numbers[-1]
    records = [seeds.record_row(run_no, numbers[key], step, stats) for key, stats in recording.steps[step].items()]
    with database.write() as connection:
        connection.execute(insert(models.TensorStatsRow), records)
        losses = [Scalar(step=s, name="loss", value=x) for s, x in recording.losses if s == step]
        writes.save_scalars(connection, run_no, 0, losses, wins=True)
        connection.execute(update(models.Run).values(last_step=step))
        connection.execute(update(models.Session).values(last_step=step))


def _by_rule(found: list[Recording], rounds: int) -> Table:
    names = [recording.name for recording in found]
    table = Table(
        "The rules one by one",
        ("rule", *(f"{name}, ms CPU" for name in names), *(f"{name}, at step 0" for name in names)),
        note="In the order of the catalogue, each with a new window and, at step 0, a new model: what several rules "
        "share (layers, the recognition of schemes) counts for each of them here, and once in the whole.",
    )
    for rule in RULES:
        cells = []
        for at_start in (False, True):
            for recording in found:
                step = 0 if at_start else max(recording.steps)
                model = None if at_start else Model(recording.tensors, recording.description)
                cells.append(_milliseconds(partial(_check, rule, recording, step, model), rounds))
        table.rows.append((rule.id, *cells))
    return table


def _check(rule: Rule, recording: Recording, step: int, model: Model | None) -> None:
    window = recording.window(step, model)
    if rule.judges(window):
        list(rule.check(window, rule.limits))


def _slices(found: list[Recording]) -> Table:
    table = Table(
        "The diagnosis inside the job",
        ("model", "slices a step", "median slice, ms", "longest slice, ms", "longest at step 0, ms", "a step, ms"),
        note="CPU time of the diagnosis thread between two of its pauses.",
    )
    for recording in found:
        start, later = _local_slices(recording)
        steps = len(recording.steps) - 1
        figures = (len(later) / steps, median(later), max(later), max(start), sum(later) / steps)
        table.rows.append((recording.name, *figures))
    return table


def _local_slices(recording: Recording) -> tuple[list[float], list[float]]:
    """Milliseconds of CPU of each slice: (of the first step, of all others)."""
    slices: list[float] = []
    start: list[float] = []
    began = [0.0]

    def pause() -> None:
        slices.append(1e3 * (time.thread_time() - began[0]))
        time.sleep(0)
        began[0] = time.thread_time()

    diagnosis = LocalDiagnosis(select(), action=Action(tells=False), pause=pause)
    diagnosis.describe(recording.description, list(recording.tensors.values()))
    for step, records in recording.steps.items():
        for at, loss in recording.losses:
            if at == step:
                diagnosis.scalar(step, "loss", loss)
        diagnosis.record(step, len(records), list(records.items()).copy)
        diagnosis.reached(step)
        diagnosis.open_findings(60.0)
        if step == 0:
            start = slices.copy()
            slices.clear()
    diagnosis.close(RunStatus.FINISHED)
    return start, slices
