"""A file of thresholds: which rules judge, by which limits, and the modules that own rules come from.

    plugins = ["my_company.rules"]

    [forward-drift]
    warning = 4.0

    [initial-loss]
    enabled = false

The job and the collector read the same format. docs/rules.md has it for users.
"""

from __future__ import annotations

import importlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from initscope.hooks.rules import Rule
from initscope.hooks.rules.registry import RuleError
from initscope.hooks.rules.selection import Changes, Selection, select

Given = Sequence[Rule] | Changes | str | os.PathLike[str] | None
"""What a user may give as `rules=`."""


def chosen(given: Given, file: Path | None) -> Selection:
    """The rules of a user: `given`, over the `file` of INITSCOPE_RULES.

    A path stands instead of that file, a mapping changes what it says, and rules are all that judges. Raises
    `RuleError` or TypeError, which name what cannot be used.
    """
    if isinstance(given, str | os.PathLike):
        return load(given)
    if given is None or isinstance(given, Mapping):
        selection = select() if file is None else load(file)
        return selection if given is None else selection.changed(given)
    return select(given)


def has_rules(given: Given) -> bool:
    """Whether rules themselves were given, which cannot travel to a collector, not what changes them, which can."""
    return given is not None and not isinstance(given, str | os.PathLike | Mapping)


def load(path: str | os.PathLike[str]) -> Selection:
    """The catalogue as the file changes it, after its plugins were imported; `RuleError` names what is wrong with it.

    Importing runs the plugins' code: a rules file is trusted like a script.
    """
    table = _read(Path(path))
    _import(path, table.pop("plugins", []))
    return select(table, where=str(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise RuleError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RuleError(f"{path}: is no TOML: {error}") from None


def _import(path: str | os.PathLike[str], plugins: Any) -> None:
    if not isinstance(plugins, list) or not all(isinstance(name, str) and name for name in plugins):
        raise RuleError(f"{path}: plugins is a list of names of modules, got {plugins!r:.80}")
    for name in plugins:
        try:
            importlib.import_module(name)
        except (
            ImportError,
            SyntaxError,
            TypeError,
            ValueError,
        ) as error:  # anything else is best told by its traceback
            reason = f"{type(error).__name__}: {error}"
            raise RuleError(f"{path}: plugins: {name!r} cannot be imported: {reason}") from error
