"""Acknowledged means stored, once: a real collector on SQLite, killed while requests are in flight (goal S1, small)."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from initscope.hooks.client.client import Client
from initscope.hooks.client.config import resolve
from initscope.hooks.client.sender import BATCHES
from initscope.hooks.client.session import identify
from initscope.hooks.client.transport import Answer, HttpTransport, TransportError
from initscope.service.store.engine import Database
from tests.support.collector import ServeProcess
from tests.support.collector_stub import closed_port
from tests.support.telemetry import STATS, balance, tensors

KILLS = 3
TENSORS = tensors(40)


class Victim:
    """A collector that can be killed and comes back on its port."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = closed_port()
        self.kills = 0
        self.lock = threading.Lock()
        self.process = self._start()

    def kill(self) -> None:
        with self.lock:
            self.process.end(signal.SIGKILL)
            self.kills += 1
            self.process = self._start()

    def _start(self) -> ServeProcess:
        return ServeProcess(self.home, "--port", str(self.port))


class DeadlyTransport(HttpTransport):
    """Kills the collector during some requests: a random moment after they began, or between commit and answer."""

    def __init__(self, victim: Victim, url: str, token: str | None, seed: int) -> None:
        super().__init__(url, lambda: token, 3.0)
        self.victim, self.chance = victim, random.Random(seed)
        self.requests = self.cut = self.lost = self.duplicates = 0
        self.killers: list[threading.Thread] = []

    def post(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Answer:
        self.requests += path == BATCHES
        if path != BATCHES or self.requests % 12 or len(self.killers) == KILLS:
            return self.noted(super().post(path, body, headers, deadline))
        late = len(self.killers) % 2 == 0
        killer = threading.Timer(0.0 if late else self.chance.uniform(0.0, 0.012), self.victim.kill)
        self.killers.append(killer)
        if late:
            answer = super().post(path, body, headers, deadline)
            killer.start()
            self.close()
            self.lost += answer.status == 200
            raise TransportError("is killed before its answer arrives")
        killer.start()
        try:
            return self.noted(super().post(path, body, headers, deadline))
        except TransportError:
            self.cut += 1
            raise

    def noted(self, answer: Answer) -> Answer:
        self.duplicates += answer.status == 200 and json.loads(answer.body).get("duplicate", False)
        return answer


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_is_acknowledged_through_kills_is_stored_exactly_once(tmp_path: Path, world_size: int) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    victim = Victim(tmp_path)
    config = resolve(url=f"http://127.0.0.1:{victim.port}", environ={"INITSCOPE_HOME": str(tmp_path)})
    config = replace(config, linger=0.02, batch_records=60)
    run, session = identify(config, {})
    transport = DeadlyTransport(victim, config.url or "", config.token, seed)
    # With two ranks rows merge: a row that is stored twice would be counted twice.
    job = Client(config, run, replace(session, world_size=world_size), transport=transport)
    job.describe(None, TENSORS)
    steps = 0
    end = time.monotonic() + 60
    while (victim.kills < KILLS or steps < 60) and time.monotonic() < end:
        step = steps
        if job.record(step, len(TENSORS), lambda: ((tensor.key, STATS) for tensor in TENSORS)):
            job.scalar(step, "loss", 1.0)
        job.reached(step)
        assert balance(job.books) == 0
        steps += 1
        time.sleep(0.02)
    books = job.close(timeout=60)
    for killer in transport.killers:
        killer.join()
    victim.process.end()

    assert books.pending == 0
    assert books.dropped == {}
    assert books.acknowledged == books.recorded == steps * (len(TENSORS) + 1)
    database = Database(f"sqlite:///{tmp_path}/initscope.db")
    with database.read() as connection:

        def ask(query: str) -> list[tuple[object, ...]]:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

        stored = ask(
            "SELECT tensors.tensor_key, step, session_count, count FROM tensor_stats JOIN tensors USING (tensor_no)"
        )
        assert sorted(stored) == sorted((t.key, step, 1, 4) for t in TENSORS for step in range(steps))
        assert ask("SELECT COUNT(*), COUNT(DISTINCT step) FROM scalars") == [(steps, steps)]
        assert ask("SELECT status, last_step FROM runs") == [("finished", steps - 1)]
        ((batches, highest),) = ask("SELECT COUNT(*), MAX(sequence) FROM batches")
        assert batches == int(str(highest)) + 1
        assert ask("PRAGMA integrity_check") == [("ok",)]
    database.close()
    print(f"{steps} steps, {batches} batches, {transport.cut} requests cut, {transport.duplicates} duplicates")
    assert victim.kills == KILLS
    assert transport.duplicates >= transport.lost > 0, "no kill came between a commit and its answer"
