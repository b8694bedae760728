"""`initscope serve`: the collector in the foreground, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from initscope.service.cli.options import add_server, to_settings
from initscope.service.server import RunningServer, run_server
from initscope.service.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_server(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 after a clean end; a `Complaint` if it cannot start."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    settings = to_settings(arguments)
    _spare_the_garbage_collector()
    with until_signal() as stop:
        run_server(settings, ready=lambda server: _announce(settings, server), stop=stop)
    return 0


def _spare_the_garbage_collector() -> None:
    """A batch makes thousands of tuples, none of them in a cycle: looking for cycles that often costs a sixth of it."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@contextmanager
def until_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of ending the process, for the length of the block."""
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(settings: Settings, server: RunningServer) -> None:
    print(f"initscope serves {server.url}", flush=True)
    if settings.on_loopback:
        print(f"log in once with {server.login_link}", flush=True)
    if settings.token is None:
        print(f"the token for training jobs is in {settings.token_file}", flush=True)
