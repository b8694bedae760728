"""The end of the process: with and without `close`, with a collector and without, and by force."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.collector_stub import CollectorStub, Mode, closed_port

ROOT = Path(__file__).resolve().parents[2]
JOB = """
import sys, time
from initscope.hooks.client import Client, identify, resolve
from tests.support.telemetry import rows
config = resolve(url=sys.argv[1], token="secret-token", environ={"INITSCOPE_FLUSH_TIMEOUT": sys.argv[2]})
job = Client(config, *identify(config, {}))
for step in range(30):
    job.record(step, 10, rows(10))
    job.reached(step)
"""


def start(program: str, url: str, timeout: float = 1.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", JOB + program, url, str(timeout)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(program: str, url: str, timeout: float = 10.0) -> tuple[int, str, float]:
    """Exit status, stderr, and seconds between the program's last line and its end."""
    process = start(program + "\nprint(time.time(), flush=True)", url, timeout)
    output, errors = process.communicate(timeout=60)
    last = float(output.split()[-1]) if output.strip() else time.time()
    return process.returncode, errors, time.time() - last


def statuses(stub: CollectorStub) -> list[str]:
    return [batch.header["status"] for batch in stub.log.batches if "status" in batch.header]


@pytest.mark.parametrize(
    ("program", "status", "code"),
    [("", "finished", 0), ("raise ValueError('diverged')", "failed", 1), ("sys.exit(0)", "finished", 0),
     ("raise KeyboardInterrupt", "failed", -signal.SIGINT), ("sys.exit(3)", "finished", 3)],
)  # fmt: skip
def test_a_job_that_does_not_close_still_delivers_and_says_how_it_ended(program: str, status: str, code: int) -> None:
    with CollectorStub() as stub:
        returned, errors, _ = run(program, stub.url)
        assert returned == code, errors
        assert len(set(stub.log.rows)) == 300
        assert statuses(stub) == [status]
        assert "initscope" not in errors


def test_an_exception_that_was_handled_is_no_failure() -> None:
    with CollectorStub() as stub:
        run("try:\n    raise ValueError\nexcept ValueError:\n    pass", stub.url)
        assert statuses(stub) == ["finished"]


@pytest.mark.parametrize("mode", [Mode.BLACK_HOLE, Mode.DRIP, Mode.ERROR, Mode.UNAUTHORIZED])
def test_the_exit_waits_no_longer_than_the_flush_timeout(mode: Mode) -> None:
    with CollectorStub(mode) as stub:
        code, errors, seconds = run("", stub.url, timeout=1.0)
        assert code == 0
        assert stub.log.seen(mode)
        assert seconds < 1.0 + 0.5 + 3  # three seconds for a busy machine to end a process
        assert "300 of 300 records were not delivered" in errors
        assert "secret-token" not in errors


def test_the_exit_does_not_wait_for_a_resolver_that_hangs() -> None:
    hang = "import socket\nsocket.getaddrinfo = lambda *a, **k: time.sleep(50)\n"
    program = JOB.replace("for step", hang + "for step")
    process = subprocess.run(
        [sys.executable, "-c", program, "http://collector.example:1", "0.5"], cwd=ROOT, capture_output=True, timeout=40
    )
    assert process.returncode == 0


def test_without_a_collector_the_job_ends_as_it_would() -> None:
    code, errors, seconds = run("sys.exit(7)", f"http://127.0.0.1:{closed_port()}", timeout=0.5)
    assert code == 7
    assert seconds < 5
    assert "refuses connections" in errors


def test_a_job_that_is_killed_leaves_only_whole_batches() -> None:
    with CollectorStub() as stub:
        endless = "step = 30\nwhile True:\n    job.record(step, 10, rows(10)); step += 1; time.sleep(0.001)"
        process = start(endless, stub.url)
        assert stub.wait_until(lambda log: len(log.stored) >= 3, 40)
        process.kill()
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        keys = sorted(stub.log.rows)
        assert len(set(keys)) == len(keys)
        assert statuses(stub) == []


def test_a_collector_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    port, journal = closed_port(), tmp_path / "journal"

    def serve() -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.collector_stub", str(port), str(journal)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        return server

    server = serve()
    program = (
        "for step in range(30, 400):\n    job.record(step, 10, rows(10)); time.sleep(0.02)\n"
        "print(job.close(timeout=30), flush=True)"
    )
    job = start(program, f"http://127.0.0.1:{port}", 30.0)
    kills = 0
    while job.poll() is None and kills < 4:
        time.sleep(0.7)
        server.kill()
        server.communicate()
        kills += 1
        if kills == 1:
            time.sleep(2.5)  # longer than the sender waits for a batch to fill: a request must meet the outage
        server = serve()
    output, errors = job.communicate(timeout=60)
    server.kill()
    server.communicate()
    checker = CollectorStub()
    checker.load(journal)
    checker.close()
    assert kills >= 2
    assert "acknowledged=4000, pending=0, dropped={}" in output, errors
    assert sorted(checker.log.rows) == sorted((0, key, step) for step in range(400) for key in range(10))
    assert "send" in errors or "connect" in errors  # an outage was noticed
