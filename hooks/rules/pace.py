"""Rules on how fast parts of a model learn: unevenly, hardly, or only because gradients are clipped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.blame import blame_scale
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, number
from initscope.hooks.rules.runaway import gradient_norm
from initscope.hooks.rules.signals import is_zero, rms
from initscope.hooks.rules.updates import TINY, update_ratios
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity


def check_uneven(window: Window, limits: Limits) -> Iterable[Finding]:
    """One matrix that changes far faster than the median one."""
    if window.step - window.baseline_step < limits["after"]:
        return
    ratios = {x: value for x, value in update_ratios(window, TINY).items() if math.isfinite(value) and value > 0.0}
    if len(ratios) < limits["matrices"]:
        return
    typical = median(ratios.values())
    worst = max(ratios, key=lambda x: ratios[x])
    depth = max(1, sum(x.is_residual for x in window.model.layers))
    # Residual outputs scaled by 1/√depth change √depth times faster, relative to their size, by design.
    if ratios[worst] < limits["factor"] * math.sqrt(depth) * typical:
        return
    yield Finding(
        rule=UNEVEN_UPDATES.id,
        severity=Severity.INFO,
        cause=Cause.NONE,
        step=window.step,
        subject="run",
        module_path=worst.path,
        tensor_name=worst.weight.name,
        kind=Kind.UPDATE,
        diagnosis=f"A step changes {worst.path} by {number(ratios[worst])} of its size and the median matrix by "
        f"{number(typical)}: its weights are small for the rate that it learns with.",
        remedy=f"# a learning rate {number(ratios[worst] / typical)} times smaller for {worst.path}, in a group of its "
        "own; or draw it larger",
        evidence={"largest_ratio": ratios[worst], "median_ratio": typical},
    )


def check_starved(window: Window, limits: Limits) -> Iterable[Finding]:
    """Gradients that Adam's ε hides."""
    eps = _eps(window)
    sizes = {x: size for x in window.model.layers if (size := _gradient_rms(window, x)) is not None}
    if eps is None or len(sizes) < limits["matrices"]:
        return
    faint = [x for x, size in sizes.items() if size < limits["info"] * eps]
    starved = [x for x, size in sizes.items() if size < eps]
    if len(faint) < limits["share"] * len(sizes):
        return
    # With an ε that large on purpose the step is plain gradient descent.
    wrong = len(starved) >= limits["starved"] * len(sizes) and eps <= limits["usual_eps"]
    first = (starved or faint)[0]
    size = sizes[first]
    yield Finding(
        rule=STARVED_UPDATES.id,
        severity=Severity.WARNING if wrong else Severity.INFO,
        cause=Cause.STARVED_UPDATE,
        step=window.step,
        subject="run",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.GRADIENT,
        diagnosis=f"The gradient of {first.path} has rms {number(size)} beside an eps of {number(eps)}: its steps are "
        f"{number(size / (size + eps))} of what Adam would make; so it is in {len(faint)} of {len(sizes)} matrices.",
        remedy=f"eps={number(min(eps, 0.01 * min(sizes[x] for x in faint)))}  # instead of {number(eps)}; or scale the "
        "loss up",
        evidence={"rms": size, "eps": eps, "layers": listed([x.path for x in faint])},
    )


def _eps(window: Window) -> float | None:
    """The largest ε of an optimizer that divides by the size of gradients."""
    known = [o.eps for o in window.model.description.optimizers if o.eps is not None and "adam" in o.name.lower()]
    return max((eps for eps in known if math.isfinite(eps) and eps > 0.0), default=None)


def _gradient_rms(window: Window, layer: Layer) -> float | None:
    stats = window.stats(layer.gradient)
    if stats is None or layer.is_table or is_zero(stats):
        return None
    size = rms(stats)
    return size or None


