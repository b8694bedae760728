"""kill -9 of the collector while batches are in flight: what was acknowledged is stored, once."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from initscope.hooks import wire
from initscope.service.store.engine import Database
from tests.support.collector import ENCODERS, ServeProcess, batch, stats

KILLS = 6
SENDERS = 3
ROWS = 20


class Sender(threading.Thread):
    """Sends a batch until it is acknowledged, then the next one, as a client does."""

    def __init__(self, number: int, token: str) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.token = token
        self.url = ""
        self.acknowledged = 0
        self.duplicates = 0
        self.retries = 0
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            records = {("fc", self.acknowledged * ROWS + row): stats() for row in range(ROWS)}
            one = batch(self.acknowledged, records, session=self.number, run_id=f"run-{self.number}")
            answer = self.post(ENCODERS[wire.MEDIA_BINARY](one))
            assert answer["accepted"] == ROWS, answer
            self.duplicates += answer["duplicate"]
            self.acknowledged += 1

    def post(self, body: bytes) -> dict[str, int]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": wire.MEDIA_BINARY}
        while True:
            try:
                response = httpx.post(f"{self.url}/api/v1/batches", content=body, headers=headers, timeout=5)
            except httpx.TransportError:
                self.retries += 1
                time.sleep(0.02)
                continue
            assert response.status_code in (200, 503), response.text
            if response.status_code == 200:
                return response.json()


def wait_for_progress(senders: list[Sender]) -> None:
    """Until each has had another batch acknowledged; how long that takes is the machine's business."""
    before = [sender.acknowledged for sender in senders]
    deadline = time.monotonic() + 60
    while not all(sender.acknowledged > count for sender, count in zip(senders, before, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    server = ServeProcess(tmp_path, "--port", "0")
    senders = [Sender(number, server.token) for number in range(1, SENDERS + 1)]
    for sender in senders:
        sender.url = server.url
        sender.start()
    try:
        for _ in range(KILLS):
            wait_for_progress(senders)
            time.sleep(chance.uniform(0, 0.1))
            server.end(signal.SIGKILL)
            server = ServeProcess(tmp_path, "--port", "0")
            for sender in senders:
                sender.url = server.url
        wait_for_progress(senders)
        for sender in senders:
            sender.stop.set()
        for sender in senders:
            sender.join(30)
            assert not sender.is_alive()
    finally:
        server.end(signal.SIGKILL)
    # The faults happened: senders met a dead collector while they were sending.
    assert sum(sender.retries for sender in senders) >= KILLS
    database = Database(f"sqlite:///{tmp_path / 'initscope.db'}")
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        for sender in senders:
            query = "SELECT step FROM tensor_stats s JOIN runs USING (run_no) WHERE run_id = ? ORDER BY step"
            steps = [row[0] for row in connection.exec_driver_sql(query, (f"run-{sender.number}",))]
            assert sender.acknowledged > KILLS
            assert steps == list(range(sender.acknowledged * ROWS))
    database.close()


def test_a_batch_whose_answer_was_lost_is_suppressed_when_it_comes_again(tmp_path: Path) -> None:
    """The commit happened, the collector died before the answer: the client can only send again."""
    first = ServeProcess(tmp_path, "--port", "0")
    sender = Sender(1, first.token)
    sender.url = first.url
    body = ENCODERS[wire.MEDIA_BINARY](batch(0, {("fc", step): stats() for step in range(ROWS)}))
    assert sender.post(body)["duplicate"] is False
    first.end(signal.SIGKILL)
    second = ServeProcess(tmp_path, "--port", "0")
    sender.url = second.url
    answer = sender.post(body)
    second.end()
    assert answer == {"accepted": ROWS, "duplicate": True, "rejected": [], "rejected_count": 0}


pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
