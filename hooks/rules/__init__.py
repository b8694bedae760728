"""Rules: pure functions from a window of statistics and the model's description to findings."""

from initscope.hooks.rules import (
    architecture,
    attention,
    branches,
    collapse,
    copies,
    disconnected,
    frozen,
    gains,
    loss,
    numerics,
    offsets,
    pace,
    precision,
    propagation,
    replicas,
    residual,
    runaway,
    scale,
    stream,
    symmetry,
    trends,
    units,
    updates,
    weights,
)
from initscope.hooks.rules.engine import Limits, Rule, diagnose, fold, judged
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.lifecycle import Episode, Transition, advance, close, reopen
from initscope.hooks.rules.window import Model, Window
from initscope.hooks.vocabulary import Cause, Kind, Severity

RULES: tuple[Rule, ...] = (
    *weights.RULES,
    *symmetry.RULES,
    *numerics.RULES,
    *copies.RULES,
    *replicas.RULES,
    *gains.RULES,
    *offsets.RULES,
    *residual.RULES,
    *architecture.RULES,
    *frozen.RULES,
    *loss.RULES,
    *attention.RULES,
    *collapse.RULES,
    *propagation.RULES,
    *stream.RULES,
    *units.RULES,
    *scale.RULES,
    *precision.RULES,
    *updates.RULES,
    *runaway.RULES,
    *disconnected.RULES,
    *branches.RULES,
    *pace.RULES,
    *trends.RULES,
)
"""The catalogue, causes before symptoms: of two rules that could explain each other, the earlier one does."""

__all__ = [
    "RULES",
    "Cause",
    "Episode",
    "Finding",
    "Kind",
    "Limits",
    "Model",
    "Rule",
    "Severity",
    "Transition",
    "Window",
    "advance",
    "close",
    "diagnose",
    "fold",
    "judged",
    "reopen",
]
