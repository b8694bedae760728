from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text

from initscope.service.store import schema
from initscope.service.store.engine import Database
from initscope.service.store.models import Base
from initscope.service.store.schema import SchemaError


@pytest.fixture
def database(database_url: str):
    database = Database(database_url)
    yield database
    database.close()


def _tables(database: Database) -> set[str]:
    with database.read() as connection:
        inspector = inspect(connection)
        return {*inspector.get_table_names(), *inspector.get_view_names()} - {"alembic_version"}


def test_migrations_go_up_down_and_up_again(database: Database) -> None:
    schema.migrate(database)
    made = _tables(database)
    assert made >= {*Base.metadata.tables, "v_run", "v_tensor_stats", "v_finding"}
    schema.migrate(database, "base")
    assert _tables(database) == set()
    schema.migrate(database)
    assert _tables(database) == made
    assert schema.at_head(database)


def test_models_equal_migrations(database: Database) -> None:
    schema.migrate(database)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_views_can_be_read(database: Database) -> None:
    schema.migrate(database)
    with database.read() as connection:
        for view in ("v_run", "v_tensor_stats", "v_finding"):
            assert connection.execute(select(text("*")).select_from(text(view))).fetchall() == []


def test_an_absent_schema_is_created_and_a_present_one_kept(database: Database) -> None:
    schema.ensure(database)
    assert schema.at_head(database)
    schema.ensure(database)


def test_an_older_schema_is_refused_and_the_command_named(database: Database, monkeypatch) -> None:
    schema.ensure(database)
    monkeypatch.setattr(schema, "_known", lambda: ["9998", schema.head()])
    with pytest.raises(SchemaError, match="run `initscope migrate`"):
        schema.ensure(database)


def test_a_newer_schema_is_refused_and_its_version_named(database: Database) -> None:
    schema.ensure(database)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for start in (schema.ensure, schema.migrate):
        with pytest.raises(SchemaError, match="schema 9999, newer than this version"):
            start(database)
    assert not schema.at_head(database)


def test_somebody_elses_database_is_left_alone(database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (a INTEGER)")
    with pytest.raises(SchemaError, match="name an empty database"):
        schema.ensure(database)
    assert _tables(database) == {"theirs"}