def check_clipping(window: Window, limits: Limits) -> Iterable[Finding]:
    """Steps that are nearly all clipped, long after the start."""
    if window.step - window.baseline_step < limits["after"]:
        return
    factors = [f for step in window.steps if (f := _clipped_by(window, step)) is not None]
    clipped = [f for f in factors if f > limits["clipped"]]
    if len(factors) < limits["steps"] or len(clipped) <= limits["share"] * len(factors):
        return
    typical = median(clipped)
    blame = blame_scale(window)
    yield Finding(
        rule=CLIP_SATURATION.id,
        severity=Severity.WARNING if typical >= limits["factor"] else Severity.INFO,
        cause=blame.cause if blame is not None else Cause.LR_TOO_HIGH,
        step=window.step,
        subject="run",
        module_path=blame.layer.path if blame is not None and blame.layer is not None else None,
        kind=Kind.GRADIENT,
        diagnosis=f"{len(clipped)} of the last {len(factors)} sampled steps were clipped, the typical one by a factor "
        f"of {number(typical)}: clipping sets the size of the steps, not the gradient.",
        remedy=blame.remedy
        if blame is not None
        else "# lower the learning rate, or clip at the 90th percentile of the norms",
        evidence={"share": len(clipped) / len(factors), "typical_factor": typical},
    )


def _clipped_by(window: Window, step: int) -> float | None:
    """The logged norm before clipping ÷ the measured one after it; None where one is absent."""
    before, after = window.scalar("grad_norm", step), gradient_norm(window, step)
    if before is None or not after or not math.isfinite(before):
        return None
    return before / after


UNEVEN_UPDATES: Final = Rule(
    id="uneven-updates",
    family="updates",
    check=check_uneven,
    limits={"factor": 10.0, "after": 10, "matrices": 4},
    patience=5,
    needs=(Kind.UPDATE, Kind.WEIGHT),
    explained_by=("update-ratio", "zero-weights", "weight-scale"),
    title="One matrix learns far faster than the others",
    statistic="Largest ÷ median update ratio above `factor`·√(residual branches), of at least `matrices` "
    "matrices, after `after` steps.",
    harmless="Matrices that started small change fast, relative to their size, until they have grown. Always an info.",
    remedy="A group of its own with a smaller learning rate, or a larger draw.",
    source="Nishida et al. 2024 (WeSaR): uneven relative updates make loss spikes.",
)
STARVED_UPDATES: Final = Rule(
    id="starved-updates",
    family="updates",
    check=check_starved,
    limits={"info": 10.0, "share": 0.2, "starved": 0.5, "usual_eps": 1e-6, "matrices": 2},
    patience=5,
    needs=(Kind.GRADIENT,),
    explained_by=(
        "zero-weights",
        "constant-weights",
        "forward-drift",
        "backward-drift",
        "signal-collapse",
        "dead-units",
        "saturation",
        "disconnected",
    ),
    title="Gradients that Adam's eps hides",
    statistic="The rms of a gradient is under `info` times the optimizer's eps in `share` of at least "
    "`matrices`: an info; under an eps of at most `usual_eps` itself in `starved` of them: a warning.",
    harmless="An eps above `usual_eps` is meant to damp (an info). Tables and gradients of zero do not count.",
    remedy="A smaller eps, or a loss that is scaled up.",
    source="Adam's step is lr·m/(√v + eps): half of what it should be where √v = eps.",
)
CLIP_SATURATION: Final = Rule(
    id="clip-saturation",
    family="updates",
    check=check_clipping,
    limits={"after": 100, "steps": 5, "share": 0.5, "clipped": 1.05, "factor": 10.0},
    patience=3,
    needs=(Kind.GRADIENT,),
    explained_by=("update-ratio", "loss-jump", "activation-runaway", "forward-drift", "residual-stream"),
    title="Nearly every step is clipped",
    statistic="The logged `grad_norm` is more than `clipped` times the measured norm of the gradients (they are "
    "measured after clipping) in over `share` of the window's sampled steps (`steps` at least), after `after` steps. "
    "Warning where the typical clipped step is cut by `factor`, else info.",
    harmless="Large models are often clipped at 1 for their first hundreds of steps, by a small factor: an info. Off "
    "until a `grad_norm` is logged.",
    remedy="Lower the learning rate, or mend what the finding blames; clip at the 90th percentile of the norms.",
    source="Tuning playbook of Google Research: more than half of the steps clipped is a learning-rate problem.",
)
RULES: Final = (CLIP_SATURATION, STARVED_UPDATES, UNEVEN_UPDATES)
