"""The database: SQLite with one writer, or PostgreSQL. Every connection of the collector comes from here."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError

from initscope.service.complaint import Complaint

T = TypeVar("T")

POOL_TIMEOUT_SECONDS: Final = 2.0
BUSY_SECONDS: Final = 5.0
RETRIES: Final = 5
# 40001 serialization failure, 40P01 deadlock: PostgreSQL asks for the whole transaction again.
_RETRYABLE: Final = frozenset({"40001", "40P01"})
_POSTGRES_OPTIONS: Final = (
    "-c statement_timeout=30000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=60000 -c timezone=UTC"
)


class DatabaseUrlError(Complaint):
    """A database url that cannot be used."""


class Busy(Exception):
    """The writer is taken for longer than a request should wait; the client retries."""


class Gone(Busy):
    """The file of the database was removed or replaced: what is written now would be lost with the process."""


def normalize(url: str) -> URL:
    """A url with the driver that the collector uses; `DatabaseUrlError` for any other database."""
    try:
        parsed = make_url(url)
    except Exception as error:  # noqa: BLE001 - sqlalchemy raises its own and ValueError; the url may hold a password
        raise DatabaseUrlError(f"the database url is not a url ({type(error).__name__})") from None
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:":
            raise DatabaseUrlError("SQLite needs a file: sqlite:///PATH")
        return parsed.set(drivername="sqlite+pysqlite")
    raise DatabaseUrlError(f"{parsed.drivername} is not supported: use sqlite:///PATH or postgresql://USER@HOST/NAME")


class Database:
    """One database. Reads and writes are apart: a read connection cannot write, writes are whole transactions."""

    def __init__(self, url: str) -> None:
        self.url = normalize(url)
        self.dialect = self.url.get_backend_name()
        self._turn = threading.Lock()
        self._file: tuple[int, int] | None = None
        if self.dialect == "sqlite":
            self._reader, self._writer = _sqlite(self.url, read_only=True), _sqlite(self.url, read_only=False)
        else:
            self._reader = self._writer = _postgresql(self.url)

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database; None for PostgreSQL."""
        return Path(self.url.database).absolute() if self.dialect == "sqlite" and self.url.database else None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database per transaction and cannot change it."""
        self._check_file()
        with self._reader.connect() as connection:
            if self.dialect == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back when an exception leaves the block."""
        if self.dialect == "postgresql":
            with self._writer.begin() as connection:
                yield connection
            return
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise Busy
        try:
            self._check_file()
            with self._writer.begin() as connection:
                yield connection
        finally:
            self._turn.release()

    def _check_file(self) -> None:
        """`Gone` if the open connections have another file than the one of that name: SQLite itself would not tell."""
        if self.dialect != "sqlite":
            return
        try:
            found = os.stat(self.url.database or "")
        except FileNotFoundError:
            if self._file is None:  # not made yet
                return
            raise Gone from None
        if self._file is None:
            self._file = found.st_dev, found.st_ino
        elif self._file != (found.st_dev, found.st_ino):
            raise Gone

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in one write transaction; the whole of it again, at most 5 times, after a lost race.

        Lost races are serialization failures, deadlocks, and unique keys that are taken. The second try follows at
        once: mostly a key was taken by an earlier batch, and nobody is racing.
        """
        for attempt in range(RETRIES):
            try:
                with self.write() as connection:
                    return work(connection)
            except DBAPIError as error:
                if attempt == RETRIES - 1 or not _lost_race(error):
                    raise
            if attempt:
                time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter, not a secret
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Closes every pooled connection."""
        self._reader.dispose()
        self._writer.dispose()


def _lost_race(error: DBAPIError) -> bool:
    return isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in _RETRYABLE


def _sqlite(url: URL, *, read_only: bool) -> Engine:
    sizes = {"pool_size": 8, "max_overflow": 8} if read_only else {"pool_size": 1, "max_overflow": 0}
    engine = create_engine(
        url,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
        **sizes,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver's own transactions begin too late and deferred; ours begin explicitly, below.
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "cache_size=-65536",
            "temp_store=MEMORY",
            "wal_autocheckpoint=8192",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A read transaction that upgrades to a write fails at once, whatever the busy timeout.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=10,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        connect_args={"connect_timeout": 5, "application_name": "initscope", "options": _POSTGRES_OPTIONS},
    )
