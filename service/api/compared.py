"""What the read API says of comparisons: plain data for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from initscope.hooks.comparison import (
    Comparison,
    Coordinate,
    CoordinateCheck,
    Difference,
    KindSummary,
    SchemePair,
    Slope,
    Snapshot,
)
from initscope.hooks.moments import TensorStats
from initscope.hooks.schemes import Scheme
from initscope.hooks.vocabulary import Statistic
from initscope.service.api import schemas
from initscope.service.api.schemas import Json
from initscope.service.store.derived import values_of
from initscope.service.store.read_comparison import Moment
from initscope.service.store.read_findings import FindingHead, summarize
from initscope.service.store.read_runs import RunHead

_SHOWN = (Statistic.RMS, Statistic.STD, Statistic.MEAN, Statistic.COUNT, Statistic.NONFINITE_COUNT)


def side(run: RunHead, moment: Moment, findings: Sequence[FindingHead]) -> Json:
    """One of the runs: who it is, what stands against it, and the step that is compared."""
    return {
        "id": run.id,
        "project": run.project,
        "name": run.name,
        "attempt": run.attempt,
        "step": moment.step,
        **recognised(moment.snapshot),
        "verdict": summarize(findings).verdict.value,
        "findings": [{**schemas.finding_line(f), "consequences": len(f.consequences)} for f in findings],
        "scalars": dict(moment.scalars),
    }


def recognised(snapshot: Snapshot) -> Json:
    """What a run's weights say of where they come from; nulls if nobody asked."""
    found = snapshot.recognition
    return {"scheme": found and found.scheme, "is_trained": found and found.is_trained}


def comparison(found: Comparison, limit: int) -> Json:
    """Differences in forward order; of more than `limit` the largest, in the same order."""
    shown = found.differences
    if len(shown) > limit:
        largest = sorted(range(len(shown)), key=lambda i: -shown[i].size)[:limit]
        shown = tuple(shown[i] for i in sorted(largest))
    return {
        "is_equal": found.is_equal,
        "threshold": found.threshold,
        "kinds": [kind_summary(found, summary) for summary in found.kinds],
        "differences": [difference(found, d) for d in shown],
        "left_out": len(found.differences) - len(shown),
        "schemes": [_schemes(found, pair) for pair in found.schemes[:limit]],
        "only_a": list(found.pairing.only_a[:limit]),
        "only_b": list(found.pairing.only_b[:limit]),
    }


def kind_summary(found: Comparison, summary: KindSummary) -> Json:
    """All tensors of a kind in a few numbers."""
    return {
        "kind": summary.kind.value,
        "compared": summary.compared,
        "parted": summary.parted,
        "median_octaves": summary.median_octaves,
        "first": None if summary.first is None else difference(found, summary.first),
        "largest": None if summary.largest is None else difference(found, summary.largest),
    }


def difference(found: Comparison, d: Difference) -> Json:
    """A tensor beside its counterpart."""
    pair = found.pairing.modules[d.layer]
    return {
        "layer": d.layer,
        "module_path": pair.a,
        "module_path_b": pair.b,
        "name": d.a.name,
        "name_b": d.b.name,
        "kind": d.kind.value,
        "role": d.a.role.value,
        "depth": d.a.depth,
        "shape": d.a.shape,
        "shape_b": d.b.shape,
        "a": _record(d.stats_a),
        "b": _record(d.stats_b),
        "octaves": d.octaves,
        "luck": d.luck,
        "parts": d.parts,
    }


def _schemes(found: Comparison, pair: SchemePair) -> Json:
    modules = found.pairing.modules[pair.layer]
    return {
        "module_path": modules.a,
        "module_path_b": modules.b,
        "name": pair.name,
        "a": _scheme(pair.a),
        "b": _scheme(pair.b),
        "is_same": pair.is_same,
    }


def _scheme(scheme: Scheme) -> Json:
    return {
        "family": scheme.family.value,
        "name": scheme.name,
        "formula": scheme.formula,
        "std": scheme.std,
        "expected_std": scheme.expected_std,
        "confidence": scheme.confidence,
    }


def _record(stats: TensorStats | None) -> Json | None:
    return None if stats is None else values_of(stats, _SHOWN)


def coordinate_check(found: CoordinateCheck, limit: int) -> Json:
    """Activations in forward order, with their slopes by step."""
    return {
        "is_stable": not found.growing and bool(found.coordinates),
        "diagnosis": found.diagnosis,
        "growing": len(found.growing),
        "coordinates": [_coordinate(c) for c in found.coordinates[:limit]],
    }


def _coordinate(c: Coordinate) -> Json:
    return {
        "module_path": c.module_path,
        "name": c.name,
        "role": c.role.value,
        "depth": c.depth,
        "grows_from": c.grows_from,
        "slopes": [{**_slope(slope), "rms": list(rms)} for slope, rms in zip(c.slopes, c.rms, strict=True)],
    }


def _slope(s: Slope) -> Json:
    return asdict(s)
