"""The demo's trainings as processes of their own, a few at a time."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from initscope.hooks.demo import catalogue
from initscope.hooks.encoding import number_from_json


@dataclass
class Training:
    """One training: its run's identity, its losses, and how its process ended."""

    run: catalogue.DemoRun
    run_id: str
    losses: list[float] = field(default_factory=list)
    trivial_loss: float = 0.0
    exit_status: int | None = None
    errors: str = ""


def play(
    names: Sequence[str], environment: Mapping[str, str], on_step: Callable[[Training], None], *, parallel: int
) -> list[Training]:
    """Runs the trainings, `parallel` at a time, in order; returns when all have ended.

    `environment` is added to each process's; `on_step` is called from the reading threads.
    """
    mark = secrets.token_hex(3)
    trainings = [Training(catalogue.find(name), f"{name}-{mark}") for name in names]
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(lambda training: _follow(training, environment, on_step), trainings))
    return trainings


def _follow(training: Training, environment: Mapping[str, str], on_step: Callable[[Training], None]) -> None:
    own = {
        "INITSCOPE_RUN": training.run.title,
        "INITSCOPE_RUN_ID": training.run_id,
        "INITSCOPE_ON_FINDING": "",  # the bad starts are to be seen to their end
        # One thread each: two trainings at a time share two cores better than they fight for them.
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "initscope.hooks.demo.train", training.run.name]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, env={**os.environ, **environment, **own}, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None  # noqa: S101 - stdout=PIPE
            for line in process.stdout:
                _read(training, line)
                on_step(training)
        except BaseException:
            process.terminate()
            raise
        training.exit_status = process.wait()
        errors.seek(0)
        training.errors = errors.read()[-2000:].decode(errors="replace")


def _read(training: Training, line: str) -> None:
    said = json.loads(line)
    if "loss" in said:
        training.losses.append(number_from_json(said["loss"]))
    else:
        training.trivial_loss = said["trivial_loss"]
