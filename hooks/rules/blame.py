"""Why outputs or updates are too large: the input, a layer, the table, the head, or nothing but the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import (
    healthy_std,
    number,
    redraw,
    redraw_drift,
    redraw_recurrent,
    weight_code,
    zero_biases,
)
from initscope.hooks.rules.signals import bias_share, forward_drift, hot_recurrence, input_rms, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import expected_std
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity

HOT_INPUT: Final = 16.0
"""Input rms from which the data, not the weights, is what is too large."""
HOT_DRIFT: Final = 3.0
HOT_STREAM: Final = 6.0
"""Octaves from the first output to the head's input."""
LOUD_BIAS: Final = 0.5
"""Share of a first output's mean square that its biases make."""
HOT_HEAD: Final = 4.0
"""Times the std that gives logits of std 1."""


@dataclass(frozen=True, slots=True)
class Blame:
    """A cause, the layer it lies in, why in a clause, and what to type."""

    cause: Cause
    layer: Layer | None
    why: str
    remedy: str


def blamed(
    rule: str,
    severity: Severity,
    blame: Blame,
    step: int,
    diagnosis: str,
    evidence: Mapping[str, float | str],
) -> Finding:
    """A finding about the run as a whole, put down to the layer that is to blame."""
    return Finding(
        rule=rule,
        severity=severity,
        cause=blame.cause,
        step=step,
        subject="run",
        module_path=blame.layer.path if blame.layer else None,
        tensor_name=blame.layer.weight.name if blame.layer else None,
        kind=Kind.WEIGHT if blame.layer else None,
        diagnosis=diagnosis,
        remedy=blame.remedy,
        evidence=evidence,
    )


def blame_scale(window: Window) -> Blame | None:
    """What was too large at the start; None if nothing was."""
    blames = (_input, _drift, _recurrence, _biases, hot_stream, _table, _head)
    return next((blame for look in blames if (blame := look(window)) is not None), None)


def _input(window: Window) -> Blame | None:
    first = first_layer(window)
    size = input_rms(window, first) if first is not None else None
    if first is None or size is None or size <= HOT_INPUT:
        return None
    return Blame(
        Cause.UNSCALED_INPUT,
        first,
        f"the input of {first.path} has rms {number(size)}",
        f"x = (x - mean) / std  # the input's rms is {number(size)}, it should be near 1",
    )


def first_layer(window: Window) -> Layer | None:
    """The layer that takes the data itself, unless that is a table or a norm behind it takes its scale away."""
    layers = [x for x in window.model.layers if x.depth is not None]
    return layers[0] if layers and layers[0].is_plain and not layers[0].norm_after else None


def _drift(window: Window) -> Blame | None:
    for chain in window.model.chains:
        drift = forward_drift(window, chain, window.baseline_step)
        if drift is None or drift.total < HOT_DRIFT + drift.tolerance:
            continue
        offender = drift.offender
        stats = window.first(offender.weight)
        return Blame(
            Cause.TOO_LARGE_EXPLODE,
            offender,
            f"the signal grows by {drift.total:.1f} octaves from {drift.layers[0].path} to {drift.layers[-1].path}",
            redraw_drift(drift, stats.moments.std if stats else None),
        )
    return None


def _recurrence(window: Window) -> Blame | None:
    hot = hot_recurrence(window)
    if hot is None:
        return None
    layer, gain = hot
    why = f"the state of {layer.path} is multiplied by about {number(gain)} at every position"
    return Blame(Cause.SATURATED_ACTIVATIONS, layer, why, redraw_recurrent(layer, rms(window.first(layer.weight))))


def _biases(window: Window) -> Blame | None:
    """Biases that say more than the weights make of the input."""
    layers = [x for x in window.model.layers if x.depth is not None and x.is_plain]
    loud = [x for x in layers if bias_share(window.first(x.bias), window.first(x.output)) > LOUD_BIAS]
    if not loud:
        return None
    size = rms(window.first(loud[0].bias)) or 0.0
    why = f"the biases of {loud[0].path} (rms {number(size)}) outweigh what its weights make of the input"
    return Blame(
        Cause.BAD_BIAS, loud[0], why, zero_biases([x for x in layers if (rms(window.first(x.bias)) or 0.0) > 1.0])
    )


def hot_stream(window: Window, limit: float = HOT_STREAM) -> Blame | None:
    """Growth that no chain shows: what the head takes in is far larger than what the first layer gives."""
    head = next((x for x in window.model.layers if x.is_head and x.is_plain), None)
    first = next((x for x in window.model.layers if x.depth is not None and x.output is not None), None)
    taken = input_rms(window, head) if head is not None else None
    given = rms(window.first(first.output)) if first is not None else None
    if head is None or first is None or not taken or not given or taken < 2.0**limit * given:
        return None
    branch = next((x for x in window.model.layers if x.is_residual), first)
    stats = window.first(branch.weight)
    blocks = sum(x.is_residual for x in window.model.layers)
    small = healthy_std(branch) / math.sqrt(max(1, blocks))
    return Blame(
        Cause.TOO_LARGE_EXPLODE,
        branch,
        f"what {head.path} takes in is {number(taken / given)} times what {first.path} gives",
        f"nn.init.normal_({weight_code(branch)}, std={number(small)})  # instead of "
        f"{number(stats.moments.std if stats else math.nan)}, on each of {blocks} branches; or normalize their inputs",
    )


def token_table(window: Window) -> Layer | None:
    """The token table that is also the head, by a tied weight or by a product with it that no module makes."""
    tables = [x for x in window.model.layers if x.is_table and x.weight.role is not Role.POSITION]
    has_head = any(x.is_head for x in window.model.layers)
    for table in tables:
        rows = table.weight.shape[0] if table.weight.shape else 0
        if table.weight.tied_with or (not has_head and rows == window.model.description.output_classes):
            return table
    return None


def tied_logit_std(window: Window, table: Layer) -> float | None:
    """Std of the logits that a tied table gives for a normalized hidden state: rms of its elements · √width."""
    size = rms(window.first(table.weight))
    width = table.weight.shape[-1] if table.weight.shape else 0
    return None if size is None or not width else float(size * width**0.5)


def _table(window: Window) -> Blame | None:
    table = token_table(window)
    std = tied_logit_std(window, table) if table is not None else None
    if table is None or std is None or std <= HOT_HEAD:
        return None
    return Blame(
        Cause.BAD_EMBEDDING_SCALE,
        table,
        f"{table.path} is also the head and gives logits of std {number(std)}",
        redraw(table, rms(window.first(table.weight))),
    )


def _head(window: Window) -> Blame | None:
    head = next((x for x in window.model.layers if x.is_head and x.is_plain), None)
    size = rms(window.first(head.weight)) if head is not None else None
    std = expected_std(head.fan_in) if head is not None and head.fan_in is not None else None
    if head is None or size is None or std is None or size <= HOT_HEAD * std:
        return None
    return Blame(
        Cause.BAD_OUTPUT_HEAD,
        head,
        f"the weights of {head.path} are {number(size / std)} times as large as a head's should be",
        redraw(head, size),
    )
