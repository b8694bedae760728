"""Schemes that are a structure rather than a scale: zero, constant, identity, two-valued, orthogonal, sparse. Pure."""

from __future__ import annotations

import math
from typing import Final

from initscope.hooks.schemes.family import Shape
from initscope.hooks.schemes.scheme import Family, Scheme
from initscope.hooks.wire import TensorInfo

_GAINS: Final = (("1", 1.0), ("√2", math.sqrt(2.0)), ("5/3", 5.0 / 3.0), ("3/4", 0.75), ("1/2", 0.5))
_CLOSE: Final = 2e-3


def structural(info: TensorInfo, shape: Shape) -> Scheme:
    """The scheme of a weight whose family is no plain draw; a family without a formula gets the family's name."""
    m, family = shape.moments, shape.family
    plain = Scheme(family=family, name=family.value, std=m.std, confidence=shape.confidence)
    if family is Family.ORTHOGONAL:
        return _orthogonal(info, shape)
    formula = {
        Family.ZERO: "0",
        Family.CONSTANT: f"{m.max:.4g}",
        Family.IDENTITY: f"{m.max if m.max > 0 else m.min:.4g}·identity",
        Family.TWO_VALUED: f"±{m.abs_max:.4g}",
        Family.SPARSE: f"N(0, {m.std:.4g}) where not zero",
        Family.BROKEN_TRUNCATION: f"outliers at {m.abs_max:.4g}",
    }.get(family, "")
    return Scheme(
        family=family,
        name=plain.name,
        formula=formula,
        std=plain.std,
        expected_std=plain.std if formula and family is not Family.BROKEN_TRUNCATION else None,
        confidence=plain.confidence,
    )


def _orthogonal(info: TensorInfo, shape: Shape) -> Scheme:
    """Elements of a semi-orthogonal r × c matrix of gain g have std g/√max(r, c) (Saxe et al. 2014)."""
    rows, columns = info.shape[0], math.prod(info.shape[1:])
    size = shape.moments.rms
    gain = size * math.sqrt(max(rows, columns))
    usual = list(_GAINS)
    if rows > columns:
        # Gates and fused projections are drawn part by part: the columns of the stack are orthogonal too.
        usual += [(f"1 in each of {parts} parts", math.sqrt(parts)) for parts in (3, 4)]
    words, value = next(((w, g) for w, g in usual if abs(gain / g - 1.0) < _CLOSE), (f"{gain:.4g}", gain))
    return Scheme(
        family=Family.ORTHOGONAL,
        name="orthogonal",
        formula=f"g/√max(rows, columns), g = {words}",
        std=shape.moments.std,
        expected_std=value / math.sqrt(max(rows, columns)),
        confidence=shape.confidence,
    )
