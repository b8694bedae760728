"""The rule on attention logits, seen through the queries and keys that make them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, number, redraw_all
from initscope.hooks.rules.signals import is_trained, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity

_FUSED: Final = ("qkv", "c_attn", "query_key_value", "in_proj", "wqkv")
_QUERY: Final = ("q_proj", "query", "wq", "to_q", "q")
_KEY: Final = ("k_proj", "key", "wk", "to_k", "k")


def logit_stds(window: Window) -> list[tuple[Layer, float]]:
    """Std of the attention logits by the layer that makes the queries: rms(query) · rms(key), with 1/√head width.

    Queries and keys that are independent at the start have products of that std after the usual scaling.
    """
    layers = {x.path: x for x in window.model.layers if x.is_plain and not x.norm_after}
    found: list[tuple[Layer, float]] = []
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        partner = layer if name.lower() in _FUSED else _key_of(layers, parent, name)
        query = rms(window.stats(layer.output))
        key = rms(window.stats(partner.output)) if partner is not None else None
        if query is not None and key is not None:
            found.append((layer, query * key))
    return found


def _key_of(layers: dict[str, Layer], parent: str, name: str) -> Layer | None:
    if name.lower() not in _QUERY:
        return None
    key = _KEY[_QUERY.index(name.lower())]
    return layers.get(f"{parent}.{key}" if parent else key)


def check_logits(window: Window, limits: Limits) -> Iterable[Finding]:
    """Attention that looks at one position only, by weights that cannot shrink in time."""
    hot = [(x, std) for x, std in logit_stds(window) if std >= limits["warning"]]
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


ATTENTION_LOGITS: Final = Rule(
    id="attention-logits",
    family="attention",
    check=check_logits,
    limits={"warning": 10.0, "critical": 30.0, "restless": 0.01},
    patience=2,
    needs=(Kind.ACTIVATION,),
    explained_by=("nonfinite", "update-ratio"),
    title="Attention logits that are too large",
    statistic="rms(query) · rms(key), which is the std of the logits after the usual scaling, for layers named as "
    "queries and keys. Warning from `warning`; critical from `critical` where an update changes the weights by less "
    "than `restless` of their size, so that they cannot recover soon.",
    harmless="Trained networks and queries that are normalized afterwards (QK-norm) are not judged.",
    remedy="Draw queries and keys with the std that gives logits of std 1; check that 1/√(head width) is there.",
    source="std = σ²·d for weights of std σ and a normalized input of width d; Wortsman et al. 2023 on growing logits.",
)
RULES: Final = (ATTENTION_LOGITS,)
