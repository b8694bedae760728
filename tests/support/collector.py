"""A real collector on a free port, and batches to send to it."""

from __future__ import annotations

import gzip
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from initscope.hooks import encoding, wire
from initscope.hooks.moments import ChannelStats, TensorStats, from_standardized
from initscope.hooks.vocabulary import Kind
from initscope.service.server import RunningServer
from initscope.service.settings import Settings
from initscope.service.store.engine import Database

ENCODERS = {wire.MEDIA_BINARY: encoding.to_binary, wire.MEDIA_JSON: encoding.to_json}


class Collector:
    """What a test asks of a collector, over HTTP with its first token, and of its database."""

    def __init__(self, url: str, token: str, database: Database) -> None:
        self.url = url
        self.token = token
        self.database = database
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def send(self, batch: wire.Batch, media: str = wire.MEDIA_BINARY) -> dict[str, Any]:
        """Posts a batch that must be taken; the answer's counts."""
        response = self.post(ENCODERS[media](batch), media)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, body: bytes, media: str = wire.MEDIA_JSON, *, coding: str = "gzip") -> httpx.Response:
        """Posts a body, gzipped unless `coding` is empty."""
        headers = {"Content-Type": media, "Content-Encoding": coding}
        content = gzip.compress(body, 1) if coding == "gzip" else body
        return self.http.post("/api/v1/batches", content=content, headers={k: x for k, x in headers.items() if x})

    def beat(self, heartbeat: wire.Heartbeat) -> dict[str, Any]:
        body = encoding.heartbeat_to_json(heartbeat)
        response = self.http.post("/api/v1/heartbeats", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 200, response.text
        return response.json()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database holds."""
        with self.database.read() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def counts(self) -> tuple[int, int, int, int]:
        """Runs, batches, records and scalars that are stored."""
        ((runs, batches, records, scalars),) = self.rows(
            "SELECT (SELECT COUNT(*) FROM runs), (SELECT COUNT(*) FROM batches),"
            " (SELECT COUNT(*) FROM tensor_stats), (SELECT COUNT(*) FROM scalars)"
        )
        return runs, batches, records, scalars


@contextmanager
def running_collector(home: Path, database_url: str | None = None, **settings: Any) -> Iterator[Collector]:
    """A collector in this process."""
    with RunningServer(Settings(home=home, port=0, database_url=database_url, **settings)) as server:
        collector = Collector(server.url, server.token, Database(database_url or f"sqlite:///{home}/initscope.db"))
        try:
            yield collector
        finally:
            collector.http.close()
            collector.database.close()


class ServeProcess:
    """`initscope serve` as a process of its own, for tests that end it the hard way."""

    def __init__(self, home: Path, *options: str) -> None:
        code = "from initscope.service.cli import main; raise SystemExit(main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--home", str(home), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = ""
        # The token's place is the last thing that it says.
        while "token for training jobs" not in self.said:
            line = self.process.stdout.readline()
            assert line, self.process.communicate()
            self.said += line
        self.url = re.search(r"serves (http://\S+)", self.said)[1]  # type: ignore[index]
        self.token = (home / "token").read_text().strip()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Sends a signal; exit status and what it said on stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


def stats(**given: Any) -> TensorStats:
    """A record of a thousand numbers drawn from N(0, 1), with anything else given."""
    channels = {name: given.pop(name) for name in tuple(given) if name in ChannelStats.__dataclass_fields__}
    numbers: dict[str, Any] = {
        "count": 1000, "nan_count": 0, "posinf_count": 0, "neginf_count": 0, "zero_count": 0,
        "mean": 0.0, "std": 1.0, "skewness": 0.0, "kurtosis": 3.0, "min": -3.5, "max": 3.5,
    }  # fmt: skip
    return TensorStats(from_standardized(**{**numbers, **given}), ChannelStats(**channels))


def absent(count: int = 10) -> TensorStats:
    """A record of nothing but NaN."""
    nothing = dict.fromkeys(("mean", "std", "skewness", "kurtosis", "min", "max"), math.nan)
    return stats(count=count, nan_count=count, **nothing)


def info(path: str = "fc", name: str = "weight", kind: Kind = Kind.WEIGHT, **given: Any) -> wire.TensorInfo:
    """The description of a tensor."""
    return wire.TensorInfo(key=wire.tensor_key(path, name, kind), module_path=path, name=name, kind=kind, **given)


def batch(
    sequence: int = 0,
    records: Mapping[tuple[str, int], TensorStats] | None = None,
    *,
    run_id: str = "run-1",
    session: int = 1,
    attempt: int = 0,
    rank: int = 0,
    world_size: int = 1,
    tensors: Sequence[wire.TensorInfo] | None = None,
    **header: Any,
) -> wire.Batch:
    """A batch; `records` by (module path, step). The tensors of the records are described unless others are given."""
    given = {("fc", 0): stats()} if records is None else records
    described = [info(path) for path in sorted({path for path, _ in given})] if tensors is None else list(tensors)
    rows = wire.Records.empty()
    for (path, step), record in given.items():
        rows.append(wire.tensor_key(path, "weight", Kind.WEIGHT), step, record)
    head = wire.Header(
        run=wire.RunKey(run_id=run_id, attempt=attempt),
        session=wire.SessionKey(session_id=f"{session:032x}", rank=rank, world_size=world_size),
        sequence=sequence,
        tensors=described,
        **header,
    )
    return wire.Batch(head, rows)
