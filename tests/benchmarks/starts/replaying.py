"""Replays every tape of a folder by some rules, and remembers what each rule said of each step."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from initscope.hooks.rules import RULES, Finding, Limits, Rule, Window
from tests.benchmarks.starts.recorder import tape_path
from tests.benchmarks.starts.sources import OWN_LABELS, SEEDS, Labelled, labelled
from tests.benchmarks.starts.tape import Tape, load, replay

Overrides = Mapping[str, Limits]
"""Limits by rule and name, in place of the rule's own."""
Verdicts = list[dict[str, Any]]
"""One a seed."""


def cases_of(folder: Path, only: str = "") -> list[Labelled]:
    """Labelled cases of both sources that have tapes in `folder`."""
    found = [
        *(labelled("own", OWN_LABELS) if OWN_LABELS.is_file() else ()),
        *(labelled("dev", path) if (path := folder / "dev" / "labels.json").is_file() else ()),
    ]
    return [c for c in found if only in f"{c.source}/{c.id}" and all(p.is_file() for p in _paths(folder, c))]


def _paths(folder: Path, case: Labelled) -> list[Path]:
    return [tape_path(folder / case.source, case.id, seed) for seed in SEEDS]


def with_limits(overrides: Overrides, rules: Sequence[Rule] = RULES) -> list[Rule]:
    """Rules with other limits; `KeyError` for a rule or a limit that does not exist."""
    known = {rule.id: rule for rule in rules}
    for rule_id, limits in overrides.items():
        if rule_id not in known:
            raise KeyError(f"there is no rule {rule_id}")
        if missing := set(limits) - set(known[rule_id].limits):
            raise KeyError(f"{rule_id} has no limit {', '.join(sorted(missing))}")
    return [replace(rule, limits={**rule.limits, **overrides.get(rule.id, {})}) for rule in rules]


@dataclass
class _Run:
    """One run in memory: its tapes, the windows that rules saw, and what they said, by rule, limits and window."""

    tapes: list[Tape]
    windows: dict[Any, Window] = field(default_factory=dict)
    said: dict[Any, tuple[Finding, ...]] = field(default_factory=dict)
    verdicts: dict[Any, dict[str, Any]] = field(default_factory=dict)
    """By the rules that speak otherwise than those of the catalogue, with their limits; () for none."""


class Replayer:
    """The tapes of some cases in memory. What a rule says of a step with some limits is computed once."""

    def __init__(self, folder: Path, cases: Iterable[Labelled]) -> None:
        self._runs = {
            f"{case.source}/{case.id}": [_Run(load(path).tapes) for path in _paths(folder, case)] for case in cases
        }

    def verdicts(self, case: Labelled, overrides: Overrides) -> Verdicts:
        """One verdict a seed."""
        changed = [rule for rule in with_limits(overrides) if rule.id in overrides]
        return [self._verdict(run, changed) for run in self._runs[f"{case.source}/{case.id}"]]

    def remember(self, cases: Iterable[Labelled]) -> None:
        """Replays the rules as they are: what other limits do not change need not be replayed again."""
        for case in track(list(cases), "replay", console=Console(stderr=True)):
            for run in self._runs[f"{case.source}/{case.id}"]:
                run.verdicts[()] = replay(run.tapes, [_remembering(rule, run) for rule in RULES])

    def _verdict(self, run: _Run, changed: Sequence[Rule]) -> dict[str, Any]:
        # Of a run that nothing is remembered of, nobody knows who speaks otherwise.
        others = {rule.id: rule for rule in changed if not run.verdicts or self._speaks_otherwise(run, rule)}
        key = tuple((rule.id, *rule.limits.values()) for rule in others.values())
        if key not in run.verdicts:
            rules = [_remembering(others.get(rule.id, rule), run) for rule in RULES]
            verdict = replay(run.tapes, rules)
            if () not in run.verdicts:
                return verdict
            run.verdicts[key] = verdict
        return run.verdicts[key]

    def _speaks_otherwise(self, run: _Run, rule: Rule) -> bool:
        """Whether a rule with other limits says anything else of any step that it judges."""
        own = next(known for known in RULES if known.id == rule.id)
        return any(
            _gist(run.said[rule.id, *own.limits.values(), at]) != _gist(_say(rule, run, window, at))
            for at, window in run.windows.items() if (rule.id, *own.limits.values(), at) in run.said
        )  # fmt: skip


def _remembering(rule: Rule, run: _Run) -> Rule:
    def check(window: Window, _limits: Limits) -> tuple[Finding, ...]:
        # Rules are pure: model, step and limits decide. Parts of a model are told apart by their tensors.
        at = (window.step, min(window.model.tensors, default=0), len(window.model.tensors))
        if at not in run.windows:
            # The diagnosis goes on writing into the numbers that were logged.
            run.windows[at] = replace(window, scalars={name: list(x) for name, x in window.scalars.items()})
        return _say(rule, run, run.windows[at], at)

    return replace(rule, check=check)


def _say(rule: Rule, run: _Run, window: Window, at: Any) -> tuple[Finding, ...]:
    key = (rule.id, *rule.limits.values(), at)
    if key not in run.said:
        run.said[key] = tuple(rule.check(window, rule.limits))
    return run.said[key]


def _gist(found: Sequence[Finding]) -> list[tuple[Any, ...]]:
    """What of findings decides a verdict."""
    return [(f.fingerprint, f.severity, f.cause, f.module_path) for f in found]


def replay_all(
    folder: Path, cases: Sequence[Labelled], overrides: Overrides, processes: int = 1
) -> dict[str, Verdicts]:
    """Verdicts by source/id."""
    jobs = [(folder, case, overrides) for case in cases]
    if processes == 1:
        done = map(_one, jobs)
        return dict(track(done, "replay", len(jobs), console=Console(stderr=True)))
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        found = pool.imap_unordered(_one, jobs, chunksize=4)
        return dict(track(found, "replay", len(jobs), console=Console(stderr=True)))


def _one(job: tuple[Path, Labelled, Overrides]) -> tuple[str, Verdicts]:
    folder, case, overrides = job
    return f"{case.source}/{case.id}", Replayer(folder, [case]).verdicts(case, overrides)
