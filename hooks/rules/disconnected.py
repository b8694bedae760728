"""Rules on weights that no gradient reaches, and on weights that no optimizer moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.moments import TensorStats
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.frozen import looks_drawn
from initscope.hooks.rules.remedy import code_path, listed, weight_code
from initscope.hooks.rules.signals import is_trained, is_zero
from initscope.hooks.rules.window import StepStats, Window
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity
from initscope.hooks.wire import TensorInfo

_SPARSE: Final = ("expert", "lora")
"""Words in the path of what may have nothing to do for many steps, or has a rule of its own."""
_LISTED: Final = 10


def check_disconnected(window: Window, limits: Limits) -> Iterable[Finding]:
    """Trainable matrices that ran and never had a gradient, in several steps in which others had one."""
    candidates = [x for x in window.model.layers if _is_expected(x) and window.stats(x.weight) is not None]
    steps = _steps(window, Kind.GRADIENT)
    if len(steps) < limits["steps"]:
        return
    cut = [x for x in candidates if all(_is_still(rows, x.gradient) for rows in steps) and not _is_forgotten(steps, x)]
    if _has_gate(window):
        # Behind a zero matrix or gate gradients are exactly zero until it has moved; none at all is another matter.
        cut = [x for x in cut if not any(_is_zero_record(rows, x) for rows in steps)]
    if not cut:
        return
    share = len(cut) / len(candidates)
    critical = share >= limits["critical"] and not is_trained(window) and all(looks_drawn(window, x) for x in cut)
    yield _disconnected(window, cut, share, critical, len(steps))


def _is_expected(layer: Layer) -> bool:
    """Whether a gradient is owed: a trainable matrix of a module that ran, and runs for every sample."""
    rare = layer.is_table or any(word in layer.path.lower() for word in _SPARSE)
    return layer.weight.trainable and layer.depth is not None and layer.output is not None and not rare


def _steps(window: Window, kind: Kind) -> list[StepStats]:
    """The records of all steps, the baseline's too, in which some tensor of that kind was not zero."""
    every = {window.baseline_step: window.baseline, **window.steps}
    tensors = window.model.by_kind[kind]
    return [rows for rows in every.values() if any(_moves(rows.get(t.key)) for t in tensors)]


def _moves(stats: TensorStats | None) -> bool:
    return stats is not None and stats.moments.count > 0 and not is_zero(stats)


def _is_still(rows: StepStats, tensor: TensorInfo | None) -> bool:
    return tensor is None or not _moves(rows.get(tensor.key))


def _is_forgotten(steps: Sequence[StepStats], layer: Layer) -> bool:
    """Whether gradients pass the layer and no optimizer has it: those of what none has are not measured."""
    measured = any(t is not None and t.key in rows for rows in steps for t in (layer.update, layer.gradient))
    return not measured and bool(steps) and all(not _is_still(rows, layer.output_gradient) for rows in steps)


def _is_zero_record(rows: StepStats, layer: Layer) -> bool:
    return layer.gradient is not None and is_zero(rows.get(layer.gradient.key))


def _has_gate(window: Window) -> bool:
    """Whether a weight or a gain is zero everywhere, now or at the start; biases block nothing."""
    gates = [t for t in window.model.by_kind[Kind.WEIGHT] if t.role not in (Role.BIAS, Role.NORM_BIAS)]
    return any(is_zero(window.stats(t)) or is_zero(window.first(t)) for t in gates if "bias" not in t.name)


def _disconnected(window: Window, cut: Sequence[Layer], share: float, critical: bool, steps: int) -> Finding:
    first = cut[0]
    more = "" if len(cut) == 1 else f" and {len(cut) - 1} more matrices"
    return Finding(
        rule=DISCONNECTED.id,
        severity=Severity.CRITICAL if critical else Severity.WARNING,
        cause=Cause.FROZEN_OR_DISCONNECTED_LAYER,
        step=window.step,
        subject="run",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.GRADIENT,
        diagnosis=f"{first.path}{more} ran in the forward pass, may learn, and had no gradient in {steps} steps in "
        f"which others had one ({share:.0%} of the matrices).",
        remedy=f"# look for .detach(), torch.no_grad() or argmax behind the last of them: {cut[-1].path}; or, if it is "
        f"meant,\n{code_path(first.path)}.requires_grad_(False)",
        evidence={"share": share, "steps": float(steps), "layers": listed([x.path for x in cut])},
    )


