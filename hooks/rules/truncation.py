"""The rule on truncated normal draws: a std that truncation took a part of, and draws that truncation broke."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed, number, redraw_all, weight_code
from initscope.hooks.rules.signals import is_trained, matrices
from initscope.hooks.rules.window import Window
from initscope.hooks.schemes import Family
from initscope.hooks.vocabulary import Cause, Kind, Severity

SHRINK: Final = 0.87962566
"""Std of a normal that is cut at two of its own stds."""


def check_truncation(window: Window, limits: Limits) -> Iterable[Finding]:
    """Weights that are too small by what truncation takes, and weights with outliers that no draw has."""
    if is_trained(window):
        return
    yield from _uncompensated(window)
    broken = [x for x in matrices(window) if _is_broken(window, x, limits)]
    if broken:
        yield _broken_finding(window, broken)


def _uncompensated(window: Window) -> Iterable[Finding]:
    found = [x for x in matrices(window) if not x.is_table and _is_uncompensated(window, x)]
    if len(found) < 2:
        return
    first = found[0]
    scheme = window.recognition.by_key[first.weight.key]
    yield Finding(
        rule=TRUNCATION.id,
        severity=Severity.INFO,
        cause=Cause.TRUNCATION,
        step=window.step,
        subject="uncompensated",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{first.path} and {len(found) - 1} more layers follow {scheme.formula or scheme.name}, truncated at "
        f"two stds: that leaves {SHRINK:.2f} of the std, {number(scheme.std)}, and costs 0.19 octaves a layer.",
        remedy="\n".join(f"{weight_code(x)}.data.div_({SHRINK})" for x in found[:6])
        + (f"\n# and {len(found) - 6} more layers in the same way" if len(found) > 6 else ""),
        evidence={"std": scheme.std, "shrink": SHRINK, "layers": listed([x.path for x in found])},
    )


def _is_uncompensated(window: Window, layer: Layer) -> bool:
    scheme = window.recognition.by_key.get(layer.weight.key)
    return (
        scheme is not None
        and scheme.family is Family.TRUNCATED_NORMAL
        and scheme.is_compensated is False
        and not scheme.name.startswith("fixed_")
    )


def _is_broken(window: Window, layer: Layer, limits: Limits) -> bool:
    """Whether a few elements lie where no draw comes, and the rest is an ordinary draw without structure."""
    stats, traits = window.stats(layer.weight), layer.weight.traits
    if stats is None or stats.moments.count < limits["elements"] or traits is None or traits.spectral_ratio is None:
        return False
    m = stats.moments
    if not m.std > 0.0 or m.zero_count > 0.1 * m.count:
        return False
    scheme = window.recognition.by_key.get(layer.weight.key)
    is_known = scheme is not None and scheme.family is Family.BROKEN_TRUNCATION
    far = m.kurtosis > limits["kurtosis"] and m.abs_max > limits["largest"] * m.std
    # In kurtosis · std⁴ · n = Σx⁴: how many elements of the largest size would make it.
    few = m.kurtosis * m.std**4 * m.count / m.abs_max**4 < limits["share"] * m.count
    return far and few and (is_known or traits.spectral_ratio < limits["spectral"])


def _broken_finding(window: Window, broken: Sequence[Layer]) -> Finding:
    first = broken[0]
    stats = window.stats(first.weight)
    largest, std, kurtosis = (
        (stats.moments.abs_max, stats.moments.std, stats.moments.kurtosis) if stats is not None else (math.nan,) * 3
    )
    more = "" if len(broken) == 1 else f"; so it is in {len(broken) - 1} more"
    return Finding(
        rule=TRUNCATION.id,
        # One tensor may have been made so; several are the work of one broken function.
        severity=Severity.CRITICAL if len(broken) > 1 else Severity.WARNING,
        cause=Cause.TRUNCATION,
        step=window.step,
        subject="broken",
        module_path=first.path,
        tensor_name=first.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"A few weights of {first.path} are {number(largest)}, {number(largest / std)} times their std "
        f"(kurtosis {number(kurtosis)}, a normal draw has 3){more}: a truncated normal whose outliers were set to its "
        "bounds.",
        remedy=f"# draw in float32 and cast afterwards, or with a torch whose trunc_normal_ is mended:\n"
        f"{redraw_all(broken, std)}",
        evidence={
            "abs_max": largest,
            "std": std,
            "kurtosis": kurtosis,
            "layers": listed([x.path for x in broken]),
        },
    )


TRUNCATION: Final = Rule(
    id="truncation",
    family="truncation",
    check=check_truncation,
    limits={"kurtosis": 10.0, "largest": 8.0, "share": 0.01, "elements": 1024, "spectral": 1.2},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    explained_by=("uninitialized-weights",),
    title="Truncated normal draws that went wrong",
    statistic="A formula times 0.8796, with the shape of a normal cut at two stds: info. Kurtosis above `kurtosis` and "
    "a largest weight of `largest` stds, made by less than `share` of at least `elements` elements, with a spectral "
    "ratio under `spectral` or all of them at one bound: warning in one matrix, critical in several.",
    harmless="`trunc_normal_(w, std=0.02)` cuts at ±2, which is no cut at all. Trained weights have heavy tails, and a "
    "spectral ratio to match. Sparse draws have zeros.",
    remedy="Divide by 0.8796; draw in float32, then cast.",
    source="The std of a standard normal cut at ±2 is 0.87962566. Inverse error functions of ±1 are infinite and were "
    "clamped to the bounds.",
)
RULES: Final = (TRUNCATION,)
