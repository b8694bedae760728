"""Options that several verbs share: each overrides its INITSCOPE_* variable."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy.exc import OperationalError

from initscope.service import home
from initscope.service.complaint import Complaint
from initscope.service.settings import Settings
from initscope.service.store.engine import Database

_FLAGS: Final = ("behind_proxy", "insecure")
_METAVARS: Final = {"rules": "FILE"}


class UsageError(Complaint):
    """Options that make no sense; the message is one line."""


def add_database(parser: argparse.ArgumentParser) -> None:
    """--database-url and --home."""
    for name in ("database_url", "home"):
        _add(parser, name)


def add_server(parser: argparse.ArgumentParser) -> None:
    """Everything that `serve` takes."""
    for name in ("host", "port", "database_url", "home", "allowed_hosts", "rules", *_FLAGS):
        _add(parser, name)


def _add(parser: argparse.ArgumentParser, name: str) -> None:
    option, variable = "--" + name.replace("_", "-"), f"INITSCOPE_{name.upper()}"
    text = f"{Settings.model_fields[name].description} [{variable}]"
    if name in _FLAGS:
        parser.add_argument(option, action="store_true", default=None, help=text)
    else:
        parser.add_argument(
            option, default=None, help=text, metavar=_METAVARS.get(name, name.rpartition("_")[2].upper())
        )


def to_settings(arguments: argparse.Namespace) -> Settings:
    """Settings from options, then the environment; `UsageError` names the one that is wrong."""
    given: dict[str, Any] = {
        name: value for name, value in vars(arguments).items() if name in Settings.model_fields and value is not None
    }
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0])
        option = "--" + name.replace("_", "-") if name in given else f"INITSCOPE_{name.upper()}"
        raise UsageError(f"{option}: {first['msg'].removeprefix('Value error, ')}") from None


def complain(error: Complaint) -> int:
    """One line on stderr; the exit status of a command that could not begin."""
    print(f"initscope: {error}", file=sys.stderr)
    return 2


@contextmanager
def opened(settings: Settings, *, create: bool) -> Iterator[Database]:
    """The database of the settings; a `Complaint` if it cannot be opened, or is absent and not to be created."""
    database = Database(settings.url)
    try:
        if create and settings.database_url is None:
            home.ensure(settings)
        elif database.path is not None and not create and not database.path.exists():
            raise UsageError(f"there is no database {database.path}: `initscope serve` makes it")
        yield database
    except OperationalError as error:
        raise UsageError(f"cannot open the database: {' '.join(str(error.orig).split())}") from None
    finally:
        database.close()
