"""Runs beside each other: which layers correspond, where two starts part, and how activations scale with width.

Pure, like the rules: a function of descriptions and records, without torch, clock, I/O or chance.
"""

from initscope.hooks.comparison.coordinates import (
    GROWTH,
    Coordinate,
    CoordinateCheck,
    Slope,
    Subject,
    check_coordinates,
    widths_of,
)
from initscope.hooks.comparison.differences import (
    THRESHOLD,
    Comparison,
    Difference,
    KindSummary,
    SchemePair,
    Snapshot,
    compare,
)
from initscope.hooks.comparison.pairing import ModulePair, Pairing, pair_modules

__all__ = [
    "GROWTH",
    "THRESHOLD",
    "Comparison",
    "Coordinate",
    "CoordinateCheck",
    "Difference",
    "KindSummary",
    "ModulePair",
    "Pairing",
    "SchemePair",
    "Slope",
    "Snapshot",
    "Subject",
    "check_coordinates",
    "compare",
    "pair_modules",
    "widths_of",
]
