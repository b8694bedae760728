"""Ingest over HTTP, 1,000 records a commit, one client, against the bare driver on the same table, in the same run.

Every round sends some batches over HTTP, then writes the very rows that the collector stored into two empty databases
of the same schema with the bare driver (SQLite: executemany, PostgreSQL: binary COPY). The second of them is the
control: both do the same. "Rules: meanwhile" is a run of one rank, whose steps are evaluated as they arrive, in the
same process; "afterwards" is one rank of two, whose steps wait 2 s for the other, so that ingest has the process alone.
"""

from __future__ import annotations

import gzip
import http.client
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import text

from initscope.hooks import vocabulary as v
from initscope.hooks.encoding import to_binary
from initscope.hooks.moments import TensorStats, from_standardized
from initscope.hooks.wire import MEDIA_BINARY, Batch, Header, Records, RunDescription, RunKey, SessionKey, TensorInfo
from initscope.service.store import models, rows, schema
from initscope.service.store.engine import Database
from tests.benchmarks.collector import TOKEN, collector
from tests.benchmarks.report import Table, median_and_spread
from tests.support.postgres import running_postgres

TENSORS = 1_000
BATCHES = 5
SESSIONS = {
    "meanwhile": SessionKey(session_id="a" * 32),
    "afterwards": SessionKey(session_id="b" * 32, world_size=2),
}
Write = Callable[[Sequence[rows.Row]], None]


def run(*, quick: bool) -> Iterator[Table]:
    """One table: SQLite, and PostgreSQL where its server can be started."""
    rounds = 3 if quick else 11
    table = Table(
        "Ingest rate",
        (
            "database",
            "rules",
            "HTTP, records/s",
            "bare driver, records/s",
            "HTTP ÷ bare",
            "± half the quartiles",
            "bare ÷ bare (A/A)",
        ),
        note=f"`make bench ARGS=ingest_rate`: {TENSORS:,} records a commit, one client; medians of {rounds} rounds of "
        f"{BATCHES} commits.",
    )
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"sqlite:///{Path(folder) / name}.db" for name in ("http", "bare", "control")]
        table.rows += both_ways("SQLite", urls, Path(folder), rounds)
    with ExitStack() as stack:
        urls = stack.enter_context(postgres_databases())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        table.rows += both_ways("PostgreSQL", urls, Path(folder), rounds)
    yield table


def both_ways(name: str, urls: Sequence[str], home: Path, rounds: int) -> Iterator[tuple[Any, ...]]:
    """Two rows of the table, in one collector."""
    with ExitStack() as stack:
        server = stack.enter_context(collector(urls[0], home))
        stored = Database(urls[0])
        stack.callback(stored.close)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        stack.callback(connection.close)
        send(connection, [body(SESSIONS["meanwhile"], 0, described=True)])
        writers = [stack.enter_context(bare_writer(url, stored)) for url in urls[1:]]
        for number, (rules, session) in enumerate(SESSIONS.items()):
            first_step = number * (rounds + 1) * BATCHES + 1
            times = measure(connection, session, stored, (writers[0], writers[1]), range(-1, rounds), first_step)
            yield summary(name, rules, times)


@dataclass
class Times:
    """Seconds of a round's commits, round by round."""

    http: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    control: list[float] = field(default_factory=list)


def measure(
    connection: http.client.HTTPConnection,
    session: SessionKey,
    stored: Database,
    writers: tuple[Write, Write],
    rounds: range,
    first_step: int,
) -> Times:
    """Seconds of each round; negative rounds only warm everything up."""
    times = Times()
    for number in rounds:
        start = first_step + (number - rounds.start) * BATCHES
        steps = range(start, start + BATCHES)
        bodies = [body(session, step) for step in steps]
        connection.close()  # the collector may have ended it while it was idle
        connection.connect()
        http_seconds = clock(lambda bodies=bodies: send(connection, bodies))
        wait_until_evaluated(stored, steps[-1])
        written = [read_step(stored, step) for step in steps]
        order = writers if number % 2 else writers[::-1]
        seconds = {w: clock(lambda w=w, written=written: [w(one) for one in written]) for w in order}
        if number >= 0:
            times.http.append(http_seconds)
            times.bare.append(seconds[writers[0]])
            times.control.append(seconds[writers[1]])
    return times


def summary(name: str, rules: str, times: Times) -> tuple[Any, ...]:
    """Medians over the rounds."""
    records = TENSORS * BATCHES
    ratio, spread = median_and_spread([b / h for b, h in zip(times.bare, times.http, strict=True)])
    same, _ = median_and_spread([b / c for b, c in zip(times.bare, times.control, strict=True)])
    http_seconds, bare_seconds = median_and_spread(times.http)[0], median_and_spread(times.bare)[0]
    return name, rules, records / http_seconds, records / bare_seconds, ratio, spread, same


