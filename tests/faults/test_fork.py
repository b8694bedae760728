"""Reliability goal C11: a forked child has an inert client with fresh locks, and its parent notices nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings

import pytest

from initscope.hooks.client.client import Client
from initscope.hooks.vocabulary import RunStatus
from initscope.hooks.wire import Books
from tests.support.collector_stub import CollectorStub, Mode
from tests.support.telemetry import client, rows, tensors

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_a_child(job: Client) -> int:
    """The exit status of a forked child that uses the client in every way; -SIGALRM if it hung."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns about forks beside threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(10)
            job.describe(None, tensors(1))
            refused = not job.record(0, 5, rows(5)) and not job.scalar(0, "loss", 1.0)
            job.reached(0)
            job.new_attempt()
            code = 0 if refused and job.close(RunStatus.FAILED) == Books() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_is_inert_and_the_parent_unaffected() -> None:
    with CollectorStub() as stub:
        job = client(stub.url)
        job.record(0, 5, rows(5))
        assert in_a_child(job) == 0
        job.record(1, 5, rows(5))
        assert job.close(timeout=20).acknowledged == 10
        assert len(stub.log.rows) == 10
        assert [b.header.get("status") for b in stub.log.batches][-1] == "finished"
        assert {b.header["session"]["session_id"] for b in stub.log.batches} == {job.session.session_id}


def test_no_lock_that_the_sender_holds_can_hang_a_child() -> None:
    with CollectorStub(Mode.OK) as stub:
        job = client(stub.url)
        stop = threading.Event()

        def busy() -> None:
            step = 0
            while not stop.is_set():
                job.record(step, 1, rows(1))
                step += 1

        recorder = threading.Thread(target=busy)
        recorder.start()
        held = job._ledger.lock
        try:
            for _ in range(40):
                assert in_a_child(job) == 0
            holder = threading.Thread(target=lambda: (held.acquire(), time.sleep(0.5), held.release()))
            holder.start()
            time.sleep(0.1)
            assert in_a_child(job) == 0  # forked while another thread held the lock
            holder.join()
        finally:
            stop.set()
            recorder.join()
        job.close(timeout=20)
        assert job.books.pending == 0


def test_a_child_may_start_a_client_of_its_own() -> None:
    with CollectorStub() as stub:
        job = client(stub.url)
        job.record(0, 2, rows(2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(20)
                own = client(stub.url)
                own.record(0, 3, rows(3))
                code = 0 if own.close(timeout=15).acknowledged == 3 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        job.close(timeout=20)
        sessions = {b.header["session"]["session_id"]: b.count for b in stub.log.batches if b.count}
        assert sorted(sessions.values()) == [2, 3]
