"""Rules on slow drifts that precede trouble: logits that grow, units and samples that become alike. Infos only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.moments import TensorStats
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import code_path, listed, number
from initscope.hooks.rules.signals import at_step, octaves, rms, signal_fraction
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity


def check_logits(window: Window, limits: Limits) -> Iterable[Finding]:
    """Logits whose size has left the range in which a softmax can answer."""
    head = next((x for x in window.model.layers if x.is_head and x.output is not None), None)
    if head is None or not (window.model.description.output_classes or 0) > 1:
        return
    now, start = rms(window.stats(head.output)), rms(window.first(head.output))
    grown = octaves(now / start) if now is not None and start else None
    if now is None or grown is None or now < limits["rms"] or grown < limits["octaves"]:
        return
    stats = window.stats(head.output)
    level = stats.moments.mean if stats is not None else math.nan
    yield Finding(
        rule=LOGIT_DRIFT.id,
        severity=Severity.INFO,
        cause=Cause.NONE,
        step=window.step,
        subject="run",
        module_path=head.path,
        tensor_name=head.output.name if head.output else None,
        kind=Kind.ACTIVATION,
        diagnosis=f"The logits of {head.path} have grown by {grown:.1f} octaves to rms {number(now)} (mean "
        f"{number(level)}): the softmax is all or nothing.",
        remedy="loss = loss + 1e-4 * logits.logsumexp(-1).square().mean()  # keeps log Z near zero",
        evidence={"rms": now, "octaves": grown, "mean": level},
    )


def check_rank(window: Window, limits: Limits) -> Iterable[Finding]:
    """Layers whose units, or whose answers to different samples, have become alike since the start."""
    if window.step - window.baseline_step < limits["after"]:
        return
    layers = [x for x in window.model.layers if not (x.is_head or x.is_table) and window.stats(x.weight) is not None]
    alike = [x for x in layers if _became_alike(window, x, limits)]
    faded = [x for x in layers if _faded(window, x, limits)]
    for found, what in ((alike, "units"), (faded, "samples")):
        if found and len(found) >= limits["share"] * len(layers):
            yield _rank_finding(window, found, what, len(layers))


def _became_alike(window: Window, layer: Layer, limits: Limits) -> bool:
    start, now = (_similarity(s) for s in (window.first(layer.weight), window.stats(layer.weight)))
    return start < limits["distinct"] and now >= limits["alike"]


def _similarity(stats: TensorStats | None) -> float:
    return stats.channels.row_similarity if stats is not None else math.nan


def _faded(window: Window, layer: Layer, limits: Limits) -> bool:
    start = signal_fraction(at_step(window, layer.output, window.baseline_step))
    now = signal_fraction(window.stats(layer.output))
    return start is not None and now is not None and start > 0.0 and now < min(limits["faded"] * start, limits["low"])


def _rank_finding(window: Window, found: list[Layer], what: str, total: int) -> Finding:
    first = found[0]
    words = {
        "units": "have units whose weights have become nearly the same since the start",
        "samples": "tell samples apart far less than at the start",
    }[what]
    return Finding(
        rule=RANK_COLLAPSE.id,
        severity=Severity.INFO,
        cause=Cause.NONE,
        step=window.step,
        subject=what,
        module_path=first.path,
        tensor_name=first.weight.name if what == "units" else first.output.name if first.output else None,
        kind=Kind.WEIGHT if what == "units" else Kind.ACTIVATION,
        diagnosis=f"{len(found)} of {total} hidden layers, {first.path} first, {words}: their rank is falling.",
        remedy=f"# watch {code_path(first.path)}; a lower learning rate or a norm in front of it keeps the rank",
        evidence={"layers": listed([x.path for x in found]), "share": len(found) / total},
    )


LOGIT_DRIFT: Final = Rule(
    id="logit-drift",
    family="trends",
    check=check_logits,
    limits={"rms": 30.0, "octaves": 3.0},
    patience=3,
    needs=(Kind.ACTIVATION,),
    explained_by=("update-ratio", "loss-jump", "activation-runaway", "initial-loss", "embedding-scale"),
    title="Logits that drift away",
    statistic="The head's output has reached rms `rms` and grown by `octaves` since the start.",
    harmless="Models that are sure and right have large logits too. Always an info.",
    remedy="A z-loss, which keeps log Z near zero; a lower learning rate.",
    source="Wortsman et al. 2023: output logits diverge before the loss does.",
)
RANK_COLLAPSE: Final = Rule(
    id="rank-collapse",
    family="trends",
    check=check_rank,
    limits={"after": 20, "share": 0.25, "alike": 0.98, "distinct": 0.8, "faded": 0.25, "low": 0.05},
    patience=5,
    needs=(Kind.WEIGHT, Kind.ACTIVATION),
    explained_by=("signal-collapse", "duplicate-units", "constant-weights", "update-ratio", "dead-units"),
    title="Layers that lose rank",
    statistic="Over `share` of the hidden layers after `after` steps: the largest |cosine| among rows has risen from "
    "under `distinct` to `alike`, or signal_fraction has fallen under `faded` of the start's and under `low`.",
    harmless="A direction that all samples share is learned first, and often left again. Always an info.",
    remedy="Watch them; a lower learning rate or a norm keeps the rank.",
    source="Falling stable rank precedes loss spikes in several reports; row cosines are what is recorded here.",
)
RULES: Final = (LOGIT_DRIFT, RANK_COLLAPSE)