def clock(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def body(session: SessionKey, step: int, *, described: bool = False) -> bytes:
    """A gzipped batch with one record of each tensor at one step, as the client writes it."""
    rng, table = random.Random(step), Records.empty()
    for key in range(TENSORS):
        std = rng.uniform(0.01, 1.0)
        moments = from_standardized(
            count=4096, nan_count=0, posinf_count=0, neginf_count=0, zero_count=rng.randrange(9),
            mean=rng.gauss(0, 0.01), std=std, skewness=rng.gauss(0, 0.1), kurtosis=rng.uniform(2.5, 3.5),
            min=-4 * std, max=4 * std,
        )  # fmt: skip
        table.append(key, step, TensorStats(moments))
    tensors = [
        TensorInfo(key=key, module_path=f"layers.{key}", name="weight", kind=v.Kind.WEIGHT, shape=[64, 64], depth=key)
        for key in range(TENSORS)
    ]
    header = Header(
        run=RunKey(run_id="benchmark", name="benchmark", attempt=session.world_size - 1),
        session=session,
        sequence=step,
        last_step=step,
        description=RunDescription(model_class="Net") if described else None,
        tensors=tensors if described else [],
    )
    return gzip.compress(to_binary(Batch(header, table)), 1)


def send(connection: http.client.HTTPConnection, bodies: Sequence[bytes]) -> None:
    """Posts the batches one after the other on one connection; each must be accepted whole."""
    headers = {"Content-Type": MEDIA_BINARY, "Content-Encoding": "gzip", "Authorization": f"Bearer {TOKEN}"}
    for one in bodies:
        connection.request("POST", "/api/v1/batches", one, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200 or answer["accepted"] != TENSORS:
            raise RuntimeError(f"{response.status}: {answer}")


def wait_until_evaluated(database: Database, step: int) -> None:
    """Lets the collector come to rest, so that it does not compete with the bare driver."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with database.read() as connection:
            evaluated = connection.execute(text("SELECT max(evaluated_step) FROM attempts")).scalar()
        if evaluated is not None and evaluated >= step:
            return
        time.sleep(0.05)
    raise TimeoutError(f"step {step} was not evaluated within 60 s")


def read_step(database: Database, step: int) -> list[rows.Row]:
    """The rows that the collector stored of a step."""
    query = text(f"SELECT {', '.join(rows.COLUMNS)} FROM tensor_stats WHERE step = :step")  # noqa: S608 - own names
    with database.read() as connection:
        found = [tuple(row) for row in connection.execute(query, {"step": step})]
    if len(found) != TENSORS:
        raise RuntimeError(f"{len(found)} rows of step {step}")
    return found


@contextmanager
def bare_writer(url: str, stored: Database) -> Iterator[Write]:
    """A function that writes and commits rows with nothing but the driver, into a new database of the same schema."""
    database = Database(url)
    try:
        schema.ensure(database)
        with stored.read() as source, database.write() as target:
            runs = [dict(row) for row in source.execute(models.Run.__table__.select()).mappings()]
            target.execute(models.Run.__table__.insert(), runs)
    finally:
        database.close()
    with _sqlite_writer(url) if url.startswith("sqlite") else _postgres_writer(url) as write:
        yield write


@contextmanager
def _sqlite_writer(url: str) -> Iterator[Write]:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    statement = f"INSERT INTO tensor_stats ({', '.join(rows.COLUMNS)}) VALUES ({', '.join('?' * len(rows.COLUMNS))})"  # noqa: S608

    def write(values: Sequence[rows.Row]) -> None:
        connection.executemany(statement, values)
        connection.commit()

    try:
        yield write
    finally:
        connection.close()


@contextmanager
def _postgres_writer(url: str) -> Iterator[Write]:
    types = ["float8" if issubclass(c.type.python_type, float) else "int8" for c in models.TensorStatsRow.__table__.c]
    with psycopg.connect(url) as connection:

        def write(values: Sequence[rows.Row]) -> None:
            statement = f"COPY tensor_stats ({', '.join(rows.COLUMNS)}) FROM STDIN (FORMAT BINARY)"
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(types)
                for row in values:
                    copy.write_row(row)
            connection.commit()

        yield write


@contextmanager
def postgres_databases() -> Iterator[list[str]]:
    """Three empty databases on a server of its own."""
    with running_postgres() as instance:
        yield [instance.create_database() for _ in range(3)]
