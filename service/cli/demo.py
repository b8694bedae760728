"""`initscope demo`: real trainings under a real collector; a table compares what was said with what happened."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from initscope.hooks.demo.catalogue import RUNS
from initscope.service.cli.demo_report import Outcome, outcomes
from initscope.service.cli.demo_trainings import Training, play
from initscope.service.cli.options import add_server, to_settings
from initscope.service.complaint import Complaint
from initscope.service.server import RunningServer
from initscope.service.settings import Settings

_PARALLEL: Final = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`, and the demo's own."""
    add_server(parser)
    parser.add_argument("--exit", action="store_true", help="end after the table instead of serving on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table to FILE, as a list of objects")
    parser.add_argument("--only", metavar="TEXT", default="", help="only runs whose name contains TEXT")


def run(arguments: argparse.Namespace) -> int:
    """0 if every run got the verdict that it deserves, 1 otherwise; a `Complaint` if it cannot start."""
    names = [r.name for r in RUNS if arguments.only in r.name]
    if not names:
        raise Complaint(f"no run's name contains {arguments.only!r}")
    settings = to_settings(arguments)
    # Rich takes a pipe for 80 columns; a log or a file has room for the whole table.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    with RunningServer(settings) as server:
        console.print(f"The collector is on {server.url}; watch it live, logged in, with")
        console.print(f"  {server.login_link}", soft_wrap=True)
        trainings = _train(console, server, settings, names)
        results = outcomes(server.url, server.token, trainings)
        console.print(_table(results))
        if arguments.json is not None:
            arguments.json.write_text(json.dumps([r.as_json() for r in results], indent=1) + "\n")
        _explain(console, results)
        if not arguments.exit:
            console.print(f"Still serving, until Ctrl-C; log in with\n  {server.make_login_link()}", soft_wrap=True)
            _wait_for_ctrl_c()
    return 0 if all(r.is_as_expected for r in results) else 1


def _train(console: Console, server: RunningServer, settings: Settings, names: list[str]) -> list[Training]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, Any] = {}

        def on_step(training: Training) -> None:
            task = tasks.get(training.run.name)
            if task is None:
                task = tasks[training.run.name] = progress.add_task(training.run.title, total=training.run.steps)
            progress.update(task, completed=len(training.losses))

        environment = {"INITSCOPE_URL": server.url, "INITSCOPE_TOKEN": server.token, "INITSCOPE_PROJECT": "demo"}
        return play(names, environment | {"INITSCOPE_HOME": str(settings.home)}, on_step, parallel=_PARALLEL)


def _table(results: list[Outcome]) -> Table:
    table = Table(title="What the diagnosis said, and what the loss did", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("run", min_width=20, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("first finding", min_width=18, overflow="fold")
    table.add_column("layer", min_width=10, overflow="fold")
    for heading in ("found\nat step", "in loss\nat step", "final\nloss"):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in results:
        mark = "[green]✓[/]" if r.is_as_expected else "[bold red]✗[/]"
        colour = {"ok": "green", "warning": "yellow", "critical": "red"}[r.verdict]
        table.add_row(
            mark, r.run.title, f"[{colour}]{r.verdict}[/]",
            f"{r.rule}\n[dim]{r.cause}[/]" if r.rule else "–", r.module_path or "–",
            _cell(r.finding_step), _cell(r.loss_step), f"{r.final_loss:.3g}",
        )  # fmt: skip
    return table


def _cell(value: int | None) -> str:
    return "–" if value is None else str(value)


def _explain(console: Console, results: list[Outcome]) -> None:
    for r in results:
        for problem in r.problems:
            console.print(f"[bold red]✗[/] {r.run.title}: {problem}")
    if all(r.is_as_expected for r in results):
        console.print("[green]✓[/] every verdict is the expected one")


def _wait_for_ctrl_c() -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
