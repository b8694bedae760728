"""The scheme of every weight of a run, worked out on read from the first step's records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from initscope.hooks.schemes import Scheme, recognise
from initscope.hooks.vocabulary import Kind
from initscope.hooks.wire import TensorInfo
from initscope.service.store.read_stats import first_step, step_records


def schemes_at_start(
    conn: Connection, run_no: int, attempt: int, tensors: Mapping[int, TensorInfo]
) -> dict[int, dict[str, Any]]:
    """What recognition says of each weight with two or more axes, by tensor_no; empty before the first record."""
    step = first_step(conn, run_no, attempt)
    if step is None:
        return {}
    records = step_records(conn, run_no, attempt, step, (Kind.WEIGHT,))
    return {tensor_no: _plain(scheme) for tensor_no, scheme in recognise(tensors, records).by_key.items()}


def _plain(scheme: Scheme) -> dict[str, Any]:
    return {
        "name": scheme.name,
        "formula": scheme.formula,
        "family": scheme.family.value,
        "confidence": scheme.confidence,
        "std": scheme.std,
        "expected_std": scheme.expected_std,
        "alternatives": list(scheme.alternatives),
    }
