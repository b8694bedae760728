"""Runs labelled trainings under the adapter and keeps the tapes of what `watch` told its diagnosis."""

from __future__ import annotations

import math
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.progress import track

from tests.benchmarks.startbench_adapter import StartbenchMonitor, make_monitor
from tests.benchmarks.starts import sources
from tests.benchmarks.starts.sources import SEEDS, Source
from tests.benchmarks.starts.tape import Recorder, Run, Tape, recording, save
from tests.benchmarks.starts.training import silent

STEPS: Final = 60
"""Steps that are watched, as startbench's harness does."""

_Job = tuple[Path | None, str, int, Path]


def record(
    source: Source, folder: Path, *, startbench: Path | None, only: str = "", missing: bool = False, processes: int = 1
) -> list[str]:
    """Writes a tape for each case and seed under folder/source; returns the runs in which the adapter had trouble.

    `missing`: only those that are not there. What a probe measures changes: then all are to be recorded again.
    """
    kept = folder / source.name
    kept.mkdir(parents=True, exist_ok=True)
    if source.labels != sources.OWN_LABELS:
        shutil.copy(source.labels, kept / "labels.json")
    jobs: list[_Job] = [
        (startbench, case_id, seed, tape_path(kept, case_id, seed))
        for case_id in source.ids if only in case_id for seed in SEEDS
    ]  # fmt: skip
    jobs = [job for job in jobs if not (missing and job[-1].is_file())]
    done = track(_run(jobs, processes), f"watch {source.name}", len(jobs), console=Console(stderr=True))
    return [trouble for trouble in done if trouble]


def tape_path(kept: Path, case_id: str, seed: int) -> Path:
    """The file of one run's tapes."""
    return kept / f"{case_id.replace('/', '__')}.{seed}.pickle"


def _run(jobs: list[_Job], processes: int) -> Iterator[str]:
    if processes == 1:
        yield from map(_one, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_one, jobs, chunksize=3)


_built: dict[Path | None, Source] = {}


def _one(job: _Job) -> str:
    startbench, case_id, seed, path = job
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if startbench not in _built:
        _built[startbench] = sources.own() if startbench is None else sources.startbench(startbench)
    run = watched(_built[startbench], case_id, seed)
    save(path, run)
    return f"{case_id} seed {seed}: {run.trouble}" if run.trouble else ""


def watched(source: Source, case_id: str, seed: int, steps: int = STEPS) -> Run:
    """Trains one case to its end, the first `steps` steps under the adapter: one training gives tapes and label."""
    ready = source.build(case_id, seed)
    losses: list[float] = []
    with recording():
        monitor = make_monitor(ready.model, ready.optimizer, ready.info)
        for step in range(steps):
            monitor.before_step(step)
            losses.append(ready.step(step, lambda told, step=step: monitor.after_backward(step, told)))  # type: ignore[misc]
            monitor.after_step(step, losses[-1])
            if not math.isfinite(losses[-1]):
                break
        tapes = tapes_of(monitor)
        trouble = str(monitor.verdict().get("error", ""))
    while len(losses) < ready.steps and math.isfinite(losses[-1]):
        losses.append(ready.step(len(losses), silent))
    return Run(tapes, losses, trouble)


def tapes_of(monitor: StartbenchMonitor) -> list[Tape]:
    """The tapes of an adapter's watches."""
    found = []
    for part, watch in monitor._monitors.items():
        if isinstance(watch._local, Recorder):
            watch._local.tape.part = part
            found.append(watch._local.tape)
    return found
