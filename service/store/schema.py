"""Which schema a database has, and how it gets the newest one."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from initscope.service.complaint import Complaint
from initscope.service.store.engine import Database

# Any number works as long as every collector takes the same one.
_MIGRATION_LOCK: Final = 0x1A17_5C0E


class SchemaError(Complaint):
    """A database whose schema this version cannot work with; the message says what to do."""


def head() -> str:
    """The newest revision that this version knows."""
    revision = _scripts().get_current_head()
    if revision is None:
        raise SchemaError("this installation carries no migrations")
    return revision


def current(connection: Connection) -> str | None:
    """The revision of a database; None without one."""
    return MigrationContext.configure(connection).get_current_revision()


def at_head(database: Database) -> bool:
    """Whether the schema is the one that this version works with."""
    with database.read() as connection:
        return current(connection) == head()


def ensure(database: Database) -> None:
    """Creates an absent schema at head; `SchemaError` for an older, newer or foreign one."""
    with database.read() as connection:
        revision, tables = current(connection), inspect(connection).get_table_names()
    if revision is None and not tables:
        migrate(database)
    elif revision is None:
        raise SchemaError("the database has tables, but none of initscope's: name an empty database")
    else:
        _check(revision)


def _check(revision: str) -> None:
    known = _known()
    if revision not in known:
        raise SchemaError(
            f"the database has schema {revision}, newer than this version of initscope, which knows {known[0]}: "
            "update initscope"
        )
    if revision != known[0]:
        raise SchemaError(f"the database has schema {revision}, this version needs {known[0]}: run `initscope migrate`")


def migrate(database: Database, revision: str = "head") -> None:
    """Brings the schema to a revision, all of it or nothing; `base` empties the database."""
    with database.write() as connection:
        if database.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config = _config()
        config.attributes["connection"] = connection
        before = current(connection)
        if before is not None and before not in _known():
            _check(before)
        move = command.downgrade if revision == "base" else command.upgrade
        move(config, revision)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("initscope.migrations")).replace("%", "%%"))
    return config


def _known() -> list[str]:
    """Every revision that this version carries, newest first."""
    return [script.revision for script in _scripts().walk_revisions()]


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
