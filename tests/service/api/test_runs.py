from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.support import seeds
from tests.support.collector import Collector, batch

_LONG_AGO = datetime.now(UTC) - timedelta(hours=2)


def names(collector: Collector, **query: object) -> list[str]:
    response = collector.http.get("/api/v1/runs", params=query)
    assert response.status_code == 200, response.text
    return [run["name"] for run in response.json()["runs"]]


def test_runs_are_listed_newest_first_a_page_at_a_time(collector):
    with collector.database.write() as conn:
        for name in "abcde":
            seeds.add_run(conn, name)
    first = collector.http.get("/api/v1/runs", params={"limit": 2}).json()
    second = collector.http.get("/api/v1/runs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    third = collector.http.get("/api/v1/runs", params={"limit": 2, "cursor": second["next_cursor"]}).json()
    assert [[run["name"] for run in page["runs"]] for page in (first, second, third)] == [["e", "d"], ["c", "b"], ["a"]]
    assert third["next_cursor"] is None


def test_runs_are_filtered_by_project_part_of_name_and_status(collector):
    with collector.database.write() as conn:
        seeds.add_run(conn, "50% dropout", project="vision")
        seeds.add_run(conn, "500 layers", project="text")
        seeds.add_run(conn, "silent", last_seen_at=_LONG_AGO)
        seeds.add_run(conn, "done", status="finished", ended_at=_LONG_AGO, last_seen_at=_LONG_AGO)
    assert names(collector, project="vision") == ["50% dropout"]
    assert names(collector, name="50%") == ["50% dropout"]
    assert names(collector, name="LAYERS") == ["500 layers"]
    assert names(collector, status="lost") == ["silent"]
    assert names(collector, status="running") == ["500 layers", "50% dropout"]
    assert names(collector, status="finished") == ["done"]


def test_a_run_that_fell_silent_is_lost_and_one_that_stays_at_a_step_is_stalled(collector):
    with collector.database.write() as conn:
        _, silent = seeds.add_run(conn, "silent", last_seen_at=_LONG_AGO, last_step_at=_LONG_AGO)
        _, stuck = seeds.add_run(conn, "stuck", last_step_at=_LONG_AGO)
    answers = [collector.http.get(f"/api/v1/runs/{run}").json() for run in (silent, stuck)]
    assert [(a["status"], a["is_stalled"]) for a in answers] == [("lost", False), ("running", True)]


def test_a_run_tells_its_verdict_attempts_sessions_and_books(collector):
    with collector.database.write() as conn:
        run = seeds.add_mlp(conn, layers=2, steps=[0, 1, 5])
        seeds.add_finding(conn, run.run_no, "weight-scale", "warning", at_step=1)
        seeds.add_finding(conn, run.run_no, "nonfinite", "critical", at_step=5, module_path="layers.1", state="closed")
        seeds.add_finding(conn, run.run_no, "old", "critical", state="resolved")
        seeds.add_finding(conn, run.run_no, "unsure", "critical", state="pending")
        for rank, dropped in enumerate(({"queue_full": 3}, {"queue_full": 1, "spool_full": 2})):
            lost = sum(dropped.values())
            books = {"recorded": 10 + lost, "acknowledged": 8, "pending": 2, "dropped": dropped, "hook_errors": rank}
            seeds.add_session(conn, run.run_no, rank=rank, world_size=2, books=books)
    answer = collector.http.get(f"/api/v1/runs/{run.id}").json()
    assert answer["verdict"] == "critical"
    assert answer["findings"] == {"critical": 1, "warning": 1, "info": 0}
    first = answer["first_finding"]
    assert (first["rule"], first["module_path"], first["step"]) == ("nonfinite", "layers.1", 5)
    assert answer["steps"] == [0, 1, 5]
    assert answer["tensors"] == dict.fromkeys(("weight", "gradient", "update", "activation", "activation_gradient"), 2)
    assert [a["number"] for a in answer["attempts"]] == [0]
    assert [s["rank"] for s in answer["sessions"]] == [0, 1]
    assert answer["books"] == {
        "recorded": 26, "acknowledged": 16, "pending": 4, "hook_errors": 1, "dropped_count": 6, "stored": 0,
        "dropped": {"queue_full": 4, "spool_full": 2},
    }  # fmt: skip


def test_a_run_of_a_client_shows_what_the_client_sent(collector):
    collector.send(batch())
    (run,) = collector.http.get("/api/v1/runs").json()["runs"]
    assert (run["run_id"], run["status"], run["last_step"]) == ("run-1", "running", 0)
    assert collector.http.get(f"/api/v1/runs/{run['id']}").json()["books"]["stored"] == 1


def test_name_note_and_tags_can_be_changed_and_nothing_else(collector):
    with collector.database.write() as conn:
        _, run = seeds.add_run(conn, "before", tags=["a"])
    changed = collector.http.patch(f"/api/v1/runs/{run}", json={"name": "after", "note": "two\nlines"})
    assert changed.status_code == 200
    assert (changed.json()["name"], changed.json()["note"], changed.json()["tags"]) == ("after", "two\nlines", ["a"])
    for body in ({"status": "finished"}, {"name": ""}, {"name": "a\x00b"}, {"note": "\x00"}, {"tags": [1]}, []):
        refused = collector.http.patch(f"/api/v1/runs/{run}", json=body)
        assert refused.status_code == 422, body
        assert refused.json()["error"]["code"] == "invalid_field"
    assert collector.http.get(f"/api/v1/runs/{run}").json()["name"] == "after"


def test_a_deleted_run_is_gone_with_every_row(collector):
    with collector.database.write() as conn:
        gone = seeds.add_mlp(conn, layers=2, steps=[0, 1])
        seeds.add_finding(conn, gone.run_no, "weight-scale", "warning")
        kept = seeds.add_mlp(conn, layers=2, steps=[0, 1])
    collector.send(batch())
    before = collector.counts()
    assert collector.http.delete(f"/api/v1/runs/{gone.id}").status_code == 204
    assert collector.http.get(f"/api/v1/runs/{gone.id}").status_code == 404
    assert collector.counts() == (before[0] - 1, before[1], before[2] - 20, before[3] - 2)
    for table in ("tensors", "findings", "attempts", "tensor_stats", "scalars"):
        assert collector.rows(f"SELECT COUNT(*) FROM {table} WHERE run_no = {gone.run_no}") == [(0,)]  # noqa: S608
    assert collector.rows("SELECT COUNT(*) FROM finding_transitions") == [(0,)]
    assert collector.http.get(f"/api/v1/runs/{kept.id}").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["", "/tensors", "/stats/profile", "/stats/grid", "/stats/series?tensor=1", "/findings", "/findings/x", "/scalars"],
)
def test_an_unknown_run_is_a_404_in_the_one_error_shape(embedded, path):
    response = embedded.http.get(f"/api/v1/runs/no-such-run{path}")
    assert response.status_code == 404
    assert response.json()["error"]["field"] == "run"


def test_reading_needs_a_token_and_changing_needs_an_admin(embedded):
    with embedded.database.write() as conn:
        _, run = seeds.add_run(conn)
    with httpx.Client(base_url=embedded.url) as stranger:
        for path in ("", f"/{run}", f"/{run}/tensors", f"/{run}/stats/grid", f"/{run}/scalars", f"/{run}/findings"):
            assert stranger.get(f"/api/v1/runs{path}").status_code == 401
        assert stranger.delete(f"/api/v1/runs/{run}").status_code == 401
        assert stranger.patch(f"/api/v1/runs/{run}", json={"name": "mine"}).status_code == 401


@pytest.mark.parametrize("query", ["limit=0", "limit=many", "cursor=x", "cursor=99999999999999999999", "status=asleep"])
def test_a_question_that_makes_no_sense_names_its_field(embedded, query):
    response = embedded.http.get(f"/api/v1/runs?{query}")
    assert response.status_code == 422
    assert response.json()["error"]["field"] == query.partition("=")[0]
