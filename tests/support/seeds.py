"""Runs put straight into a database, for tests of the reading side."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert

from initscope.hooks.moments import ChannelStats, Moments, TensorStats, from_standardized
from initscope.service.store.models import (
    Attempt,
    FindingRow,
    FindingTransition,
    Run,
    ScalarRow,
    Session,
    Tensor,
    TensorStatsRow,
)


@dataclass(frozen=True)
class Seeded:
    """A run in the database: its key, its id of the API, and its tensors by (module_path, name, kind)."""

    run_no: int
    id: str
    tensors: Mapping[tuple[str, str, str], int]


def add_run(conn: Connection, name: str = "run", *, attempt: int = 0, **values: Any) -> tuple[int, str]:
    """A run with its attempts, which count as evaluated so that no worker adds findings; (run_no, id)."""
    now = values.pop("now", datetime.now(UTC))
    row = {
        "id": str(uuid.uuid4()), "project": "default", "run_id": uuid.uuid4().hex, "name": name, "status": "running",
        "note": "", "tags": [], "description": {}, "attempt": attempt, "last_step": None, "created_at": now,
        "last_seen_at": now, "last_step_at": now, "ended_at": None, **values,
    }  # fmt: skip
    run_no = conn.execute(insert(Run).values(**row).returning(Run.run_no)).scalar_one()
    attempts = [
        {"run_no": run_no, "number": n, "world_size": 1, "first_step": 0, "evaluated_step": 10**9, "created_at": now}
        for n in range(attempt + 1)
    ]
    conn.execute(insert(Attempt), attempts)
    return run_no, row["id"]


def add_session(conn: Connection, run_no: int, *, attempt: int = 0, **values: Any) -> None:
    """A session of a run."""
    now = datetime.now(UTC)
    row = {
        "session_id": uuid.uuid4().hex, "run_no": run_no, "attempt": attempt, "rank": 0, "world_size": 1,
        "host": "node1", "pid": 4242, "started_at": now.timestamp(), "first_seen_at": now, "last_seen_at": now,
        "last_step": 0, "status": "running", "books": {}, **values,
    }  # fmt: skip
    conn.execute(insert(Session).values(**row))


def add_tensor(conn: Connection, run_no: int, module_path: str, name: str, kind: str, **values: Any) -> int:
    """A tensor's description; its tensor_no."""
    row = {
        "run_no": run_no, "tensor_key": uuid.uuid4().int >> 75, "module_path": module_path, "name": name,
        "kind": kind, "role": "hidden", "module_type": "Linear", "shape": [64, 64], "dtype": "float32", "fan_in": 64.0,
        "fan_out": 64.0, "depth": None, "block": None, "activation_before": None, "activation_after": None,
        "norm_before": None, "norm_after": None, "residual": False, "tied_with": None, "trainable": True, **values,
    }  # fmt: skip
    return conn.execute(insert(Tensor).values(**row).returning(Tensor.tensor_no)).scalar_one()


def normal(rms: float, *, count: int = 4096, nan_count: int = 0, posinf_count: int = 0) -> TensorStats:
    """The record of centred normal numbers of that rms; nothing finite if all are NaN or infinite."""
    finite = count - nan_count - posinf_count
    value = rms if finite else math.nan
    moments = from_standardized(
        count=count, nan_count=nan_count, posinf_count=posinf_count, neginf_count=0, zero_count=0, mean=0.0 * value,
        std=value, skewness=0.0 * value, kurtosis=3.0 + 0.0 * value, min=-3 * value, max=3 * value,
    )  # fmt: skip
    return TensorStats(moments, ChannelStats(signal_fraction=0.5))


def record_row(run_no: int, tensor_no: int, step: int, stats: TensorStats, attempt: int = 0) -> dict[str, Any]:
    """A record as the columns of `tensor_stats`; absent is NULL."""
    m, ch = stats.moments, stats.channels
    counts = {n: getattr(m, n) for n in ("count", "nan_count", "posinf_count", "neginf_count", "zero_count")}
    moments = {n: getattr(m, n) for n in ("mean", "m2", "m3", "m4", "min", "max")}
    channels = {n: getattr(ch, n) for n in ("signal_fraction", "dead_fraction", "saturated_fraction", "row_similarity")}
    floats = {n: None if math.isnan(x) else x for n, x in {**moments, **channels}.items()}
    key = {"run_no": run_no, "tensor_no": tensor_no, "attempt": attempt, "step": step, "session_count": 1}
    return {**key, **counts, **floats}


