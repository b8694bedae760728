"""The demo as a person runs it: eleven trainings, a table, an exit status that can be trusted."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from initscope.hooks.demo.catalogue import RUNS

KEYS = {
    "run", "expected", "verdict", "rule", "cause", "module_path", "finding_step", "loss_step", "final_loss",
}  # fmt: skip


def demo(home, *options):
    code = "from initscope.service.cli import main; raise SystemExit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, "demo", "--home", str(home), "--port", "0", "--exit", *options],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = demo(folder / "home", "--json", str(folder / "out.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    return done, json.loads((folder / "out.json").read_text())


def test_every_run_is_told_with_every_field(played):
    done, rows = played
    assert [row["run"] for row in rows] == [run.name for run in RUNS]
    assert all(row.keys() == KEYS for row in rows)
    assert "every verdict is the expected one" in done.stdout


def test_every_broken_start_is_critical_with_its_cause_by_step_20_and_before_the_loss_shows_it(played):
    rows = {row["run"]: row for row in played[1]}
    for run in RUNS:
        if run.is_broken:
            row = rows[run.name]
            assert (row["expected"], row["verdict"], row["cause"]) == ("broken", "critical", run.cause.value)
            assert row["finding_step"] <= 20
            assert row["finding_step"] < row["loss_step"], run.name
            assert row["module_path"]


def test_no_healthy_start_is_critical_and_only_one_may_warn(played):
    for run, row in zip(RUNS, played[1], strict=True):
        if not run.is_broken:
            assert row["expected"] == "healthy"
            assert row["verdict"] in (("ok", "warning") if run.may_warn else ("ok",)), row


def test_an_unknown_selection_is_one_clear_line(tmp_path):
    done = demo(tmp_path, "--only", "no such run")
    assert done.returncode == 2
    assert "no such run" in done.stderr
    assert len(done.stderr.splitlines()) == 1
