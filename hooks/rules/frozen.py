"""The rule on layers that cannot learn and have nothing to give: frozen as they were drawn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import code_path, listed
from initscope.hooks.rules.signals import is_trained
from initscope.hooks.rules.window import Window
from initscope.hooks.schemes import Family
from initscope.hooks.vocabulary import Cause, Kind, Severity

_LINES: Final = 10


def check_frozen(window: Window, limits: Limits) -> Iterable[Finding]:
    """Most hidden matrices without a gradient, and all of those look as if no training had ever touched them."""
    hidden = [x for x in window.model.layers if not (x.is_head or x.is_table) and window.stats(x.weight) is not None]
    frozen = [x for x in hidden if not x.weight.trainable]
    if len(frozen) < limits["share"] * len(hidden) or not frozen or is_trained(window):
        return
    if not all(looks_drawn(window, x) for x in frozen):
        return
    first = frozen[0]
    yield Finding(
        rule=FROZEN_FRESH.id,
        severity=Severity.WARNING,
        cause=Cause.FROZEN_OR_DISCONNECTED_LAYER,
        step=window.step,
        subject="run",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{len(frozen)} of {len(hidden)} hidden weight matrices do not learn, {first.path} first, and look "
        "freshly drawn: the rest learns on random features.",
        remedy="\n".join(
            [
                *(f"{code_path(x.path)}.requires_grad_(True)" for x in frozen[:_LINES]),
                *([f"# and {len(frozen) - _LINES} more"] if len(frozen) > _LINES else []),
                "# or load trained weights first",
            ]
        ),
        evidence={
            "frozen_layers": float(len(frozen)),
            "hidden_layers": float(len(hidden)),
            "layers": listed([x.path for x in frozen]),
        },
    )


def looks_drawn(window: Window, layer: Layer) -> bool:
    """Whether a weight is a draw from one of the usual families, or a structure such as zero that none has trained."""
    scheme = window.recognition.by_key.get(layer.weight.key)
    return scheme is not None and scheme.family not in (Family.TRAINED, Family.UNKNOWN)


FROZEN_FRESH: Final = Rule(
    id="frozen-fresh",
    family="frozen",
    check=check_frozen,
    limits={"share": 0.5},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    title="Layers frozen as they were drawn",
    statistic="At least `share` of the hidden weight matrices are not trainable, and each is recognised as a draw, or "
    "as zero, identity or orthogonal, that shows nothing of what training leaves.",
    harmless="A frozen backbone that was trained has heavier tails or norm gains that differ. Random features on "
    "purpose (reservoirs) are this finding's one false friend.",
    remedy="`requires_grad_(True)`, or load trained weights before freezing.",
    source="Fresh draws have their family's kurtosis; trained matrices of shipped models had 4.7 and more.",
)
RULES: Final = (FROZEN_FRESH,)