def add_records(conn: Connection, rows: Iterable[dict[str, Any]]) -> None:
    """Records as `record_row` makes them."""
    conn.execute(insert(TensorStatsRow), list(rows))


def add_moments(conn: Connection, run_no: int, tensor_no: int, series: Mapping[int, Moments], attempt: int = 0) -> None:
    """Records of one tensor by step."""
    add_records(conn, [record_row(run_no, tensor_no, s, TensorStats(m), attempt) for s, m in series.items()])


def add_scalars(
    conn: Connection, run_no: int, name: str, points: Iterable[tuple[int, float]], attempt: int = 0
) -> None:
    """A logged number over steps."""
    rows = [
        {"run_no": run_no, "name": name, "attempt": attempt, "step": step, **_classify(value)} for step, value in points
    ]
    conn.execute(insert(ScalarRow), rows)


def _classify(value: float) -> dict[str, Any]:
    if math.isfinite(value):
        return {"value": value, "value_class": "finite"}
    kind = "nan" if math.isnan(value) else "posinf" if value > 0 else "neginf"
    return {"value": None, "value_class": kind}


def add_finding(conn: Connection, run_no: int, rule: str, severity: str, *, at_step: int = 0, **values: Any) -> str:
    """An open finding with its transition; its id."""
    now = datetime.now(UTC)
    row = {
        "id": str(uuid.uuid4()), "run_no": run_no, "attempt": 0, "episode": 0, "rule": rule, "severity": severity,
        "cause": "too_small_vanish", "state": "open", "module_path": "layers.3", "tensor_name": "weight",
        "kind": "weight", "parent": None, "first_step": at_step, "opened_step": at_step, "last_step": at_step,
        "resolved_step": None, "seen_count": 1, "clean_count": 0, "diagnosis": "The signal halves at every layer.",
        "remedy": "torch.nn.init.kaiming_normal_(model.layers[3].weight)", "evidence": {"slope": -1.0},
        "opened_at": now, "updated_at": now, **values,
    }  # fmt: skip
    row.setdefault("fingerprint", f"{rule}|{row['module_path']}|{row['tensor_name']}|{row['kind']}")
    number = conn.execute(insert(FindingRow).values(**row).returning(FindingRow.finding_no)).scalar_one()
    change = {"from_state": None, "to_state": row["state"], "severity": severity, "step": at_step, "at": now}
    conn.execute(insert(FindingTransition).values(finding_no=number, **change))
    return str(row["id"])


def add_mlp(
    conn: Connection,
    name: str = "mlp",
    *,
    layers: int = 12,
    steps: Sequence[int] = range(21),
    gain: float = 0.7,
    status: str = "running",
) -> Seeded:
    """A deep MLP whose forward and backward signal changes by `gain` a layer: five kinds, loss, one finding."""
    run_no, run = add_run(conn, name, status=status, last_step=max(steps), description={"model_class": "DeepMLP"})
    tensors = {}
    for depth in range(layers):
        path = f"layers.{depth}"
        for kind in ("weight", "gradient", "update"):
            tensors[path, "weight", kind] = add_tensor(conn, run_no, path, "weight", kind, depth=depth)
        for kind in ("activation", "activation_gradient"):
            tensors[path, "output", kind] = add_tensor(conn, run_no, path, "output", kind, depth=depth)
    rows = [
        record_row(run_no, no, step, normal(_mlp_rms(kind, int(path.rpartition(".")[2]), layers, gain, step)))
        for (path, _, kind), no in tensors.items()
        for step in steps
    ]
    add_records(conn, rows)
    add_scalars(conn, run_no, "loss", [(step, 2.3 * math.exp(-step / 400)) for step in steps])
    return Seeded(run_no, run, tensors)


def _mlp_rms(kind: str, depth: int, layers: int, gain: float, step: int) -> float:
    drift = 1.0 + 0.002 * step
    if kind == "activation":
        return gain**depth * drift
    if kind == "activation_gradient":
        return 1e-3 * gain ** (layers - 1 - depth) * drift
    if kind == "gradient":
        return 1e-3 * gain ** (layers - 1)
    return 0.125 if kind == "weight" else 1e-4
