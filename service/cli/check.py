"""`initscope check`: a model judged before its training is started."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

from initscope.hooks.probe.check import CheckError, check
from initscope.hooks.report import Report
from initscope.service.complaint import Complaint

_EPILOG: Final = """\
TARGET is MODULE:CALLABLE or path/to/file.py:CALLABLE, importable from the current folder. The callable takes no
arguments and returns a model, (model, batch), (model, batch, loss_fn), or a dict with these names and "optimizer";
batch and loss_fn are those of initscope.hooks.check: a pair is (inputs, target), the loss loss_fn(output, target).

exit status: 0 ok, 1 a warning, 2 critical (the run is expected to fail), 3 wrong usage or an error in your code
"""
_HOOKS: Final = Path(inspect.getfile(check)).parents[1]
_NAMES: Final = ("model", "batch", "loss_fn", "optimizer")


@dataclass(frozen=True, slots=True)
class Given:
    """What the user's callable returned."""

    model: Any
    batch: Any = None
    loss_fn: Callable[..., Any] | None = None
    optimizer: Any = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("target", metavar="TARGET", help="what to check, as module:callable")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write the report to FILE, as one page")
    parser.add_argument("--rules", type=Path, metavar="FILE", help="thresholds, as for the collector [INITSCOPE_RULES]")
    parser.add_argument("--weights-only", action="store_true", help="do not run the model, even if there is a batch")


def run(arguments: argparse.Namespace) -> int:
    """0, 1 or 2 by the verdict; a `Complaint` (status 3) for what cannot be checked."""
    # Whatever the user's code prints must not get between the lines of the answer.
    with contextlib.redirect_stdout(sys.stderr):
        given = _given(_called(_found(arguments.target), arguments.target), arguments.target)
        report = _checked(given, arguments)
    if arguments.html is not None:
        _write(arguments.html, report.to_html())
    if hasattr(sys.stdout, "reconfigure"):  # a terminal without × must not end in a traceback
        sys.stdout.reconfigure(errors="replace")
    print(json.dumps(report.to_json(), indent=1, allow_nan=False) if arguments.json else report)
    return report.exit_code


def _found(target: str) -> Any:
    """What the target names."""
    place, colon, name = target.rpartition(":")
    if not (colon and place and name):
        raise Complaint(f"{target!r} is no MODULE:CALLABLE, as in train:build or train.py:build")
    found: Any = _imported(place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise Complaint(f"{place} has no {name!r}{_callables(found)}")
        found = getattr(found, part)
    return found


def _callables(module: Any) -> str:
    """What a person may have meant."""
    if not isinstance(module, ModuleType):
        return ""
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__ and callable(v)]
    names = [name for name in own if not name.startswith("_")][:8]
    return f"; it has {', '.join(names)}" if names else ""


def _imported(place: str) -> ModuleType:
    """The module, from the current folder as Python would import it there; a file with its own folder as well."""
    file = Path(place)
    is_file = place.endswith(".py") or os.sep in place
    if is_file and not file.is_file():
        raise Complaint(f"there is no file {place}")
    for folder in (str(Path.cwd()), *([str(file.resolve().parent)] if is_file else [])):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    if not is_file and _is_absent(place):
        raise Complaint(f"there is no module {place} here ({Path.cwd()}) or in what is installed")
    with _OwnErrors(f"importing {place}"):
        return _of_file(file) if is_file else importlib.import_module(place)


def _is_absent(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is None
    except (ImportError, ValueError):
        return True


def _of_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise Complaint(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Under its own name, so that classes in it can be pickled and dataclasses find their module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _called(found: Any, target: str) -> Any:
    # A model is callable, too, but not for this; its class is.
    if not callable(found) or (hasattr(found, "named_parameters") and not isinstance(found, type)):
        return found
    with _OwnErrors(target):
        return found()


def _given(returned: Any, target: str) -> Given:
    if isinstance(returned, Mapping):
        unknown = [str(name) for name in returned if name not in _NAMES]
        if unknown or "model" not in returned:
            what = f"unknown {', '.join(unknown)}" if unknown else 'no "model"'
            raise Complaint(f"{target} returned a dict with {what}; the names are {', '.join(_NAMES)}")
        return Given(**returned)
    parts = returned if isinstance(returned, tuple) else (returned,)
    if not 1 <= len(parts) <= 3:
        raise Complaint(f"{target} returned {len(parts)} things; they are model, batch and loss_fn")
    return Given(*parts)


def _checked(given: Given, arguments: argparse.Namespace) -> Report:
    batch, loss_fn = (None, None) if arguments.weights_only else (given.batch, given.loss_fn)
    try:
        return check(given.model, batch, loss_fn, optimizer=given.optimizer, rules=arguments.rules)
    except (CheckError, TypeError, ValueError) as error:
        raise Complaint(f"{_line(error)}{_origin(error.__cause__)}") from error


def _write(file: Path, page: str) -> None:
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise Complaint(f"cannot write {file}: {error.strerror}") from None
    print(f"wrote {file}", file=sys.stderr)


class _OwnErrors:
    """Errors of the user's code become a line that says where they come from."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception | SystemExit) and not isinstance(error, Complaint):
            words = f"{self._what} raised {type(error).__name__}: {_line(error)}"
            raise Complaint(f"{words}{_origin(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]


def _origin(error: BaseException | None) -> str:
    """The last line of the user's own code that an error went through."""
    foreign = (*sysconfig.get_paths().values(), str(_HOOKS), __file__, "<frozen")
    place = ""
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        is_foreign = file.startswith(foreign) or {"site-packages", "dist-packages"} & set(Path(file).parts)
        place = place if is_foreign else f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