def check_unoptimized(window: Window, limits: Limits) -> Iterable[Finding]:
    """Matrices whose outputs have gradients and that no optimizer moves, while some move others."""
    candidates = [x for x in window.model.layers if _is_expected(x) and window.stats(x.weight) is not None]
    steps = _steps(window, Kind.UPDATE)
    still = [x for x in candidates if _is_forgotten(steps, x)] if len(steps) >= limits["steps"] else []
    if not still:
        return
    first = still[0]
    more = "" if len(still) == 1 else f" and {len(still) - 1} more matrices"
    yield Finding(
        rule=UNOPTIMIZED.id,
        severity=Severity.INFO if is_trained(window) else Severity.WARNING,
        cause=Cause.FROZEN_OR_DISCONNECTED_LAYER,
        step=window.step,
        subject="run",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.UPDATE,
        diagnosis=f"{first.path}{more} passed gradients on in {len(steps)} steps that moved others: no optimizer has "
        "them.",
        remedy=f"optimizer.add_param_group({{'params': [{', '.join(weight_code(x) for x in still[:_LISTED])}]}})\n"
        + (f"# and {len(still) - _LISTED} more\n" if len(still) > _LISTED else "")
        + "# better: make the optimizer after the last change of the model",
        evidence={
            "share": len(still) / len(candidates),
            "steps": float(len(steps)),
            "layers": listed([x.path for x in still]),
        },
    )


DISCONNECTED: Final = Rule(
    id="disconnected",
    family="frozen",
    check=check_disconnected,
    limits={"steps": 3, "critical": 0.9},
    patience=2,
    needs=(Kind.GRADIENT,),
    explained_by=(
        "zero-weights",
        "constant-weights",
        "nonfinite",
        "forward-drift",
        "backward-drift",
        "signal-collapse",
        "dead-units",
        "saturation",
        "update-ratio",
    ),
    title="Weights that no gradient reaches",
    statistic="A trainable matrix whose module ran has no gradient, or one of zeros, in at least `steps` sampled steps "
    "in which others had one. Critical where that is so for `critical` of all matrices and they look freshly drawn.",
    harmless="Tables, experts and LoRA; frozen parameters; what had a gradient at any step (alternating optimizers, "
    "dropped layers); gradients of zero while some matrix, gain or gate is zero, or was at the start.",
    remedy="Find the `.detach()`, `torch.no_grad()` or rounding between the layer and the loss.",
    source="autograd: a parameter that the loss does not depend on gets None, not zero.",
)
UNOPTIMIZED: Final = Rule(
    id="unoptimized",
    family="frozen",
    check=check_unoptimized,
    limits={"steps": 3},
    patience=2,
    needs=(Kind.UPDATE, Kind.ACTIVATION_GRADIENT),
    explained_by=("nonfinite", "frozen-fresh", "disconnected"),
    title="Weights that no optimizer moves",
    statistic="The output of a trainable matrix' module had a gradient in at least `steps` sampled steps that moved "
    "other weights, and its weight had neither gradient nor update in any of them: those are measured of what an "
    "optimizer has.",
    harmless="A parameter group with a learning rate of zero; tables, experts and LoRA; trained weights (info): a "
    "linear probe gives the optimizer its head alone.",
    remedy="Build the optimizer after the last change of the model; add the missing parameters to it.",
    source="An optimizer moves what it was given, and nothing says when a parameter was replaced afterwards.",
)
RULES: Final = (DISCONNECTED, UNOPTIMIZED)
