"""`initscope migrate`: the schema of this version, made or brought up to date."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from initscope.service.cli.options import add_database, opened, to_settings
from initscope.service.store import schema
from initscope.service.store.lock import ServerLock


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_database(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 when the schema is at head; a `Complaint` otherwise."""
    with opened(to_settings(arguments), create=True) as database, ExitStack() as cleanup:
        if database.path is not None:
            # A collector of the old version must not write while its tables change.
            cleanup.callback(ServerLock(database.path).release)
        schema.migrate(database)
    print(f"the database has schema {schema.head()}")
    return 0
