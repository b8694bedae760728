"""What the hooks cost the training thread: weights, gradients, activations, updates, on a processor, one thread.

Two ways side by side. Self-timed: time inside our hooks, plus 1.5 µs for each that fired, as a share of the bare step;
it hardly depends on the machine's noise. Pairs: whole steps of the watched model against its bare twin, interleaved,
with a second bare twin as control. The job sends to a real collector.
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
    """Time inside our hooks and how many fired; hooks inside hooks count once."""

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
        started = time.perf_counter()
        try:
            original(self, *args, **kwargs)
        finally:
            clock.depth -= 1
            if clock.depth == 0:
                clock.seconds += time.perf_counter() - started

    Callback.__call__ = timed  # type: ignore[method-assign]
    try:
        yield clock
    finally:
        Callback.__call__ = original  # type: ignore[method-assign]


def seconds_of(bench: Bench, steps: int) -> float:
    """Seconds of so many training steps."""
    started = time.perf_counter()
    for _ in range(steps):
        bench.step()
    return time.perf_counter() - started


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
            seconds_of(bench, 2)
        pairs, same, bare_seconds, own = [], [], [], []
        for number in range(rounds):
            order = (bare, control, watched) if number % 2 else (watched, control, bare)
            taken = {id(bench): seconds_of(bench, PER_ROUND) for bench in order}
            bare_seconds.append(taken[id(bare)])
            pairs.append(100 * (taken[id(watched)] / taken[id(bare)] - 1))
            same.append(100 * (taken[id(control)] / taken[id(bare)] - 1))
            with timed_hooks() as clock:
                seconds_of(watched, 1)
            own.append(clock.cost)
        monitor.close()
        step = median_and_spread(bare_seconds)[0] / PER_ROUND
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
            seconds_of(bench, 2)
        started = time.perf_counter()
        monitor = attach(watched.model, run=f"{name}, default schedule")
        attached = time.perf_counter() - started
        totals = {id(bare): 0.0, id(control): 0.0, id(watched): 0.0}
        first = 0.0
        with timed_hooks() as clock:
            for number in range(steps):
                for bench in (bare, control, watched) if number % 2 else (watched, control, bare):
                    taken = seconds_of(bench, 1)
                    totals[id(bench)] += taken
                    if number == 0 and bench is watched:
                        first = taken
        monitor.close()
        b, c, w = totals.values()
        share = 100 * (clock.cost + attached) / b
        step = b / steps
        table.rows.append(
            (name, 1e3 * step, 1e3 * attached, 1e3 * (first - step), share, 100 * (w / b - 1), 100 * (c / b - 1))
        )
    return table
