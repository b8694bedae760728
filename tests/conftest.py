"""Fixtures that several rooms share: databases of both kinds, and a collector on top of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.collector import Collector, running_collector
from tests.support.postgres import Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """An empty PostgreSQL database."""
    return postgres.create_database()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; the test runs once for each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'initscope.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def collector(database_url: str, tmp_path: Path) -> Iterator[Collector]:
    """A collector on an empty database; the test runs once for each kind of database."""
    with running_collector(tmp_path, database_url) as running:
        yield running


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Collector]:
    """A collector on SQLite, for what does not depend on the database."""
    with running_collector(tmp_path) as running:
        yield running
