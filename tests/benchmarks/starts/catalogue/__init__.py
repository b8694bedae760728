"""All cases by id, a file for each kind of architecture."""

from __future__ import annotations

from typing import Final

from tests.benchmarks.starts.case import Case
from tests.benchmarks.starts.catalogue import (
    decoders,
    encoders,
    generative,
    images,
    loops,
    recurrent,
    residual,
    vectors,
)

_ALL: Final = [
    *residual.CASES,
    *images.CASES,
    *recurrent.CASES,
    *encoders.CASES,
    *decoders.CASES,
    *vectors.CASES,
    *generative.CASES,
    *loops.CASES,
]
CASES: Final[dict[str, Case]] = {case.id: case for case in _ALL}
if len(CASES) != len(_ALL):
    raise ValueError("two cases have one id")
