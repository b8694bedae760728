from __future__ import annotations

from sqlalchemy import select

from initscope.service.store.models import FindingRow
from tests.support import seeds


def test_consequences_are_folded_under_what_explains_them(collector):
    with collector.database.write() as conn:
        run_no, run = seeds.add_run(conn)
        root = seeds.add_finding(conn, run_no, "forward-drift", "critical")
        fingerprint = conn.scalar(select(FindingRow.fingerprint).where(FindingRow.id == root))
        seeds.add_finding(conn, run_no, "backward-drift", "critical", parent=fingerprint)
        seeds.add_finding(conn, run_no, "update-ratio", "warning", at_step=3)
    answer = collector.http.get(f"/api/v1/runs/{run}/findings").json()
    assert answer["verdict"] == "critical"
    assert [f["rule"] for f in answer["findings"]] == ["forward-drift", "update-ratio"]
    assert [f["rule"] for f in answer["findings"][0]["consequences"]] == ["backward-drift"]


def test_open_findings_stand_and_all_shows_the_past_as_well(collector):
    with collector.database.write() as conn:
        run_no, run = seeds.add_run(conn)
        for state in ("open", "closed", "resolved", "pending"):
            seeds.add_finding(conn, run_no, f"rule-{state}", "warning", state=state)
    rules = {
        state: {f["rule"] for f in collector.http.get(f"/api/v1/runs/{run}/findings?state={state}").json()["findings"]}
        for state in ("open", "all")
    }
    assert rules["open"] == {"rule-open", "rule-closed"}
    assert rules["all"] == {"rule-open", "rule-closed", "rule-resolved", "rule-pending"}


def test_resolved_findings_leave_the_verdict(collector):
    with collector.database.write() as conn:
        run_no, run = seeds.add_run(conn)
        seeds.add_finding(conn, run_no, "nonfinite", "critical", state="resolved")
    assert collector.http.get(f"/api/v1/runs/{run}/findings?state=all").json()["verdict"] == "ok"


def test_findings_of_an_older_attempt_are_not_those_of_the_run(collector):
    with collector.database.write() as conn:
        run_no, run = seeds.add_run(conn, attempt=1)
        seeds.add_finding(conn, run_no, "nonfinite", "critical", attempt=0)
    assert collector.http.get(f"/api/v1/runs/{run}/findings").json()["findings"] == []
    assert collector.http.get(f"/api/v1/runs/{run}").json()["verdict"] == "ok"
    older = collector.http.get(f"/api/v1/runs/{run}/findings?attempt=0").json()
    assert [f["rule"] for f in older["findings"]] == ["nonfinite"]


def test_one_finding_tells_its_evidence_and_history(collector):
    with collector.database.write() as conn:
        run_no, run = seeds.add_run(conn)
        finding = seeds.add_finding(conn, run_no, "nonfinite", "critical", at_step=7, evidence={"loss": "NaN", "n": 3})
    answer = collector.http.get(f"/api/v1/runs/{run}/findings/{finding}").json()
    assert answer["evidence"] == {"loss": "NaN", "n": 3}
    assert [(t["from_state"], t["to_state"], t["step"]) for t in answer["transitions"]] == [(None, "open", 7)]
    assert answer["remedy"].startswith("torch.nn.init")
    assert collector.http.get(f"/api/v1/runs/{run}/findings/nothing").status_code == 404
