"""Live runs for Prometheus, read from the database at the scrape: a run that ended is gone from the next one."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from initscope.hooks.vocabulary import Severity
from initscope.service.store.engine import Busy, Database
from initscope.service.store.read_live import LiveRun, live_runs

_LOG = logging.getLogger(__name__)
_MAX_RUNS: Final = 100


class RunCollector(Collector):
    """Families of `initscope_run_*` and `initscope_database_up`.

    At most 100 runs; `initscope_live_runs` tells how many are shown. The database is asked at most every `max_age` s.
    """

    def __init__(self, database: Database, max_age: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: tuple[float, list[LiveRun] | None] = (-math.inf, None)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families; only `initscope_database_up` 0 while the database does not answer."""
        runs = self._recent()
        up = GaugeMetricFamily("initscope_database_up", "Whether the database answers.")
        up.add_metric((), 0.0 if runs is None else 1.0)
        yield up
        if runs is not None:
            yield from families(runs)

    def _recent(self) -> list[LiveRun] | None:
        with self._lock:
            at, runs = self._kept
            if self._clock() - at > self._max_age:
                runs = self._read()
                self._kept = (self._clock(), runs)
            return runs

    def _read(self) -> list[LiveRun] | None:
        try:
            with self._database.read() as conn:
                return live_runs(conn, datetime.now(UTC), _MAX_RUNS)
        except (SQLAlchemyError, Busy) as error:
            _LOG.warning("the database did not answer a scrape: %s", type(error).__name__)
            return None


def families(runs: Sequence[LiveRun]) -> Iterator[Metric]:
    """One family for each metric of style: raw numbers, NaN and infinities included."""
    live = GaugeMetricFamily("initscope_live_runs", "Runs shown here: running and seen in the last 120 s.")
    live.add_metric((), len(runs))
    yield live
    info = InfoMetricFamily("initscope_run", "Name and project of a live run.", labels=("run_id",))
    for run in runs:
        info.add_metric((run.head.id,), {"run_name": run.head.name, "project": run.head.project})
    yield info
    yield from _plain(runs)
    yield from _labelled(runs)


def _plain(runs: Sequence[LiveRun]) -> Iterator[Metric]:
    yield _gauge("initscope_run_step", "Newest step, in optimizer steps.", runs, lambda r: r.head.last_step)
    seen = "When a batch or heartbeat last came, seconds since 1970."
    yield _gauge("initscope_run_last_seen_timestamp_seconds", seen, runs, lambda r: r.head.last_seen_at.timestamp())
    yield _gauge("initscope_run_tensors", "Tensors described.", runs, lambda r: r.tensor_count)
    nonfinite = "Elements that are NaN or infinite in the newest step's records."
    yield _gauge("initscope_run_nonfinite_values", nonfinite, runs, lambda r: r.newest.nonfinite_count)


def _gauge(name: str, text: str, runs: Sequence[LiveRun], value: Callable[[LiveRun], float | None]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("run_id",))
    for run in runs:
        number = value(run)
        if number is not None:
            family.add_metric((run.head.id,), number)
    return family


def _labelled(runs: Sequence[LiveRun]) -> Iterator[Metric]:
    findings = GaugeMetricFamily("initscope_run_findings", "Open findings, by severity.", labels=("run_id", "severity"))
    rms = GaugeMetricFamily(
        "initscope_run_rms",
        "Root mean square over the tensors of a kind at the newest step; NaN counts as above infinity.",
        labels=("run_id", "kind", "aggregate"),
    )
    dropped = CounterMetricFamily(
        "initscope_run_dropped_records", "Records that the job could not deliver.", labels=("run_id", "reason")
    )
    for run in runs:
        for severity, count in _counts(run):
            findings.add_metric((run.head.id, severity), count)
        for kind, values in sorted(run.newest.rms.items()):
            for aggregate, number in _aggregates(values):
                rms.add_metric((run.head.id, kind, aggregate), number)
        for reason, count in run.dropped.items():
            dropped.add_metric((run.head.id, reason), count)
    yield from (findings, rms, dropped)


def _counts(run: LiveRun) -> Iterator[tuple[str, int]]:
    # Zeros are shown: an alert resolves on a number, not on its absence.
    yield Severity.CRITICAL.value, run.findings.critical
    yield Severity.WARNING.value, run.findings.warning
    yield Severity.INFO.value, run.findings.info


def _aggregates(values: Sequence[float]) -> Iterator[tuple[str, float]]:
    """Smallest, median and largest, where NaN is larger than everything."""
    ordered = sorted(values, key=lambda x: (math.isnan(x), x))
    middle = len(ordered) // 2
    yield "min", ordered[0]
    yield "median", ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    yield "max", ordered[-1]
