"""Rules on starts that looked fine and do not last: outputs, loss or gradient run away within some steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.blame import blamed
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.loss import is_stuck, loss_rise, uniform_loss
from initscope.hooks.rules.remedy import listed, number
from initscope.hooks.rules.signals import at_step, norm, octaves, rms
from initscope.hooks.rules.updates import HURRIED, blame_steps, largest_ratio
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Kind, Severity

_UNIT: Final = 1.0
"""Rms of a healthy output: growth up to it is no runaway, whatever a layer started with."""


def output_growth(window: Window, step: int | None = None) -> dict[Layer, float]:
    """Octaves by which the output of each hidden layer is above its start, at a step.

    The start is the largest of the layer's own rms, the median layer's and 1: layers that start small grow in every
    healthy run. Layers in front of a norm are left out, nobody sees the scale of their output.
    """
    layers = [x for x in window.model.layers if x.output is not None and not (x.is_head or x.is_table or x.norm_after)]
    starts = {x: size for x in layers if (size := rms(window.first(x.output))) is not None}
    if not starts:
        return {}
    usual = max(median(starts.values()), _UNIT)
    grown = {x: octaves(rms(at_step(window, x.output, step))) for x in starts}
    return {x: now - math.log2(max(starts[x], usual)) for x, now in grown.items() if now is not None}


def check_runaway(window: Window, limits: Limits) -> Iterable[Finding]:
    """Outputs that grow from step to step, far beyond what they were."""
    age = window.step - window.baseline_step
    growth = output_growth(window)
    if not growth or not 0 < age <= limits["early"]:
        return
    running = {x: by for x, by in growth.items() if by >= max(limits["octaves"], limits["slope"] * age)}
    if not running:
        return
    first = next(iter(running))
    worst = max(running, key=lambda x: running[x])
    rise = loss_rise(window)
    risen = rise is not None and rise >= limits["loss_share"]
    critical = risen or is_stuck(window, limits["wait"])
    loss = f", and the loss is {number(rise)} times what it was" if risen and rise is not None else ""
    loss = ", and the loss has not fallen" if critical and not risen else loss
    blame = blame_steps(window)
    layer = blame.layer or first
    yield Finding(
        rule=ACTIVATION_RUNAWAY.id,
        severity=Severity.CRITICAL if critical else Severity.INFO if _has_norms(window) else Severity.WARNING,
        cause=blame.cause,
        step=window.step,
        subject="run",
        module_path=layer.path,
        tensor_name=layer.output.name if layer.output else None,
        kind=Kind.ACTIVATION,
        diagnosis=f"Outputs run away: after {age} steps that of {worst.path} has rms "
        f"{number(rms(window.stats(worst.output)) or 0.0)}, {number(2.0 ** running[worst])} times that of the start"
        f"{loss}: {blame.why}.",
        remedy=blame.remedy,
        evidence={
            "octaves": running[worst],
            "loss_rise": math.nan if rise is None else rise,
            "largest_update_ratio": largest_ratio(window),
            "layers": listed([x.path for x in running]),
        },
    )


def _has_norms(window: Window) -> bool:
    """Whether norms keep what is behind them from growing with the outputs; then growth alone is no alarm."""
    return any(x.norm_before or x.norm_after for x in window.model.layers)


def check_jump(window: Window, limits: Limits) -> Iterable[Finding]:
    """A loss far above that of knowing nothing, soon after the start."""
    age = window.step - window.baseline_step
    rise = loss_rise(window)
    loss = window.scalar("loss", window.step)
    if rise is None or loss is None or not 0 < age <= limits["early"]:
        return
    before = loss / rise if math.isfinite(rise) and rise > 0.0 else 0.0
    if not (math.isinf(rise) or loss > limits["factor"] * before + (1.0 if uniform_loss(window) else before)):
        return
    sign = _second_sign(window, limits)
    blame = blame_steps(window)
    severity = Severity.WARNING if sign is None else Severity.CRITICAL
    diagnosis = (
        f"After {age} steps the loss is {number(loss)}, {number(rise)} times that of knowing nothing"
        f"{'' if sign is None else f', and {sign}'}: {blame.why}."
    )
    evidence = {"loss": loss, "rise": rise, "largest_update_ratio": largest_ratio(window)}
    yield blamed(LOSS_JUMP.id, severity, blame, window.step, diagnosis, evidence)


def _second_sign(window: Window, limits: Limits) -> str | None:
    """What else says that the start has failed, in words."""
    ratio = largest_ratio(window)
    if ratio >= HURRIED:
        return f"a step changed the median matrix by {number(ratio)} of its size"
    growth = max(output_growth(window).values(), default=0.0)
    if growth >= limits["octaves"]:
        return f"outputs have grown by {growth:.1f} octaves"
    gradient = _gradient_growth(window)
    if gradient >= limits["gradient_octaves"]:
        return f"gradients have grown by {gradient:.1f} octaves"
    return None


def _gradient_growth(window: Window) -> float:
    """Octaves by which the gradient's norm over all weights is above that of the start; 0 where unknown."""
    start, now = octaves(gradient_norm(window, window.baseline_step)), octaves(gradient_norm(window))
    return 0.0 if start is None or now is None else now - start


