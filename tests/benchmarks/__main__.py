"""`make bench`: runs the benchmarks and prints their tables. Arguments: names of benchmarks, and `--json FILE`."""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

from tests.benchmarks import evaluation, hook_cost, ingest_rate, scheme_grid
from tests.benchmarks.report import Table

BENCHMARKS = {
    "hook_cost": hook_cost.run,
    "ingest_rate": ingest_rate.run,
    "evaluation": evaluation.run,
    "scheme_grid": scheme_grid.run,
}


def machine() -> str:
    """The processor, in words."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the tables to FILE")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    print(f"{machine()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n")
    tables: list[Table] = []
    for name in arguments.names or BENCHMARKS:
        for table in BENCHMARKS[name](quick=arguments.quick):
            print(table.markdown(), flush=True)
            tables.append(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([table.plain() for table in tables], indent=1) + "\n")


if __name__ == "__main__":
    main()
