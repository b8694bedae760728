"""Reads what became of each recorded case off its losses, and writes it: `labels.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from initscope.hooks.demo.judge import Twin, final_loss, loss_step
from tests.benchmarks.starts.case import Case
from tests.benchmarks.starts.catalogue import CASES
from tests.benchmarks.starts.labels import Outcome, Yardstick, label, outcome, step_below, troubles, yardstick
from tests.benchmarks.starts.recorder import tape_path
from tests.benchmarks.starts.sources import SEEDS
from tests.benchmarks.starts.tape import load

Curves = dict[int, list[float]]


def write(labels: Path, tapes: Path, *, only: str = "") -> list[str]:
    """Labels of the groups that are recorded in `tapes` and have `only` in their name; returns what looks wrong."""
    groups: dict[str, list[Case]] = {}
    for case in CASES.values():
        if only in case.group.name and all(tape_path(tapes, case.id, seed).is_file() for seed in SEEDS):
            groups.setdefault(case.group.name, []).append(case)
    told = json.loads(labels.read_text())["cases"] if labels.is_file() else {}
    wrong: list[str] = []
    for name, cases in groups.items():
        curves = {case.id: {seed: load(tape_path(tapes, case.id, seed)).losses for seed in SEEDS} for case in cases}
        try:
            found, troubles_of_group = _label_group(cases, curves)
        except ValueError as error:
            found, troubles_of_group = {}, [str(error)]
        told |= found
        wrong += [f"{name}: {trouble}" for trouble in troubles_of_group]
    labels.write_text(_text({case_id: told[case_id] for case_id in CASES if case_id in told}))
    return wrong


def _text(cases: Mapping[str, Any]) -> str:
    """One line a case, so that a change shows which label changed."""
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(told)}" for name, told in cases.items())
    return f'{{"cases": {{\n{lines}\n}}}}\n'


def _label_group(cases: list[Case], curves: Mapping[str, Curves]) -> tuple[dict[str, Any], list[str]]:
    group = cases[0].group
    trivial = group.data.trivial
    twin = yardstick([list(curves[c.id].values()) for c in cases if c.reference], trivial)
    labels = {case.id: _describe(case, curves[case.id], twin) for case in cases}
    wrong = troubles(twin, group.steps, trivial)
    wrong += [
        f"the reference {case.name} came out {labels[case.id]['label']}"
        for case in cases if case.reference and labels[case.id]["label"] != Outcome.HEALTHY
    ]  # fmt: skip
    return labels, wrong


def _describe(case: Case, curves: Curves, twin: Yardstick) -> dict[str, Any]:
    steps, trivial = case.group.steps, case.group.data.trivial
    outcomes = {str(seed): outcome(losses, steps, trivial, twin) for seed, losses in sorted(curves.items())}
    judge = Twin(twin.final, twin.gain, twin.half_way)
    return {
        "label": label(outcomes).value,
        "family": case.group.family,
        "cause": case.cause,
        "causes_ok": list(case.also),
        "faulty_layers": list(case.layers),
        "reference": case.reference,
        "harmless": case.harmless,
        "steps": steps,
        "trivial": _short(trivial),
        "twin_final": _short(twin.final),
        "twin_half_way": twin.half_way,
        "seeds": {
            str(seed): {
                "outcome": outcomes[str(seed)].value,
                "first": _short(losses[0]),
                "final": _short(final_loss(losses)),
                "t_half": step_below(losses, twin.level),
                "loss_step": loss_step(losses, trivial, judge) if outcomes[str(seed)] is Outcome.FAILED else None,
            }
            for seed, losses in sorted(curves.items())
        },
    }


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
