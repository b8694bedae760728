"""`initscope check`: a model judged before its training is started."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Final

from initscope.hooks.probe.check import CheckError, check
from initscope.hooks.report import Report
from initscope.service.cli.target import Given, line_of, load, origin_of
from initscope.service.complaint import Complaint

_EPILOG: Final = """\
TARGET is MODULE:CALLABLE or path/to/file.py:CALLABLE, importable from the current folder. The callable takes no
arguments and returns a model, (model, batch), (model, batch, loss_fn), or a dict with these names and "optimizer";
batch and loss_fn are those of initscope.hooks.check: a pair is (inputs, target), the loss loss_fn(output, target).

exit status: 0 ok, 1 a warning, 2 critical (the run is expected to fail), 3 wrong usage or an error in your code
"""


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
        given = load(arguments.target)
        report = _checked(given, arguments)
    if arguments.html is not None:
        _write(arguments.html, report.to_html())
    if hasattr(sys.stdout, "reconfigure"):  # a terminal without × must not end in a traceback
        sys.stdout.reconfigure(errors="replace")
    print(json.dumps(report.to_json(), indent=1, allow_nan=False) if arguments.json else report)
    return report.exit_code


def _checked(given: Given, arguments: argparse.Namespace) -> Report:
    batch, loss_fn = (None, None) if arguments.weights_only else (given.batch, given.loss_fn)
    try:
        return check(given.model, batch, loss_fn, optimizer=given.optimizer, rules=arguments.rules)
    except (CheckError, TypeError, ValueError) as error:
        raise Complaint(f"{line_of(error)}{origin_of(error.__cause__)}") from error


def _write(file: Path, page: str) -> None:
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise Complaint(f"cannot write {file}: {error.strerror}") from None
    print(f"wrote {file}", file=sys.stderr)
