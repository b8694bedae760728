"""The service's own metrics: one object per application."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from initscope.service.exporter.collector import RunCollector
from initscope.service.ingest.tally import Tally
from initscope.service.store.engine import Database

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BYTES: Final = tuple(float(2**exponent) for exponent in range(8, 23, 2))


class ServiceMetrics:
    """Metrics on a registry of their own: several applications in one process do not mix.

    The API observes `ingest_seconds` and `body_bytes`, the worker `evaluation_seconds`; counts come from the tally of
    ingest, run metrics from the database.
    """

    def __init__(self, version: str, database: Database, tally: Tally) -> None:
        # Start times of counters double the page and no rule reads them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self.ingest_seconds = Histogram(
            "initscope_ingest_duration_seconds",
            "Time from a stored batch's arrival to its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.body_bytes = Histogram(
            "initscope_ingest_body_bytes", "Size of stored batches, compressed.", buckets=_BYTES, registry=registry
        )
        self.evaluation_seconds = Histogram(
            "initscope_evaluation_duration_seconds",
            "Time to evaluate what is new of one run.",
            buckets=_SECONDS,
            registry=registry,
        )
        info = Gauge("initscope_build_info", "The running version, always 1.", ["version"], registry=registry)
        info.labels(version).set(1)
        registry.register(TallyCollector(tally))
        registry.register(RunCollector(database))
        self.outage = CollectorRegistry()
        """What is shown while the database does not answer."""
        Gauge("initscope_database_up", "Whether the database answers.", registry=self.outage).set(0)


class TallyCollector(Collector):
    """What ingest counted since the process began."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def describe(self) -> Iterable[Metric]:
        """Nothing: the labels are not known before something was counted."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """One counter family for each thing that ingest counts."""
        counts = self._tally.snapshot()
        refused = _labelled(counts, "refused")
        outcomes = {"accepted": 0, "duplicate": 0, **_labelled(counts, "batches"), "refused": sum(refused.values())}
        yield _family("initscope_ingest_batches", "Batches received.", "outcome", outcomes)
        yield _family("initscope_ingest_refused_batches", "Batches refused as a whole.", "reason", refused)
        stored = {"statistics": counts.get(("records", ""), 0), "scalar": counts.get(("scalars", ""), 0)}
        yield _family("initscope_ingest_records", "Records and logged scalars stored.", "kind", stored)
        rejected = _labelled(counts, "rejected")
        yield _family("initscope_ingest_rejected_records", "Records refused one by one.", "reason", rejected)
        heartbeats = CounterMetricFamily("initscope_ingest_heartbeats", "Heartbeats received.")
        heartbeats.add_metric((), counts.get(("heartbeats", ""), 0))
        yield heartbeats
        unknown = CounterMetricFamily("initscope_ingest_unknown_fields", "Fields of newer clients, read over.")
        unknown.add_metric((), counts.get(("unknown_fields", ""), 0))
        yield unknown


def _labelled(counts: Mapping[tuple[str, str], int], name: str) -> dict[str, int]:
    return {label: count for (counted, label), count in sorted(counts.items()) if counted == name}


def _family(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family
