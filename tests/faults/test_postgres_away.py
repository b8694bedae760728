"""PostgreSQL stops as if the machine lost power: requests are told to come back, and nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from initscope.hooks import wire
from tests.support.collector import ENCODERS, Collector, batch, running_collector, stats
from tests.support.postgres import Postgres, running_postgres

pytestmark = pytest.mark.postgres


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server of its own: this one is crashed."""
    with running_postgres() as server:
        yield server


def body(sequence: int) -> bytes:
    records = {("fc", 10 * sequence + row): stats() for row in range(10)}
    return ENCODERS[wire.MEDIA_BINARY](batch(sequence, records))


def accepted(collector: Collector, sequence: int) -> tuple[int, bool]:
    answer = collector.post(body(sequence), wire.MEDIA_BINARY).json()
    return answer["accepted"], answer["duplicate"]


def test_a_database_that_is_away_is_a_503_and_comes_back(server: Postgres, tmp_path: Path) -> None:
    with running_collector(tmp_path, server.create_database()) as collector:
        assert accepted(collector, 0) == (10, False)
        server.crash()
        try:
            for path in ("/readyz", "/api/v1/runs"):
                answer = collector.http.get(path)
                assert answer.status_code == 503, path
                assert answer.headers["Retry-After"] == "1"
            refused = collector.post(body(1), wire.MEDIA_BINARY)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
            assert collector.http.get("/livez").status_code == 200
        finally:
            server.start()
        assert accepted(collector, 0) == (10, True)
        assert accepted(collector, 1) == (10, False)
        assert collector.rows("SELECT step FROM tensor_stats ORDER BY step") == [(step,) for step in range(20)]
        assert collector.http.get("/readyz").status_code == 200
