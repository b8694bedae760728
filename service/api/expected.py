"""What theory expects of a step, for the profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from initscope.hooks.moments import TensorStats
from initscope.hooks.theory import predicted_profile
from initscope.hooks.vocabulary import Kind
from initscope.service.store import read_stats
from initscope.service.store.read_tensors import load_tensors

_NEEDED = (Kind.WEIGHT, Kind.ACTIVATION, Kind.ACTIVATION_GRADIENT)


def expected_at(
    conn: Connection, key: tuple[int, int, int], records: Mapping[int, TensorStats], kinds: Sequence[Kind]
) -> dict[int, dict[str, Any]]:
    """`predicted` rms with its `tolerance` in octaves and the healthy band `low` to `high` by tensor_no.

    `key` is (run_no, attempt, step). Only where theory has something to say; see `hooks.theory.profile.Expected`.
    `records` are those of the `kinds` asked for (none: of all); what else the prediction rests on is read here.
    """
    run_no, attempt, step = key
    missing = [kind for kind in _NEEDED if kinds and kind not in kinds]
    others = read_stats.step_records(conn, run_no, attempt, step, missing) if missing else {}
    predicted = predicted_profile(load_tensors(conn, run_no), {**others, **records})
    return {tensor_no: asdict(expected) for tensor_no, expected in predicted.items()}
