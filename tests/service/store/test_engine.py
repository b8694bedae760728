"""The database as the collector's rooms see it."""

from __future__ import annotations

from sqlalchemy import text

from initscope.service.store import schema
from initscope.service.store.engine import Database
from tests.support import seeds


def test_a_reader_sees_one_state_of_the_database_whatever_is_written_meanwhile(database_url: str) -> None:
    database = Database(database_url)
    schema.ensure(database)
    count = text("SELECT COUNT(*) FROM runs")
    try:
        with database.read() as reader:
            assert reader.execute(count).scalar() == 0
            with database.write() as writer:
                seeds.add_run(writer)
            assert reader.execute(count).scalar() == 0
        with database.read() as reader:
            assert reader.execute(count).scalar() == 1
    finally:
        database.close()
