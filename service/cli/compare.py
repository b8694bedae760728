"""`initscope compare`: runs side by side by depth, or over their widths; by a collector's read API."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any, Final
from urllib.parse import urlencode

from rich.console import Console

from initscope.hooks.comparison import GROWTH, THRESHOLD
from initscope.hooks.vocabulary import MAX_STEP, Kind
from initscope.service.cli import compare_tables as tables
from initscope.service.cli.compare_inits import compare_inits
from initscope.service.cli.reader import Reader, add_collector
from initscope.service.complaint import Complaint

_EPILOG: Final = (
    "Exit status: 0 if they are equal within the tolerance (or no activation grows with width), 1 if they are not, "
    "2 for wrong usage or a collector that does not answer."
)
_MOST_ROWS: Final = 5_000
Json = dict[str, Any]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.epilog = _EPILOG
    parser.add_argument("runs", nargs="+", metavar="RUN", help="id, its unique beginning, or name; the first is A")
    parser.add_argument(
        "--inits", action="store_true", help="RUN is MODULE:CALLABLE, as for check: compare models before any training"
    )
    parser.add_argument("--step", type=_whole, metavar="N", help="at step N (default: the first that each recorded)")
    parser.add_argument("--kind", action="append", choices=list(Kind), default=[], help="only this kind; repeat")
    parser.add_argument(
        "--tolerance", type=_octaves, default=THRESHOLD, metavar="OCTAVES",
        help="of rms, beyond what two seeds differ by (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="show the layers that are equal, too")
    parser.add_argument(
        "--coordinate-check", action="store_true", help="do activations of 3 or more runs grow with width?"
    )
    parser.add_argument(
        "--steps", default="0,1,2,3,4,5", metavar="N,…", help="of the coordinate check (default: %(default)s)"
    )
    parser.add_argument(
        "--width", action="append", type=_octaves, default=[], metavar="W",
        help="width of a run, once for each (default: from config or shapes)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for scripts: the answers of the API")
    add_collector(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 for equal runs, 1 for different ones; a `Complaint` for runs that cannot be compared."""
    if arguments.inits and (arguments.coordinate_check or arguments.step is not None):
        raise Complaint("--inits compares what there is before training: no --step, no --coordinate-check")
    if arguments.coordinate_check:
        return _check_widths(arguments)
    if len(arguments.runs) < 2:
        raise Complaint("compare takes two runs or more")
    if arguments.inits:
        return _finish(arguments, compare_inits(arguments.runs, arguments.tolerance, arguments.kind), None)
    reader = Reader.of(arguments)
    return _finish(arguments, [_compare(reader, arguments, other) for other in arguments.runs[1:]], reader.url)


def _finish(arguments: argparse.Namespace, found: list[Json], url: str | None) -> int:
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        console = _console()
        for comparison in found:
            tables.show_comparison(console, comparison, everything=arguments.all)
            if url is not None:
                console.print(f"page: {url}/compare?{_page_query(comparison)}", soft_wrap=True, markup=False)
    return 0 if all(comparison["is_equal"] for comparison in found) else 1


def _compare(reader: Reader, arguments: argparse.Namespace, other: str) -> Json:
    query = {"run": [arguments.runs[0], other], "step": arguments.step, "kind": arguments.kind}
    found: Json = reader.get("/compare", {**query, "tolerance": arguments.tolerance, "limit": _MOST_ROWS})
    for side in found["runs"]:
        if side["step"] is None:
            by_then = "" if arguments.step is None else f" up to step {arguments.step}"
            raise Complaint(f"run {side['name']!r} has no records{by_then}")
    return found


def _page_query(found: Json) -> str:
    return urlencode([("run", side["id"]) for side in found["runs"]])


def _check_widths(arguments: argparse.Namespace) -> int:
    query = {"run": arguments.runs, "steps": arguments.steps, "width": arguments.width}
    found: Json = Reader.of(arguments).get("/coordinate-check", {**query, "threshold": GROWTH})
    if not found["coordinates"]:
        raise Complaint(found["diagnosis"])
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        tables.show_coordinates(_console(), found, everything=arguments.all)
    return 0 if found["is_stable"] else 1


def _console() -> Console:
    # Rich takes a pipe for 80 columns; a log or a file has room for the whole table.
    return Console() if sys.stdout.isatty() else Console(width=140)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:20]) > MAX_STEP:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no step")
    return int(text)


def _octaves(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number from 0 up")
    return value
