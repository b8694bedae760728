from __future__ import annotations

import gc
import math
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from initscope.hooks.client.client import Client
from initscope.hooks.client.config import resolve
from initscope.hooks.client.guard import Guard
from initscope.hooks.client.session import identify
from initscope.hooks.vocabulary import RunStatus
from initscope.hooks.wire import RunDescription
from tests.support.collector_stub import CollectorStub, Mode, closed_port
from tests.support.telemetry import balance, client, config, rows, tensors


@pytest.fixture
def stub() -> Iterator[CollectorStub]:
    with CollectorStub() as collector:
        yield collector


def senders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "initscope-sender"]


def test_what_a_job_records_arrives_once_and_whole(stub: CollectorStub) -> None:
    job = client(stub.url)
    job.describe(RunDescription(model_class="Net", config={"lr": 0.1}), tensors(3))
    for step in range(20):
        assert job.record(step, 30, rows(30))
        assert job.scalar(step, "loss", lambda step=step: math.nan if step == 7 else float(step))
        job.reached(step)
    books = job.close(RunStatus.FINISHED, timeout=20)
    assert (books.recorded, books.acknowledged, books.pending, books.dropped) == (620, 620, 0, {})
    assert sorted(stub.log.rows) == sorted((0, key, step) for step in range(20) for key in range(30))
    assert [value for _, _, value in sorted(stub.log.scalars)][6:9] == [6.0, "NaN", 8.0]
    first, last = stub.log.batches[0].header, stub.log.batches[-1].header
    assert first["description"]["model_class"] == "Net"
    assert len(first["tensors"]) == 3
    assert (last["status"], last["last_step"]) == ("finished", 19)
    assert "status" not in first or first is last
    assert set(stub.log.authorizations) == {"Bearer secret-token-of-tests"}


def test_the_thread_starts_with_the_first_thing_to_send_and_ends_with_the_run(stub: CollectorStub) -> None:
    before = len(senders())
    job = client(stub.url)
    assert len(senders()) == before
    job.scalar(0, "loss", 1.0)
    assert len(senders()) == before + 1
    job.close(timeout=20)
    assert len(senders()) == before


def test_a_job_that_records_nothing_sends_nothing(stub: CollectorStub) -> None:
    job = client(stub.url)
    job.close()
    assert not stub.log.treated


def test_closing_twice_changes_nothing(stub: CollectorStub) -> None:
    job = client(stub.url)
    job.record(0, 2, rows(2))
    books = job.close(timeout=20)
    assert job.close(RunStatus.FAILED) == books
    assert not job.record(1, 1, rows(1))
    assert job.books.dropped == {"closed": 1}
    assert sum("status" in batch.header for batch in stub.log.batches) == 1


def test_disabled_is_nothing_at_all() -> None:
    settings = resolve(url="http://127.0.0.1:1", environ={"INITSCOPE_DISABLED": "1"})
    job = Client(settings, *identify(settings, {}))
    job.describe(None, tensors(1))
    assert not job.record(0, 1, rows(1))
    assert not job.scalar(0, "loss", 1.0)
    job.reached(0)
    job.new_attempt()
    assert job.close().recorded == 0
    assert not senders()


def test_a_new_attempt_is_the_next_attempt_of_the_same_run(stub: CollectorStub) -> None:
    job = client(stub.url)
    job.record(5, 1, rows(1))
    job.reached(5)
    job.new_attempt()
    job.record(3, 1, rows(1))
    job.close(timeout=20)
    assert sorted(stub.log.rows) == [(0, 0, 5), (1, 0, 3)]
    assert [b.header["sequence"] for b in stub.log.batches[1:]] == list(range(1, len(stub.log.batches)))


def test_making_one_touches_no_network_and_is_quick() -> None:
    start = time.perf_counter()
    job = client("http://192.0.2.1:9")  # a black hole of an address
    assert time.perf_counter() - start < 1
    job.close()


def test_recording_takes_no_longer_when_the_collector_hangs(stub: CollectorStub) -> None:
    def median_of(job: Client) -> float:
        took = []
        for step in range(3_000):
            start = time.perf_counter_ns()
            job.record(step, 1, rows(1))
            took.append(time.perf_counter_ns() - start)
        return statistics.median(took)

    healthy = client(stub.url)
    medians = [median_of(healthy)]
    healthy.close(timeout=20)
    stub.behave(Mode.BLACK_HOLE)
    hanging = client(stub.url)
    medians.append(median_of(hanging))
    hanging.close(timeout=0.1)
    assert stub.log.seen(Mode.BLACK_HOLE)
    assert max(medians) < 200_000  # nanoseconds; about 1,500 on an idle machine


def test_heartbeats_tell_the_step_and_the_books(stub: CollectorStub) -> None:
    job = client(stub.url, heartbeat=0.1)
    job.record(0, 2, rows(2))
    job.reached(41)
    assert stub.wait_until(lambda log: any(b["books"].get("acknowledged") == 2 for b in log.heartbeats))
    job.close(timeout=20)
    assert stub.log.heartbeats[-1]["last_step"] == 41
    assert stub.log.heartbeats[-1]["session"]["session_id"] == job.session.session_id


def test_errors_of_the_hooks_are_in_the_books(stub: CollectorStub) -> None:
    guard = Guard(environ={})
    job = Client(config(stub.url), *identify(config(stub.url), {}), guard=guard)
    with guard.shield("forward hook"):
        raise ValueError("ours")
    job.record(0, 1, rows(1))
    assert job.close(timeout=20).hook_errors == 1
    assert stub.log.batches[-1].header["books"]["hook_errors"] == 1


def test_a_wrong_argument_does_not_reach_the_training(stub: CollectorStub) -> None:
    job = Client(config(stub.url), *identify(config(stub.url), {}), guard=Guard(environ={}))
    assert not job.record(0, None, rows(1))  # type: ignore[arg-type]
    job.describe("no description", 3)  # type: ignore[arg-type]
    job.record(1, 1, rows(1))
    assert job.close(timeout=20).acknowledged == 1


def test_ctrl_c_while_closing_passes_and_leaves_exact_books(
    stub: CollectorStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.behave(Mode.BLACK_HOLE)
    job = client(stub.url)
    job.record(0, 3, rows(3))

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            job.close()
    assert job.books.dropped == {"flush_timeout": 3}
    assert balance(job.books) == 0


def test_a_finalizer_that_closes_does_not_deadlock(stub: CollectorStub) -> None:
    job = client(stub.url)

    class Owner:
        def __del__(self) -> None:
            job.close(timeout=5)

    owner = [Owner()]
    owner.append(owner)  # type: ignore[arg-type]
    job.record(0, 1, rows(1))
    del owner
    gc.collect()
    assert job.books.acknowledged == 1


def test_a_slow_source_of_rows_holds_up_nothing_but_itself() -> None:
    started, going_on = threading.Event(), threading.Event()

    def waits():
        started.set()
        going_on.wait(30)
        return []

    job = client(f"http://127.0.0.1:{closed_port()}")
    job.record(0, 5, waits)
    assert started.wait(20)
    start = time.monotonic()
    assert job.close(timeout=0.2).dropped == {"flush_timeout": 5}
    assert time.monotonic() - start < 5
    going_on.set()


def test_the_room_needs_the_standard_library_only() -> None:
    program = (
        "import sys; import initscope.hooks.client;"
        "print(sorted(m for m in ('torch', 'numpy', 'pydantic', 'requests', 'httpx') if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
