from __future__ import annotations

import math
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from initscope.service.exporter.collector import RunCollector
from initscope.service.ingest.tally import Tally
from tests.support import seeds
from tests.support.collector import Collector, batch, stats
from tests.support.requires import missing

_LONG_AGO = datetime.now(UTC) - timedelta(hours=2)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(collector: Collector) -> Samples:
    """Every sample by name and labels."""
    response = collector.http.get("/metrics")
    assert response.status_code == 200, response.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_a_live_run_is_shown_with_its_numbers(collector):
    with collector.database.write() as conn:
        run = seeds.add_mlp(conn, "deep net", layers=3, steps=[0, 7], gain=0.5)
        seeds.add_finding(conn, run.run_no, "weight-scale", "warning")
        seeds.add_session(conn, run.run_no, books={"dropped": {"queue_full": 4}})
        seeds.add_session(conn, run.run_no, rank=1, books={"dropped": {"queue_full": 1, "oversized": 2}})
    got = scrape(collector)
    assert value(got, "initscope_run_info", run_id=run.id, run_name="deep net", project="default") == 1
    assert value(got, "initscope_run_step", run_id=run.id) == 7
    assert value(got, "initscope_run_tensors", run_id=run.id) == 15
    by_severity = [
        value(got, "initscope_run_findings", run_id=run.id, severity=s) for s in ("critical", "warning", "info")
    ]
    assert by_severity == [0, 1, 0]
    rms = [
        value(got, "initscope_run_rms", run_id=run.id, kind="activation", aggregate=a) for a in ("min", "median", "max")
    ]
    assert rms == [pytest.approx(1.014 * x) for x in (0.25, 0.5, 1.0)]
    dropped = [
        value(got, "initscope_run_dropped_records_total", run_id=run.id, reason=r) for r in ("queue_full", "oversized")
    ]
    assert dropped == [5, 2]
    assert (
        abs(value(got, "initscope_run_last_seen_timestamp_seconds", run_id=run.id) - datetime.now(UTC).timestamp())
        < 120
    )
    assert value(got, "initscope_database_up") == 1


def test_runs_that_ended_or_fell_silent_are_gone(collector):
    with collector.database.write() as conn:
        seeds.add_run(conn, "done", status="finished", ended_at=_LONG_AGO)
        seeds.add_run(conn, "silent", last_seen_at=_LONG_AGO)
        _, live = seeds.add_run(conn, "live")
    got = scrape(collector)
    assert {dict(labels)["run_id"] for name, labels in got if name == "initscope_run_info"} == {live}
    assert value(got, "initscope_live_runs") == 1


def test_nan_and_infinities_are_not_dressed_up_as_numbers(collector):
    with collector.database.write() as conn:
        run_no, run = seeds.add_run(conn)
        for depth, record in enumerate(
            (seeds.normal(1.0), seeds.normal(2.0, posinf_count=3), seeds.normal(1.0, nan_count=9))
        ):
            tensor = seeds.add_tensor(conn, run_no, f"l{depth}", "output", "activation", depth=depth)
            seeds.add_records(conn, [seeds.record_row(run_no, tensor, 0, record)])
    got = scrape(collector)
    low, middle, high = (
        value(got, "initscope_run_rms", run_id=run, kind="activation", aggregate=a) for a in ("min", "median", "max")
    )
    assert (low, middle) == (pytest.approx(1.0), math.inf)
    assert math.isnan(high)
    assert value(got, "initscope_run_nonfinite_values", run_id=run) == 12


def test_names_of_runs_cannot_break_the_page(collector):
    name = 'quote" backslash\\ newline'
    with collector.database.write() as conn:
        _, run = seeds.add_run(conn, name)
    assert value(scrape(collector), "initscope_run_info", run_id=run, run_name=name, project="default") == 1


def test_ingest_is_counted(collector):
    collector.send(batch(records={("fc", 0): stats(), ("fc", 1): stats()}))
    collector.send(batch(records={("fc", 0): stats(), ("fc", 1): stats()}))
    assert collector.post(b"garbage").status_code == 400
    got = scrape(collector)
    outcomes = [value(got, "initscope_ingest_batches_total", outcome=o) for o in ("accepted", "duplicate", "refused")]
    assert outcomes == [1, 1, 1]
    assert value(got, "initscope_ingest_records_total", kind="statistics") == 2
    assert value(got, "initscope_ingest_duration_seconds_count") == 2
    assert value(got, "initscope_ingest_body_bytes_count") == 2
    assert value(got, "initscope_ingest_body_bytes_sum") > 0


def test_metrics_need_a_token_that_may_read(embedded):
    assert httpx.get(f"{embedded.url}/metrics").status_code == 401
    assert httpx.get(f"{embedded.url}/metrics", headers={"Authorization": "Bearer nonsense"}).status_code == 401


def test_an_open_metrics_scraper_gets_open_metrics(embedded):
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    response = embedded.http.get("/metrics", headers={"Accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


class _Broken:
    """A database that is away."""

    def read(self):
        from sqlalchemy.exc import OperationalError

        raise OperationalError("SELECT", {}, Exception("away"))


def test_a_database_that_is_away_is_a_zero_and_nothing_else():
    families = list(RunCollector(_Broken()).collect())  # type: ignore[arg-type]
    assert [(f.name, f.samples[0].value) for f in families] == [("initscope_database_up", 0.0)]


@pytest.mark.postgres
def test_a_scrape_without_a_database_answers_200_with_database_up_0(tmp_path):
    from tests.support.collector import running_collector
    from tests.support.postgres import running_postgres

    with running_postgres() as server, running_collector(tmp_path, server.create_database()) as collector:
        assert value(scrape(collector), "initscope_database_up") == 1
        server.crash()
        got = scrape(collector)
        assert got == {("initscope_database_up", frozenset()): 0.0}
        server.start()


def test_scrapes_in_quick_succession_ask_the_database_once(embedded):
    now = [0.0]
    collector = RunCollector(embedded.database, max_age=5.0, clock=lambda: now[0])
    seen = []
    for moment, name in ((0.0, "a"), (4.0, "b"), (5.5, "c")):
        now[0] = moment
        with embedded.database.write() as conn:
            seeds.add_run(conn, name)
        live = next(f for f in collector.collect() if f.name == "initscope_live_runs")
        seen.append(live.samples[0].value)
    assert seen == [1, 1, 3]


@pytest.mark.prometheus
def test_promtool_finds_nothing_to_complain_about(embedded):
    promtool = shutil.which("promtool") or missing("promtool", "apt-get install prometheus")
    with embedded.database.write() as conn:
        run = seeds.add_mlp(conn, layers=3, steps=[0])
        seeds.add_finding(conn, run.run_no, "weight-scale", "warning")
        seeds.add_session(conn, run.run_no, books={"dropped": {"queue_full": 4}})
        broken = seeds.add_tensor(conn, run.run_no, "bad", "output", "activation", depth=9)
        seeds.add_records(conn, [seeds.record_row(run.run_no, broken, 0, seeds.normal(1.0, nan_count=2))])
    embedded.send(batch())
    text = embedded.http.get("/metrics").text
    assert "initscope_run_dropped_records_total" in text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_every_metric_has_the_prefix_and_a_help_text(embedded):
    assert Tally().snapshot() == {}
    families = list(text_string_to_metric_families(embedded.http.get("/metrics").text))
    assert families
    assert all(f.name.startswith("initscope_") and f.documentation for f in families)
