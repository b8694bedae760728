from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.collector import Collector, running_collector


@pytest.fixture
def collector(database_url: str, tmp_path: Path) -> Iterator[Collector]:
    """A collector on an empty database; the test runs once for each kind of database."""
    with running_collector(tmp_path, database_url) as running:
        yield running


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Collector]:
    """A collector on SQLite."""
    with running_collector(tmp_path) as running:
        yield running
