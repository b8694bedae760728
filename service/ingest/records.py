"""Judges records one by one and turns the good ones into rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from initscope.hooks.vocabulary import MAX_COUNT, MAX_STEP
from initscope.hooks.wire import COLUMNS, Records
from initscope.service.store.rows import Row

MAX_LISTED: Final = 10
"""Rejected records that an answer lists; it counts all of them."""
# float32 reductions over millions of elements are off by less; the checks look for nonsense, not for rounding.
_SLACK: Final = 0.05
_ABSENT: Final = math.nan
_MESSAGES: Final = {
    "unknown_tensor": "no tensor of this key was described (or the run has too many)",
    "bad_step": f"step must be between 0 and {MAX_STEP}",
    "bad_count": f"counts must be between 0 and {MAX_COUNT}, non-finite plus zero elements at most `count`, and "
    f"those of all ranks together at most {MAX_COUNT}",
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
    seen: set[tuple[int | None, int]] = set()
    index = -1
    # One flat loop: this runs for every record that anybody sends, and a call costs as much as all of its arithmetic.
    for (
        key, step, count, nan, posinf, neginf, zero, mean, std, skewness, kurtosis, low, high,
        signal, dead, saturated, similarity,
    ) in zip(*(records.columns[name] for name in COLUMNS), strict=True):  # fmt: skip
        index += 1
        tensor_no = tensors.get(key)
        finite = count - nan - posinf - neginf
        code = None
        if tensor_no is None:
            code = "unknown_tensor"
        elif not 0 <= step <= MAX_STEP:
            code = "bad_step"
        elif nan < 0 or posinf < 0 or neginf < 0 or not 0 <= zero <= finite or count > MAX_COUNT:
            code = "bad_count"
        elif (tensor_no, step) in seen:
            code = "duplicate_row"
        elif not finite:
            mean = std = skewness = kurtosis = low = high = _ABSENT
        elif not (low <= mean <= high and 0.0 <= std <= high - low and kurtosis >= 0.0) and not _consistent(
            mean, std, kurtosis, low, high
        ):
            code = "bad_moments"
        if code is not None:
            judged.rejected.append(Rejection(index, code))
            continue
        seen.add((tensor_no, step))
        variance = std * std
        m2, m3, m4 = finite * variance, finite * skewness * variance * std, finite * kurtosis * variance * variance
        # NULL instead of NaN, which is the only number that differs from itself.
        judged.rows.append((
            run_no, tensor_no, attempt, step, count, nan, posinf, neginf, zero,
            mean if mean == mean else None, m2 if m2 == m2 else None,
            m3 if m3 == m3 else None, m4 if m4 == m4 else None,
            low if low == low else None, high if high == high else None,
            signal if signal == signal else None, dead if dead == dead else None,
            saturated if saturated == saturated else None, similarity if similarity == similarity else None, 1,
        ))  # fmt: skip
        judged.indices.append(index)
    return judged


def _consistent(mean: float, std: float, kurtosis: float, low: float, high: float) -> bool:
    """Min and max are there; mean and std fit them, or are absent or infinite because their sums overflowed."""
    slack = _SLACK * max(abs(low), abs(high))
    if not low <= high or std < 0 or kurtosis < 0:
        return False
    is_mean_outside = math.isfinite(mean) and not low - slack <= mean <= high + slack
    return not is_mean_outside and not (math.isfinite(std) and std > (high - low) / 2 + slack)