def gradient_norm(window: Window, step: int | None = None) -> float | None:
    """Norm of the gradient over all weights at a step; None if none was measured."""
    # Over twenty steps of a large model: sums as the records hold them, without a root for each.
    records = [at_step(window, t, step) for t in window.model.by_kind[Kind.GRADIENT]]
    moments = [record.moments for record in records if record is not None]
    squares = [x for m in moments if math.isfinite(x := m.finite_count * m.mean * m.mean + m.m2)]
    return math.sqrt(sum(squares)) if squares else None


def check_spike(window: Window, limits: Limits) -> Iterable[Finding]:
    """A gradient far above all that came before it."""
    norms = _norms(window)
    now = norms.get(window.step)
    before = [value for step, value in norms.items() if step < window.step]
    if now is None or len(before) < limits["steps"]:
        return
    usual = median(before)
    if not usual > 0.0 or now < limits["factor"] * usual:
        return
    worst = max(
        (x for x in window.model.layers if norm(window.stats(x.gradient)) is not None),
        key=lambda x: norm(window.stats(x.gradient)) or 0.0,
        default=None,
    )
    blame = blame_steps(window)
    at = "" if worst is None else f", most of it at {worst.path}"
    yield Finding(
        rule=GRADIENT_SPIKE.id,
        severity=Severity.WARNING,
        cause=blame.cause,
        step=window.step,
        subject="run",
        module_path=worst.path if worst is not None else None,
        tensor_name=worst.weight.name if worst is not None else None,
        kind=Kind.GRADIENT,
        diagnosis=f"The gradient of step {window.step} has norm {number(now)}, {number(now / usual)} times the median "
        f"of the steps before{at}: {blame.why}.",
        remedy=f"torch.nn.utils.clip_grad_norm_(model.parameters(), {number(max(sorted(before)[:-1] or before))})\n"
        f"{blame.remedy}",
        evidence={"norm": now, "median": usual},
    )


def _norms(window: Window) -> Mapping[int, float]:
    """Norm of the gradient by step: as logged before clipping, else as it was measured."""
    logged = {step: value for step, value in window.scalars.get("grad_norm", ()) if step in window.steps}
    measured = {step: value for step in window.steps if (value := gradient_norm(window, step)) is not None}
    return {step: value for step, value in {**measured, **logged}.items() if math.isfinite(value)}


ACTIVATION_RUNAWAY: Final = Rule(
    id="activation-runaway",
    family="runaway",
    check=check_runaway,
    limits={"octaves": 3.0, "slope": 0.15, "early": 50, "loss_share": 1.5, "wait": 8},
    patience=2,
    needs=(Kind.ACTIVATION,),
    explained_by=(
        "uninitialized-weights",
        "unscaled-input",
        "embedding-scale",
        "update-ratio",
        "forward-drift",
        "residual-stream",
        "loss-jump",
    ),
    title="Outputs that run away",
    statistic="The output of a hidden layer is `octaves` above its start (the largest of its own rms, the median "
    "layer's, and 1) within `early` steps, and `slope` octaves for each of them. Critical where the loss is "
    "`loss_share` times the larger of the first loss and ln C, or has not fallen under ln C after `wait` steps; an "
    "info without that in a model with norms.",
    harmless="Layers that start small grow to rms 1 in every healthy run. Outputs that go into a norm are not judged.",
    remedy="Mend what the finding blames, else lower the learning rate or warm it up.",
    source="Outputs that grow by the same factor each step are a feedback: larger outputs, gradients, steps.",
)
LOSS_JUMP: Final = Rule(
    id="loss-jump",
    family="runaway",
    check=check_jump,
    limits={"factor": 2.0, "early": 50, "octaves": 3.0, "gradient_octaves": 5.0},
    patience=2,
    explained_by=(
        "uninitialized-weights",
        "unscaled-input",
        "embedding-scale",
        "update-ratio",
        "forward-drift",
        "residual-stream",
        "attention-logits",
    ),
    title="A loss far above that of knowing nothing",
    statistic="Within `early` steps a loss above `factor` times the larger of the first loss and ln C, plus one nat "
    "(plus the first loss for other losses). Critical with a second sign: a median update ratio of 0.1 in the window, "
    "outputs `octaves` or gradients `gradient_octaves` above their start.",
    harmless="One step may jump and come back: hence the patience. A run that resumes is judged from its own start.",
    remedy="Mend what the finding blames, else lower the learning rate or warm it up.",
    source="ln C is the loss of a uniform guess: above it the model is sure of what is wrong.",
)
GRADIENT_SPIKE: Final = Rule(
    id="gradient-spike",
    family="runaway",
    check=check_spike,
    limits={"factor": 1000.0, "steps": 5},
    needs=(Kind.GRADIENT,),
    explained_by=(
        "nonfinite",
        "unscaled-input",
        "update-ratio",
        "forward-drift",
        "residual-stream",
        "loss-jump",
        "activation-runaway",
    ),
    title="A gradient far above those before it",
    statistic="The norm of the gradient (as logged by `grad_norm` before clipping, else as measured) is `factor` times "
    "the median of at least `steps` sampled steps before it.",
    harmless="Healthy gradients vary by a factor of ten. Clipped ones show nothing unless the norm is logged.",
    remedy="Clip at the largest usual norm, and lower the learning rate if spikes come back.",
    source="Thresholds of public alarms are 100 to 1000 times the usual norm.",
)
RULES: Final = (LOSS_JUMP, ACTIVATION_RUNAWAY, GRADIENT_SPIKE)
