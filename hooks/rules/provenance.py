"""The rule on models that are partly trained: which matrices of a trained model are fresh."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, weight_code
from initscope.hooks.rules.window import Window
from initscope.hooks.schemes import Scheme
from initscope.hooks.vocabulary import Cause, Kind, Severity

_ADDED: Final = re.compile(
    r"lora|adapter|prompt|prefix|head|classifier|score|decoder|pooler|qa_outputs|cls\b|proj(ection)?_out|embed",
    re.IGNORECASE,
)
"""What is usually added to a trained model."""


def check_provenance(window: Window, limits: Limits) -> Iterable[Finding]:
    """Fresh matrices inside a model that was trained; and a model that was said to be trained and is not."""
    judged = [x for x in window.model.layers if x.weight.key in window.recognition.trained and _is_large(x, limits)]
    trained = [x for x in judged if window.recognition.trained[x.weight.key] >= limits["trained"]]
    fresh = [x for x in judged if _is_fresh(window, x, limits)]
    if not judged or not fresh:
        return
    if window.model.description.pretrained and _size(fresh) > limits["share"] * _size(judged):
        yield _finding(window, fresh, len(judged), Severity.CRITICAL, "was said to be trained, and looks freshly drawn")
        return
    if _size(trained) <= limits["majority"] * _size(judged):
        return
    inner = [x for x in fresh if not _is_added(x, judged)]
    if inner:
        what = "lies inside a trained model and looks freshly drawn"
        yield _finding(window, inner, len(judged), Severity.WARNING, what)
    else:
        yield _finding(
            window, fresh, len(judged), Severity.INFO, "is new in a trained model, as heads and adapters are"
        )


def _is_large(layer: Layer, limits: Limits) -> bool:
    return math.prod(layer.weight.shape) >= limits["elements"]


def _is_fresh(window: Window, layer: Layer, limits: Limits) -> bool:
    """Whether it looks drawn by a known formula: weights that training hardly moved look like any draw."""
    scheme: Scheme | None = window.recognition.by_key.get(layer.weight.key)
    known = scheme is not None and scheme.family.is_drawn and scheme.expected_std is not None
    return known and window.recognition.trained[layer.weight.key] <= limits["fresh"]


def _is_added(layer: Layer, judged: Sequence[Layer]) -> bool:
    """Whether it is a head, an adapter, or comes after everything that was trained."""
    if layer.is_head or layer.is_table or not layer.weight.trainable or _ADDED.search(layer.path):
        return True
    last = max((x.depth for x in judged if x.depth is not None), default=0)
    return layer.depth is None or layer.depth >= last


def _size(layers: Sequence[Layer]) -> int:
    return sum(math.prod(x.weight.shape) for x in layers)


def _finding(window: Window, fresh: Sequence[Layer], judged: int, severity: Severity, what: str) -> Finding:
    first = fresh[0]
    scheme = window.recognition.by_key[first.weight.key]
    more = "" if len(fresh) == 1 else f", and so do {len(fresh) - 1} more of {judged} matrices"
    info = severity is Severity.INFO
    return Finding(
        rule=MIXED_PROVENANCE.id,
        severity=severity,
        cause=Cause.NONE if info else Cause.MIXED_PROVENANCE,
        step=window.step,
        subject="run",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{first.path} {what} ({scheme}){more}.",
        remedy="# nothing to do for layers that are meant to be new"
        if info
        else "missing, unexpected = model.load_state_dict(state, strict=False)\n"
        f"print(missing, unexpected)  # {weight_code(first)} should not be among them",
        evidence={
            "fresh_matrices": float(len(fresh)),
            "matrices": float(judged),
            "trained_share": window.recognition.trained_share,
            "layers": listed([x.path for x in fresh]),
        },
    )


MIXED_PROVENANCE: Final = Rule(
    id="mixed-provenance",
    family="provenance",
    check=check_provenance,
    limits={"elements": 1024, "trained": 0.9, "fresh": 0.1, "majority": 0.5, "share": 0.8},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    title="Fresh weights in a trained model",
    statistic="More than `majority` of the elements of the matrices (of at least `elements` elements) are trained with "
    "a probability of at least `trained`; those that a known formula explains, with one of at most `fresh`, are "
    "listed: info for heads, adapters, tables and what comes last, warning for inner layers. Critical where the run is "
    "declared trained and more than `share` of its elements are fresh.",
    harmless="A new head or adapter is why one fine-tunes: info. Layers that training hardly moved look fresh only if "
    "a formula still fits.",
    remedy="Print what `load_state_dict(strict=False)` leaves out, and compare its names.",
    source="Trained matrices have singular values, norms and tails that no draw has (schemes.provenance).",
)
RULES: Final = (MIXED_PROVENANCE,)
