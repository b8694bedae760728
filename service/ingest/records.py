"""Judges records one by one and turns the good ones into rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final

from initscope.hooks.vocabulary import MAX_COUNT, MAX_STEP
from initscope.hooks.wire import COLUMNS, Records
from initscope.service.store.rows import Row

MAX_LISTED: Final = 10
"""Rejected records that an answer lists; it counts all of them."""
# float32 reductions over millions of elements are off by less; the checks look for nonsense, not for rounding.
_SLACK: Final = 0.05
_MESSAGES: Final = {
    "unknown_tensor": "no tensor of this key was described (or the run has too many)",
    "bad_step": f"step must be between 0 and {MAX_STEP}",
    "bad_count": f"counts must be between 0 and {MAX_COUNT}, and non-finite plus zero elements at most `count`",
    "bad_moments": "min, max, mean and std contradict each other, or min and max are missing",
    "duplicate_row": "the tensor has a record of this step already",
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that is not stored, by its index in the batch."""

    index: int
    code: str

    @property
    def message(self) -> str:
        """Why, in words."""
        return _MESSAGES[self.code]


@dataclass(slots=True)
class Judged:
    """Rows to store, and the records that are none. `indices[i]` is the record that `rows[i]` was."""

    rows: list[Row] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)


def judge(records: Records, run_no: int, attempt: int, tensors: Mapping[int, int]) -> Judged:
    """Rows of an attempt; `tensors` gives the tensor_no of each described key."""
    judged = Judged()
    seen: set[tuple[int, int]] = set()
    columns = zip(*(records.columns[name] for name in COLUMNS), strict=True)
    for index, (key, step, *values) in enumerate(columns):
        tensor_no = tensors.get(int(key))
        code = _fault(tensor_no, step, values)
        if code is None and (tensor_no, step) in seen:
            code = "duplicate_row"
        if code is not None or tensor_no is None:
            judged.rejected.append(Rejection(index, code or "unknown_tensor"))
            continue
        seen.add((tensor_no, int(step)))
        judged.rows.append((run_no, tensor_no, attempt, int(step), *_stored(*values), 1))
        judged.indices.append(index)
    return judged


def _fault(tensor_no: int | None, step: int, values: list[float]) -> str | None:
    count, nan, posinf, neginf, zero, mean, std, _, kurtosis, low, high, *_ = values
    if tensor_no is None:
        return "unknown_tensor"
    if not 0 <= step <= MAX_STEP:
        return "bad_step"
    finite = count - nan - posinf - neginf
    if min(nan, posinf, neginf, zero) < 0 or count > MAX_COUNT or zero > finite:
        return "bad_count"
    return "bad_moments" if finite and not _consistent(mean, std, kurtosis, low, high) else None


def _consistent(mean: float, std: float, kurtosis: float, low: float, high: float) -> bool:
    """Min and max are there; mean and std fit them, or are absent or infinite because their sums overflowed."""
    slack = _SLACK * max(abs(low), abs(high))
    if not low <= high or std < 0 or kurtosis < 0:
        return False
    is_mean_outside = isfinite(mean) and not low - slack <= mean <= high + slack
    return not is_mean_outside and not (isfinite(std) and std > (high - low) / 2 + slack)


def _stored(
    count: int, nan: int, posinf: int, neginf: int, zero: int,
    mean: float, std: float, skewness: float, kurtosis: float, low: float, high: float,
    signal: float, dead: float, saturated: float, similarity: float,
) -> tuple[int | float | None, ...]:  # fmt: skip
    """Power sums instead of the standardized form (`hooks.moments.from_standardized`), NULL instead of NaN."""
    finite = count - nan - posinf - neginf
    floats: tuple[float, ...] = (signal, dead, saturated, similarity)
    if finite:
        m2 = finite * std * std
        m3, m4 = finite * skewness * std * std * std, finite * kurtosis * std * std * std * std
        floats = (mean, m2, m3, m4, low, high, *floats)
    else:
        floats = (_NAN, _NAN, _NAN, _NAN, _NAN, _NAN, *floats)
    # NaN is the only number that differs from itself.
    return (count, nan, posinf, neginf, zero, *(x if x == x else None for x in floats))


_NAN: Final = float("nan")
