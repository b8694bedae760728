"""The command line: one verb a file, imported only when it is used."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Final, NoReturn

from initscope.service.complaint import Complaint


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of `initscope`: its module offers `configure(parser)` and `run(arguments) -> int`."""

    name: str
    summary: str
    extra: str
    needs: tuple[str, ...] = ()
    """Packages that the verb's own processes import, and that are therefore looked for before it begins."""
    failure: int = 2
    """Exit status for wrong usage, a `Complaint` or a missing extra."""


VERBS: Final = (
    Verb("check", "judge a model before its training is started", "torch", ("torch",), failure=3),
    Verb("demo", "train eleven networks and watch the bad starts being found", "demo", ("torch", "sklearn")),
    Verb("serve", "run the collector and its pages", "service"),
    Verb("migrate", "bring a database to the schema of this version", "service"),
    Verb("compare", "two runs side by side by depth, or several over their widths", "service"),
    Verb("token", "create, list and revoke tokens", "service"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; its exit status. 2 (3 of `check`) for wrong usage or a missing extra."""
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((verb for verb in VERBS if words[:1] == [verb.name]), None)
    try:
        module = _load(chosen) if chosen else None
        arguments = _parser(chosen, module).parse_args(words)
        return _run(chosen, module, arguments) if chosen and module else 0
    except ModuleNotFoundError as error:
        if chosen is None or (error.name or "initscope").partition(".")[0] == "initscope":
            raise
        extra = "postgres" if error.name == "psycopg" else chosen.extra
        print(f"initscope {chosen.name} needs the {extra} extra: pip install 'initscope[{extra}]'", file=sys.stderr)
        return chosen.failure


def _load(verb: Verb) -> ModuleType:
    for package in verb.needs:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return importlib.import_module(f"{__name__}.{verb.name}")


def _run(verb: Verb, module: ModuleType, arguments: argparse.Namespace) -> int:
    try:
        return int(module.run(arguments))
    except Complaint as error:
        print(f"initscope: {error}", file=sys.stderr)
        return verb.failure


class _Parser(argparse.ArgumentParser):
    """A parser whose exit status for wrong usage is the verb's."""

    failure = 2

    def error(self, message: str) -> NoReturn:
        """Usage and what is wrong with it, on stderr."""
        self.print_usage(sys.stderr)
        self.exit(self.failure, f"{self.prog}: error: {message}\n")


def _parser(chosen: Verb | None, module: ModuleType | None) -> argparse.ArgumentParser:
    parser = _Parser(prog="initscope", description="Watches the start of PyTorch training runs.")
    parser.failure = chosen.failure if chosen else 2
    parser.add_argument("--version", action="version", version=f"initscope {_version()}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        own = verbs.add_parser(verb.name, help=verb.summary, description=verb.summary)
        own.failure = verb.failure
        if verb is chosen and module is not None:
            module.configure(own)
    return parser


def _version() -> str:
    try:
        return version("initscope")
    except PackageNotFoundError:
        return "0 (not installed)"
