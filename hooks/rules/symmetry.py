"""The rule on units that started equal and, after many updates, still are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, number, redraw_all
from initscope.hooks.rules.signals import is_trained, matrices, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity


def check_persists(window: Window, limits: Limits) -> Iterable[Finding]:
    """Layers whose equal rows have moved far, and together."""
    if window.step - window.baseline_step < limits["updates"] or is_trained(window):
        return
    stuck = [x for x in matrices(window) if not (x.is_head or x.is_table) and _is_stuck(window, x, limits)]
    if not stuck:
        return
    first = stuck[0]
    stats = window.stats(first.weight)
    more = "" if len(stuck) == 1 else f"; so it is in {len(stuck) - 1} more"
    yield Finding(
        rule=SYMMETRY_PERSISTS.id,
        severity=Severity.CRITICAL,
        cause=Cause.CONSTANT_SYMMETRIC,
        step=window.step,
        subject="weights",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"Units of {first.path} started equal, have moved by {number(_way(window, first))} of their size and "
        f"are still equal (|cosine| {_now(window, first):.5f}){more}: nothing tells them apart any more.",
        remedy=redraw_all(stuck, stats.moments.std if stats is not None else None),
        evidence={
            "row_similarity": _now(window, first),
            "way": _way(window, first),
            "layers": listed([x.path for x in stuck]),
        },
    )


def _is_stuck(window: Window, layer: Layer, limits: Limits) -> bool:
    start, stats = window.first(layer.weight), window.stats(layer.weight)
    if start is None or stats is None or (layer.fan_in or 0) < limits["fan_in"]:
        return False
    alike = (start.channels.row_similarity, stats.channels.row_similarity)
    if not all(math.isfinite(x) and x >= limits["similarity"] for x in alike):
        return False
    return _way(window, layer) >= limits["way"]


def _now(window: Window, layer: Layer) -> float:
    stats = window.stats(layer.weight)
    return stats.channels.row_similarity if stats is not None else math.nan


def _way(window: Window, layer: Layer) -> float:
    """Sum of the sizes of the window's updates, in sizes of the weights: units that barely moved cannot have parted."""
    size = rms(window.stats(layer.weight))
    moved = sum(rms(window.stats(layer.update, step)) or 0.0 for step in window.steps)
    return moved / size if size else 0.0


SYMMETRY_PERSISTS: Final = Rule(
    id="symmetry-persists",
    family="weights",
    check=check_persists,
    limits={"similarity": 0.9999, "fan_in": 8, "updates": 20, "way": 0.1},
    needs=(Kind.WEIGHT, Kind.UPDATE),
    explained_by=("constant-weights", "duplicate-units"),
    title="Equal units that stay equal",
    statistic="Rows of a weight matrix with |cosine| of at least `similarity` at the start and still, `updates` steps "
    "later, of at least `fan_in` inputs, while the matrix moved by `way` of its size in the window's updates.",
    harmless="Equal rows whose successors differ part within steps. Layers that hardly move (warm-up, frozen) are not "
    "judged, nor are heads, tables and trained weights.",
    remedy="Draw the layers anew; dropout also parts equal units.",
    source="Symmetry: units with equal weights and equal gradients stay equal for ever.",
)
RULES: Final = (SYMMETRY_PERSISTS,)
