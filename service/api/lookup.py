"""What a request names in its path and query: the run, the attempt, statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query, Request
from sqlalchemy import Connection

from initscope.hooks.vocabulary import MAX_STEP, Statistic
from initscope.service.api.errors import ApiError
from initscope.service.store.engine import Database
from initscope.service.store.read_runs import RunHead, find_run

StepQuery = Annotated[int | None, Query(ge=0, le=MAX_STEP)]
AttemptQuery = Annotated[int | None, Query(ge=0, le=1_000_000)]
PointsQuery = Annotated[int, Query(ge=8, le=10_000)]


def now() -> datetime:
    """The service's clock."""
    return datetime.now(UTC)


@contextmanager
def reading(request: Request) -> Iterator[Connection]:
    """A read connection of the application's database."""
    database: Database = request.app.state.database
    with database.read() as conn:
        yield conn


@contextmanager
def writing(request: Request) -> Iterator[Connection]:
    """A write transaction of the application's database."""
    database: Database = request.app.state.database
    with database.write() as conn:
        yield conn


def the_run(conn: Connection, run: str) -> RunHead:
    """The run with that id; 404 if there is none."""
    head = find_run(conn, run)
    if head is None:
        raise ApiError(404, "not_found", "there is no such run", field="run", hint="GET /api/v1/runs lists them")
    return head


def the_attempt(run: RunHead, attempt: int | None) -> int:
    """The attempt that was asked for, or the newest; 404 for one that never was."""
    if attempt is not None and attempt > run.attempt:
        raise ApiError(404, "not_found", f"the newest attempt of this run is {run.attempt}", field="attempt")
    return run.attempt if attempt is None else attempt


def the_statistics(names: str) -> list[Statistic]:
    """Statistics out of `rms,mean`, each once; 422 for a name that is none."""
    found: dict[Statistic, None] = {}
    for name in names.split(","):
        try:
            found[Statistic(name.strip())] = None
        except ValueError:
            message = f"{name.strip()[:64]!r} is no statistic"
            hint = f"any of {', '.join(Statistic)}"
            raise ApiError(422, "invalid_field", message, field="statistic", hint=hint) from None
    return list(found)
