"""Where labelled trainings come from: our own catalogue, and startbench's development set in a folder."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from tests.benchmarks.starts.labels import Outcome

SEEDS: Final = (0, 1, 2)
OWN_LABELS: Final = Path(__file__).with_name("labels.json")


@dataclass(frozen=True)
class Labelled:
    """What is known of one case."""

    id: str
    source: str
    family: str
    outcome: Outcome
    cause: str
    also: tuple[str, ...]
    layers: tuple[str, ...]
    learned_in_half: int
    """Seeds that reached the half-way loss."""
    least_gain: float
    """The smallest gain of a seed, as a share of the twin's."""

    @property
    def is_late(self) -> bool:
        """Learned first and failed later: most seeds reached the half-way loss. No early sign is owed."""
        return self.outcome is Outcome.FAILED and self.learned_in_half >= 2


@dataclass(frozen=True)
class Ready:
    """A training that is built: what the adapter is given, and one step of its loop."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    info: Mapping[str, Any]
    step: Callable[[int, Callable[[float], None]], float]
    steps: int
    """How long the training is; 0: no longer than it is watched."""


@dataclass(frozen=True)
class Source:
    """Cases by id, how to build one with a seed, and where the labels are."""

    name: str
    ids: tuple[str, ...]
    build: Callable[[str, int], Ready]
    labels: Path


def own() -> Source:
    """The catalogue of this folder."""
    from tests.benchmarks.starts.catalogue import CASES
    from tests.benchmarks.starts.training import take_step

    def build(case_id: str, seed: int) -> Ready:
        training = CASES[case_id].build(seed)
        optimizers = {"main": training.optimizer, **training.others}
        info = {"optimizers": optimizers, "loss_fn": training.loss_fn, "T": CASES[case_id].group.steps}
        steps = CASES[case_id].group.steps
        return Ready(training.model, training.optimizer, info, partial(take_step, training), steps)

    return Source("own", tuple(CASES), build, OWN_LABELS)


def startbench(folder: Path) -> Source:
    """The development set in `folder`; `FileNotFoundError` where it is not."""
    labels = folder / "startbench" / "dev" / "labels.json"
    if not labels.is_file():
        raise FileNotFoundError(f"{folder} is no folder of startbench: {labels} is missing")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    core = importlib.import_module("startbench.core")
    cases = {case.id: case for case in core.load("dev")}

    def build(case_id: str, seed: int) -> Ready:
        bundle = cases[case_id].build(seed)
        optimizers = {"main": bundle.optimizer, **bundle.extra_optimizers}
        info = {"optimizers": optimizers, "loss_fn": bundle.loss_fn, "T": cases[case_id].T}
        return Ready(bundle.model, bundle.optimizer, info, lambda _, told: core.train_step(bundle, told), 0)

    return Source("dev", tuple(cases), build, labels)


def labelled(name: str, path: Path) -> Iterator[Labelled]:
    """The labels of a source; both files name their fields alike."""
    for case_id, told in json.loads(path.read_text())["cases"].items():
        yield Labelled(
            id=case_id,
            source=name,
            family=told["family"],
            outcome=Outcome(told["label"]),
            cause=told["cause"],
            also=tuple(told["causes_ok"]),
            layers=tuple(told["faulty_layers"]),
            learned_in_half=sum(seed["t_half"] is not None for seed in told["seeds"].values()),
            least_gain=_least_gain(told),
        )


def _least_gain(told: Mapping[str, Any]) -> float:
    whole = told["trivial"] - told["twin_final"]
    ends = [seed["final"] for seed in told["seeds"].values()]
    return -math.inf if None in ends else min(told["trivial"] - end for end in ends) / whole
