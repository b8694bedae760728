"""Rules that need only the weights: zero, constant, identical units. Structure, not scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import code_path, listed, number, redraw_all
from initscope.hooks.rules.signals import is_zero, matrices
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import RECTIFIERS, activation_name
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity

_SMALL: Final = 16
"""Elements below which a matrix says nothing."""


def _is_meant(layer: Layer) -> bool:
    """Zero by design: a head, the last matrix of a residual branch or an expert, positions, the second one of LoRA."""
    path = layer.path.lower()
    is_end = layer.is_head or layer.is_residual or layer.weight.role is Role.POSITION
    return is_end or "lora" in path or "expert" in path


def check_zero(window: Window, _limits: Limits) -> Iterable[Finding]:
    """All-zero matrices; one finding for those that block learning, one for those that are meant."""
    known = [x for x in matrices(window) if window.stats(x.weight) is not None]
    zero = [x for x in known if is_zero(window.stats(x.weight))]
    if len(zero) == len(known):
        meant: list[Layer] = []
    else:
        meant = [x for x in zero if _is_meant(x)]
    wrong = [x for x in zero if x not in meant]
    if wrong:
        first = next((x for x in wrong if _blocks(window, x, wrong)), wrong[0])
        yield _zero_finding(window, wrong, first, _blocks(window, first, wrong))
    yield from _frozen_zero(window)
    if meant:
        yield Finding(
            rule=ZERO_WEIGHTS.id,
            severity=Severity.INFO,
            cause=Cause.NONE,
            step=window.step,
            subject="meant",
            module_path=meant[0].path,
            tensor_name=meant[0].weight.name,
            kind=Kind.WEIGHT,
            diagnosis=f"{listed([x.path for x in meant])}: all zero, as a head or a residual branch may start.",
            remedy="# nothing to do while it wakes up within some steps",
            evidence={"layers": listed([x.path for x in meant])},
        )


def _frozen_zero(window: Window) -> Iterable[Finding]:
    """What cannot learn and is zero stays so: nothing gets past a layer of a chain, or through the token table."""
    inner = {x for chain in window.model.chains for x in chain}
    for layer in window.model.layers:
        is_way = layer in inner or (layer.is_table and layer.weight.role is not Role.POSITION)
        if layer.weight.trainable or _is_meant(layer) or not is_way or not is_zero(window.stats(layer.weight)):
            continue
        code = code_path(layer.path, layer.weight.name)
        yield Finding(
            rule=ZERO_WEIGHTS.id,
            severity=Severity.CRITICAL,
            cause=Cause.ZERO_SYMMETRIC,
            step=window.step,
            subject="frozen",
            module_path=layer.path,
            tensor_name=layer.weight.name,
            kind=Kind.WEIGHT,
            diagnosis=f"All weights of {layer.path} are zero and frozen: what goes in never gets past it.",
            remedy=f"{code}.requires_grad_(True)\n{redraw_all([layer], 0.0)}",
            evidence={"zero_fraction": 1.0},
        )
        return


def _blocks(window: Window, layer: Layer, zero: Sequence[Layer]) -> bool:
    """Whether the zeros stay: no gradient passes, here or through another zero matrix of the same chain."""
    chain = next((c for c in window.model.chains if layer in c), (layer,))
    if sum(x in zero for x in chain) > 1 or all(x in zero for x in matrices(window)):
        return True
    if activation_name(layer.activation_after) not in RECTIFIERS:
        return False
    output = window.stats(layer.output)
    return output is None or layer.norm_after is not None or not output.moments.max > 0


def _zero_finding(window: Window, wrong: Sequence[Layer], first: Layer, blocks: bool) -> Finding:
    why = "no gradient gets past it, so it stays zero" if blocks else "nothing behind it learns until it has moved"
    count = "" if len(wrong) == 1 else f" and {len(wrong) - 1} more"
    return Finding(
        rule=ZERO_WEIGHTS.id,
        severity=Severity.CRITICAL if blocks else Severity.INFO,
        cause=Cause.ZERO_SYMMETRIC,
        step=window.step,
        subject="weights",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"All {math.prod(first.weight.shape)} weights of {first.path} are zero{count}: {why}.",
        remedy=redraw_all([first, *(x for x in wrong if x is not first)], 0.0),
        evidence={"zero_fraction": 1.0, "zero_layers": float(len(wrong)), "layers": listed([x.path for x in wrong])},
    )


def check_constant(window: Window, _limits: Limits) -> Iterable[Finding]:
    """Matrices whose elements are all one number, not zero: every unit of the layer computes the same."""
    constant = [x for x in matrices(window) if not x.is_head and _is_constant(window, x)]
    if not constant:
        return
    first = constant[0]
    stats = window.stats(first.weight)
    value = stats.moments.mean if stats is not None else math.nan
    yield Finding(
        rule=CONSTANT_WEIGHTS.id,
        severity=_symmetry(window, constant),
        cause=Cause.CONSTANT_SYMMETRIC,
        step=window.step,
        subject="weights",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"Every weight of {first.path} is {number(value)}: its {first.weight.shape[0]} units compute the "
        f"same and get the same gradient{_more(constant)}.",
        remedy=redraw_all(constant, 0.0),
        evidence={
            "value": value,
            "constant_layers": float(len(constant)),
            "layers": listed([x.path for x in constant]),
        },
    )


def _symmetry(window: Window, layers: Sequence[Layer]) -> Severity:
    """Critical where nothing can tell the units apart.

    Equal units whose successors differ get different gradients and part; two such layers in one chain, most of the
    model, or a table whose tokens all look the same, do not.
    """
    together = max((sum(x in layers for x in chain) for chain in window.model.chains), default=0)
    most = 2 * len(layers) > len(matrices(window))
    table = any(x.is_table and x.weight.role is not Role.POSITION for x in layers)
    return Severity.CRITICAL if together > 1 or most or table else Severity.WARNING


def _is_constant(window: Window, layer: Layer) -> bool:
    stats = window.stats(layer.weight)
    if stats is None or layer.weight.shape[0] < 2 or stats.moments.count < _SMALL or stats.moments.nonfinite_count:
        return False
    return stats.moments.min == stats.moments.max != 0.0


def check_duplicate(window: Window, limits: Limits) -> Iterable[Finding]:
    """Layers with units of the same (or the negated) weights."""
    found = [(x, _similarity(window, x)) for x in matrices(window) if not (x.is_head or x.is_table)]
    same = [(x, value) for x, value in found if value >= limits["similarity"] and (x.fan_in or 0) >= limits["fan_in"]]
    if not same:
        return
    first, value = same[0]
    stats = window.stats(first.weight)
    yield Finding(
        rule=DUPLICATE_UNITS.id,
        severity=_symmetry(window, [x for x, _ in same]),
        cause=Cause.CONSTANT_SYMMETRIC,
        step=window.step,
        subject="weights",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"Units of {first.path} have the same weights (|cosine| {value:.5f}, by chance about "
        f"{number(1 / math.sqrt(first.fan_in or 1))}): they compute and learn the same{_more([x for x, _ in same])}.",
        remedy=redraw_all([x for x, _ in same], stats.moments.std if stats else None),
        evidence={"row_similarity": value, "layers": listed([x.path for x, _ in same])},
    )


def _similarity(window: Window, layer: Layer) -> float:
    """The similarity now, of a layer that was drawn so: rows that start at zero make equal first steps and part."""
    values = [
        s.channels.row_similarity for s in (window.stats(layer.weight), window.first(layer.weight)) if s is not None
    ]
    return min(values) if len(values) == 2 and all(map(math.isfinite, values)) else 0.0


def _more(layers: Sequence[Layer]) -> str:
    return "" if len(layers) == 1 else f"; so it is in {len(layers) - 1} more"


ZERO_WEIGHTS: Final = Rule(
    id="zero-weights",
    family="weights",
    check=check_zero,
    needs=(Kind.WEIGHT,),
    title="All-zero weights",
    statistic="Every element of a weight matrix is zero. Critical where it stays so: a rectifier follows, or another "
    "matrix of the same chain is zero too, or it is frozen and on the only way. Info where the layer wakes up by "
    "itself.",
    harmless="A zero head, the zero last matrix of a residual branch (Fixup, ReZero, adaLN-zero, LoRA's B), zero "
    "positions: reported as info. Parameters that are no module's weight are not judged.",
    remedy="Draw the layer with the std that keeps its signal; the finding has the call with this layer's numbers.",
    source="Glorot and Bengio 2010, eq. 5-7: signal and gradient are products over layers.",
)
CONSTANT_WEIGHTS: Final = Rule(
    id="constant-weights",
    family="weights",
    check=check_constant,
    needs=(Kind.WEIGHT,),
    title="Constant weights",
    statistic="Smallest and largest element of a weight matrix are the same number, not zero. Critical for two layers "
    "of one chain, for most of the model, for a token table; one layer alone parts by itself and is a warning.",
    harmless="Norm gains, layer scales and biases have one axis or no fans and are not judged; nor is a constant head.",
    remedy="Draw the layers anew: any random scheme breaks the symmetry, the named std also keeps the signal.",
    source="Symmetry: units with equal weights get equal gradients.",
)
DUPLICATE_UNITS: Final = Rule(
    id="duplicate-units",
    family="weights",
    check=check_duplicate,
    limits={"similarity": 0.9999, "fan_in": 8},
    needs=(Kind.WEIGHT,),
    explained_by=("constant-weights",),
    title="Units with the same weights",
    statistic="Largest |cosine| among 64 evenly spaced rows of a weight matrix is at least `similarity`, with at least "
    "`fan_in` inputs. Critical as for constant weights.",
    harmless="Embedding rows (padding) and heads are not judged. Sub-pixel upsampling starts with equal groups of rows "
    "on purpose (ICNR).",
    remedy="Draw the layers anew; where the copies are meant (tiling, ICNR), nothing.",
    source="Rows drawn independently have a cosine of standard deviation 1/√fan_in.",
)
RULES: Final = (ZERO_WEIGHTS, CONSTANT_WEIGHTS, DUPLICATE_UNITS)
