"""`python -m tests.benchmarks.starts VERB`: labelled starts, from the root of the repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.starts import labelling, recorder, replaying, search, sources, tables
from tests.benchmarks.starts.replaying import Overrides


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb; 2 for what cannot be used."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except (FileNotFoundError, KeyError, ValueError) as error:
        print(f"starts: {error.args[-1] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 2


def _label(given: argparse.Namespace) -> int:
    for trouble in labelling.write(sources.OWN_LABELS, given.folder / "own", only=given.only):
        print(trouble)
    return 0


def _record(given: argparse.Namespace) -> int:
    chosen = [sources.own()] if given.source in ("own", "both") else []
    if given.startbench is not None and given.source in ("dev", "both"):
        chosen.append(sources.startbench(given.startbench))
    troubles: list[str] = []
    for source in chosen:
        folder = given.startbench if source.name == "dev" else None
        troubles += recorder.record(
            source,
            given.folder,
            startbench=folder,
            only=given.only,
            missing=given.missing,
            processes=given.processes,
        )
    for trouble in troubles:
        print(f"trouble in the adapter: {trouble}")
    return int(bool(troubles))


def _score(given: argparse.Namespace) -> int:
    cases = _cases(given)
    verdicts = replaying.replay_all(given.folder, cases, _overrides(given.limit), given.processes)
    print(tables.report(cases, verdicts, details=given.details))
    return 0


def _families(given: argparse.Namespace) -> int:
    cases = _cases(given)
    for table in search.leave_one_out(given.folder, cases):
        print(table.markdown())
    return 0


def _cases(given: argparse.Namespace) -> list[sources.Labelled]:
    cases = replaying.cases_of(given.folder, given.only)
    if not cases:
        raise FileNotFoundError(f"{given.folder} has no tapes of labelled cases: run the verb `record` first")
    return cases


def _overrides(given: Sequence[str]) -> Overrides:
    """`rule.name=value` as limits by rule and name."""
    found: dict[str, dict[str, float]] = {}
    for text in given:
        name, _, value = text.partition("=")
        rule_id, _, limit = name.rpartition(".")
        found.setdefault(rule_id, {})[limit] = float(value)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.starts", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--only", default="", metavar="TEXT", help="cases whose id has this in it")
    shared.add_argument("--processes", type=int, default=1, metavar="N")
    in_folder = argparse.ArgumentParser(add_help=False, parents=[shared])
    in_folder.add_argument("folder", type=Path, metavar="DIR", help="where the tapes are")

    record = verbs.add_parser("record", parents=[in_folder], help="watch trainings and keep what was told")
    record.add_argument("--startbench", type=Path, metavar="DIR", help="also its development set")
    record.add_argument("--source", choices=("own", "dev", "both"), default="both")
    record.add_argument("--missing", action="store_true", help="only what is not recorded yet")
    record.set_defaults(run=_record)
    label = verbs.add_parser("label", parents=[in_folder], help="write labels.json from the losses of recorded cases")
    label.set_defaults(run=_label)
    score = verbs.add_parser("score", parents=[in_folder], help="replay the rules as they are now")
    score.add_argument("--details", action="store_true", help="also every case with a complaint")
    score.add_argument("--limit", action="append", default=[], metavar="RULE.NAME=VALUE", help="another limit")
    score.set_defaults(run=_score)
    families = verbs.add_parser("families", parents=[in_folder], help="leave one family out")
    families.set_defaults(run=_families)
    return parser


if __name__ == "__main__":
    sys.exit(main())
