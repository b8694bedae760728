"""Rules on attention logits, seen through the queries and keys that make them, or predicted from fused weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.moments import TensorStats
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, number, redraw_all
from initscope.hooks.rules.signals import at_step, is_trained, octaves, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity
from initscope.hooks.wire import TensorInfo

_FUSED: Final = ("qkv", "c_attn", "query_key_value", "in_proj", "wqkv")
_QUERY: Final = ("q_proj", "query", "wq", "to_q", "q")
_KEY: Final = ("k_proj", "key", "wk", "to_k", "k")
_PACKED: Final = "in_proj_weight"
"""Queries, keys and values of nn.MultiheadAttention: one parameter, whose product no module shows."""


def logit_stds(window: Window, step: int | None = None) -> dict[Layer, float]:
    """Std of the attention logits at a step, by the layer that makes the queries.

    Where queries and keys are outputs: rms(query) · rms(key). They are independent at the start, and then their
    products have that std after the usual 1/√(head width). nn.MultiheadAttention shows neither; there it is
    predicted: σ²·d·rms(input)² for weights of rms σ and d inputs.
    """
    layers = {x.path: x for x in window.model.layers if x.is_plain and not x.norm_after}
    found: dict[Layer, float] = {}
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        partner = layer if name.lower() in _FUSED else _key_of(layers, parent, name)
        query = rms(at_step(window, layer.output, step))
        key = rms(at_step(window, partner.output, step)) if partner is not None else None
        if query is not None and key is not None:
            found[layer] = query * key
    for layer in window.model.layers:
        predicted = _predicted(window, layer, step) if layer.weight.name == _PACKED else None
        if predicted is not None:
            found[layer] = predicted
    return dict(sorted(found.items(), key=lambda pair: pair[0].depth or 0))


def _predicted(window: Window, layer: Layer, step: int | None) -> float | None:
    size, given = rms(at_step(window, layer.weight, step)), _input_rms(window, layer, step)
    if size is None or given is None or layer.fan_in is None:
        return None
    return size * size * layer.fan_in * given * given


def _input_rms(window: Window, layer: Layer, step: int | None) -> float | None:
    """Rms of what a module takes in: of the output before it, or of the sum of the tables before it."""
    if layer.depth is None:
        return None
    earlier = [(t, s) for t, s in _outputs(window, step) if t.depth is not None and t.depth < layer.depth]
    if not earlier:
        return None
    tables = {x.path for x in window.model.layers if x.is_table}
    if earlier[-1][0].module_path not in tables:
        return rms(earlier[-1][1])
    sizes = [rms(s) or 0.0 for t, s in earlier if t.module_path in tables]
    return math.sqrt(sum(size * size for size in sizes))


def _outputs(window: Window, step: int | None) -> list[tuple[TensorInfo, TensorStats]]:
    records = ((t, at_step(window, t, step)) for t in window.model.by_kind[Kind.ACTIVATION])
    return [(t, s) for t, s in records if s is not None]


def _key_of(layers: dict[str, Layer], parent: str, name: str) -> Layer | None:
    if name.lower() not in _QUERY:
        return None
    key = _KEY[_QUERY.index(name.lower())]
    return layers.get(f"{parent}.{key}" if parent else key)


def check_logits(window: Window, limits: Limits) -> Iterable[Finding]:
    """Attention that looks at one position only, by weights that cannot shrink in time."""
    hot = [(x, std) for x, std in logit_stds(window).items() if std >= limits["warning"]]
    if not hot or is_trained(window):
        return
    worst, std = max(hot, key=lambda pair: pair[1])
    size, change = rms(window.stats(worst.weight)), rms(window.stats(worst.update))
    ratio = change / size if size and change is not None else None
    stuck = std >= limits["critical"] and ratio is not None and ratio < limits["restless"]
    why = "" if ratio is None else f"; a step changes its weights by {number(ratio)} of their size"
    yield Finding(
        rule=ATTENTION_LOGITS.id,
        severity=Severity.CRITICAL if stuck else Severity.WARNING,
        cause=Cause.ATTENTION_LOGIT_BLOWUP,
        step=window.step,
        subject="run",
        module_path=hot[0][0].path,
        tensor_name=worst.output.name if worst.output else None,
        kind=Kind.ACTIVATION,
        diagnosis=f"Queries and keys of {worst.path} make attention logits of std {number(std)} (0.1 to 3 is healthy): "
        f"each position looks at one other only, and no gradient passes the softmax{why}.",
        remedy=redraw_all([x for x, _ in hot], rms(window.stats(hot[0][0].weight))),
        evidence={
            "logit_std": std,
            "update_ratio": -1.0 if ratio is None else ratio,
            "layers": listed([x.path for x, _ in hot]),
        },
    )


def check_growth(window: Window, limits: Limits) -> Iterable[Finding]:
    """Logits that have grown far from their start, and those that start so small that all positions look alike."""
    if is_trained(window):
        return
    now, start = logit_stds(window), logit_stds(window, window.baseline_step)
    grown = [(x, std, by) for x, std in now.items() if (by := octaves(_ratio(std, start.get(x)))) is not None]
    grown = [(x, std, by) for x, std, by in grown if by >= limits["octaves"] and std >= limits["std"]]
    if grown:
        worst, std, by = max(grown, key=lambda known: known[2])
        yield _attention_info(
            window,
            worst,
            f"The attention logits of {worst.path} grew by {by:.1f} octaves since the start, to std {number(std)}.",
            f"# normalize queries and keys (QK-norm), or lower the learning rate of {worst.path}",
            {"octaves": by, "logit_std": std, "layers": listed([x.path for x, _, _ in grown])},
        )
    flat = [(x, std) for x, std in now.items() if 0.0 < std <= limits["uniform"]] if window.is_baseline else []
    if flat and 2 * len(flat) >= len(now):
        first, std = flat[0]
        yield _attention_info(
            window,
            first,
            f"The attention logits of {first.path} have std {number(std)}: every position looks at all others alike.",
            redraw_all([x for x, _ in flat], rms(window.stats(first.weight))),
            {"logit_std": std, "layers": listed([x.path for x, _ in flat])},
        )


def _ratio(now: float, start: float | None) -> float | None:
    return now / start if start else None


def _attention_info(
    window: Window, layer: Layer, diagnosis: str, remedy: str, evidence: dict[str, float | str]
) -> Finding:
    return Finding(
        rule=ATTENTION_GROWTH.id,
        severity=Severity.INFO,
        cause=Cause.ATTENTION_LOGIT_BLOWUP if "octaves" in evidence else Cause.NONE,
        step=window.step,
        subject="growth" if "octaves" in evidence else "uniform",
        module_path=layer.path,
        tensor_name=layer.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=diagnosis,
        remedy=remedy,
        evidence=evidence,
    )


ATTENTION_LOGITS: Final = Rule(
    id="attention-logits",
    family="attention",
    check=check_logits,
    limits={"warning": 10.0, "critical": 30.0, "restless": 0.01},
    patience=2,
    needs=(Kind.ACTIVATION,),
    explained_by=("uninitialized-weights", "unscaled-input", "update-ratio"),
    title="Attention logits that are too large",
    statistic="rms(query) · rms(key), which is the std of the logits after the usual scaling, for layers named as "
    "queries and keys; σ²·d·rms(input)² for nn.MultiheadAttention, which shows no queries. Warning from `warning`; "
    "critical from `critical` where an update changes the weights by less than `restless` of their size, so that they "
    "cannot recover soon.",
    harmless="Trained networks and queries that are normalized afterwards (QK-norm) are not judged.",
    remedy="Draw queries and keys with the std that gives logits of std 1; check that 1/√(head width) is there.",
    source="std = σ²·d for weights of std σ and a normalized input of width d; Wortsman et al. 2023 on growing logits.",
)
ATTENTION_GROWTH: Final = Rule(
    id="attention-growth",
    family="attention",
    check=check_growth,
    limits={"octaves": 2.0, "std": 4.0, "uniform": 1e-3},
    needs=(Kind.WEIGHT, Kind.ACTIVATION),
    explained_by=("attention-logits", "update-ratio", "zero-weights"),
    title="Attention logits that grow, or start flat",
    statistic="The std of the logits, as in attention-logits, has grown by `octaves` since the start and reached "
    "`std`; or it is at most `uniform` at the start in half of the layers. Always an info.",
    harmless="Attention sharpens in every healthy run. Queries that start at zero on purpose are not judged.",
    remedy="Normalize queries and keys, or lower the learning rate; draw flat ones with 1/√width.",
    source="Zhai et al. 2023 (entropy collapse), Wortsman et al. 2023 (growth of attention logits).",
)
RULES: Final = (ATTENTION_LOGITS, ATTENTION_GROWTH)
