"""What theory expects of a step, for the profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from initscope.hooks.moments import TensorStats
from initscope.hooks.theory import predicted_profile
from initscope.service.store.read_tensors import load_tensors


def expected_at(conn: Connection, run_no: int, records: Mapping[int, TensorStats]) -> dict[int, dict[str, Any]]:
    """Expected `rms` with its healthy band `low` to `high` by tensor_no, where theory has something to say."""
    predicted = predicted_profile(load_tensors(conn, run_no), records)
    return {tensor_no: asdict(expected) for tensor_no, expected in predicted.items()}
