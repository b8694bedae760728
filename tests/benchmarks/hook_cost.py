"""What the hooks cost the training thread: weights, gradients, activations, updates, on a processor, one thread.

Two ways side by side. Self-timed: processor time of the training thread inside our hooks, plus 1.5 µs for each that
fired, as a share of the bare step's; it hardly depends on what else the machine does. Pairs: whole steps of the watched
model against its bare twin by the wall clock, interleaved, with a second bare twin as control; they include the sender
thread's share of the interpreter. The job sends to a real collector.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from initscope.hooks import watch
from initscope.hooks.probe.hooking import Callback
from tests.benchmarks.collector import TOKEN, collector
from tests.benchmarks.networks import NETWORKS, Bench
from tests.benchmarks.report import Table, median_and_spread

HOOK_SECONDS = 1.5e-6
"""What torch itself takes to call a hook; part of our cost, outside of our code."""
DEFAULT_STEPS = 300
PER_ROUND = 4


def run(*, quick: bool) -> Iterator[Table]:
    """Two tables: statistics at every step, and the default schedule."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, collector(f"sqlite:///{folder}/bench.db", Path(folder)) as server:
        attach = partial(watch, url=server.url, token=TOKEN)
        yield every_step(attach, rounds=3 if quick else 11)
        yield default_schedule(attach, steps=40 if quick else DEFAULT_STEPS)


@dataclass
class Clock:
    """Processor time inside our hooks and how many fired; hooks inside hooks count once."""

    seconds: float = 0.0
    hooks: int = 0
    depth: int = 0

    @property
    def cost(self) -> float:
        """Seconds that the training thread paid."""
        return self.seconds + self.hooks * HOOK_SECONDS


@contextmanager
def timed_hooks() -> Iterator[Clock]:
    """Times every hook of ours while the block runs."""
    clock, original = Clock(), Callback.__call__

    def timed(self: Callback, *args: Any, **kwargs: Any) -> None:
        clock.hooks += 1
        clock.depth += 1
        started = time.thread_time()
        try:
            original(self, *args, **kwargs)
        finally:
            clock.depth -= 1
            if clock.depth == 0:
                clock.seconds += time.thread_time() - started

    Callback.__call__ = timed  # type: ignore[method-assign]
    try:
        yield clock
    finally:
        Callback.__call__ = original  # type: ignore[method-assign]


@dataclass
class Taken:
    """What training steps took: by the wall clock, and of the thread's processor time."""

    wall: float = 0.0
    thread: float = 0.0

    def __iadd__(self, other: Taken) -> Taken:
        self.wall += other.wall
        self.thread += other.thread
        return self


def run_steps(bench: Bench, steps: int) -> Taken:
    """Runs so many training steps."""
    wall, thread = time.perf_counter(), time.thread_time()
    for _ in range(steps):
        bench.step()
    return Taken(time.perf_counter() - wall, time.thread_time() - thread)


def every_step(attach: Callable[..., Any], rounds: int) -> Table:
    """Cost when every step is sampled."""
    table = Table(
        "Hook cost, statistics of every tensor at every step",
        ("network", "bare step, ms", "self-timed, % of it", "pairs, %", "± half the quartiles", "A/A, %"),
        note=f"`make bench ARGS=hook_cost`: one thread; medians of {rounds} interleaved rounds of {PER_ROUND} steps.",
    )
    for name, build in NETWORKS.items():
        bare, control, watched = build(), build(), build()
        monitor = attach(watched.model, run=f"{name}, every step", schedule=1)
        for bench in (bare, control, watched):
            run_steps(bench, 2)
        pairs, same, bare_seconds, own = [], [], [], []
        for number in range(rounds):
            order = (bare, control, watched) if number % 2 else (watched, control, bare)
            taken = {id(bench): run_steps(bench, PER_ROUND) for bench in order}
            bare_seconds.append(taken[id(bare)].thread / PER_ROUND)
            pairs.append(100 * (taken[id(watched)].wall / taken[id(bare)].wall - 1))
            same.append(100 * (taken[id(control)].wall / taken[id(bare)].wall - 1))
            with timed_hooks() as clock:
                run_steps(watched, 1)
            own.append(clock.cost)
        monitor.close()
        step = median_and_spread(bare_seconds)[0]
        share = 100 * median_and_spread(own)[0] / step
        table.rows.append((name, 1e3 * step, share, *median_and_spread(pairs), median_and_spread(same)[0]))
    return table


def default_schedule(attach: Callable[..., Any], steps: int) -> Table:
    """Cost over the first steps with the default schedule, attaching included."""
    table = Table(
        f"Hook cost, default schedule, first {steps} steps",
        (
            "network",
            "bare step, ms",
            "attach, ms",
            "first step, ms more",
            "self-timed, % of all steps",
            "pairs, %",
            "A/A, %",
        ),
        note="Steps of the watched model, its bare twin and a second bare twin alternate.",
    )
    for name, build in NETWORKS.items():
        bare, control, watched = build(), build(), build()
        for bench in (bare, control):
            run_steps(bench, 2)
        started = time.thread_time()
        monitor = attach(watched.model, run=f"{name}, default schedule")
        attached = time.thread_time() - started
        totals = {id(bench): Taken() for bench in (bare, control, watched)}
        with timed_hooks() as clock:
            first = run_steps(watched, 1).thread
            for number in range(1, steps):
                for bench in (bare, control, watched) if number % 2 else (watched, control, bare):
                    totals[id(bench)] += run_steps(bench, 1)
        monitor.close()
        b, c, w = totals.values()
        step = b.thread / (steps - 1)
        share = 100 * (clock.cost + attached) / (steps * step)
        pairs = (100 * (w.wall / b.wall - 1), 100 * (c.wall / b.wall - 1))
        table.rows.append((name, 1e3 * step, 1e3 * attached, 1e3 * (first - step), share, *pairs))
    return table
