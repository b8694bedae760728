"""Reading the description of a run's tensors. Inside the collector a `TensorInfo.key` is the tensor_no."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from initscope.hooks.vocabulary import Kind, Role
from initscope.hooks.wire import TensorInfo, Traits
from initscope.service.store.models import Tensor

_TENSOR = Tensor.__table__.c
_FIELDS = tuple(TensorInfo.__dataclass_fields__)
_DESCRIPTION: tuple[ColumnElement[Any], ...] = tuple(
    _TENSOR["tensor_no" if name == "key" else name] for name in _FIELDS
)


class TensorName(NamedTuple):
    """What a chart needs to say which tensor it shows."""

    tensor_no: int
    module_path: str
    name: str
    kind: str
    depth: int | None


def forward_order(tensor: TensorInfo) -> tuple[float, str, str, str]:
    """Sorting key: depth, then path; tensors without a depth last."""
    depth = math.inf if tensor.depth is None else tensor.depth
    return depth, tensor.module_path, tensor.name, tensor.kind.value


def load_tensors(conn: Connection, run_no: int) -> dict[int, TensorInfo]:
    """Descriptions by tensor_no, which stands for the wire's key inside the collector."""
    rows = conn.execute(select(*_DESCRIPTION).where(_TENSOR.run_no == run_no))
    return {row[0]: _to_tensor(row) for row in rows}


def _to_tensor(row: Sequence[Any]) -> TensorInfo:
    # By position: a thousand tensors are read for every chart and every new step.
    values = dict(zip(_FIELDS, row, strict=True))
    values["kind"], values["role"] = Kind(values["kind"]), Role(values["role"])
    if values["traits"] is not None:
        values["traits"] = Traits(**values["traits"])
    return TensorInfo(**values)


def list_tensors(conn: Connection, run_no: int, kind: Kind | None = None) -> list[TensorInfo]:
    """Tensors of a run in forward order."""
    tensors = load_tensors(conn, run_no).values()
    return sorted((t for t in tensors if kind in (None, t.kind)), key=forward_order)


def name_tensors(conn: Connection, run_no: int, tensor_nos: Sequence[int]) -> dict[int, TensorName]:
    """Names of those of the tensors that belong to the run."""
    c = _TENSOR
    query = select(c.tensor_no, c.module_path, c.name, c.kind, c.depth)
    rows = conn.execute(query.where(c.run_no == run_no, c.tensor_no.in_(tensor_nos)))
    return {row[0]: TensorName._make(row) for row in rows}


def order_tensors(conn: Connection, run_no: int, kinds: Sequence[Kind] = ()) -> list[TensorName]:
    """Names of tensors in forward order; of all kinds if none is named."""
    c = _TENSOR
    query = select(c.tensor_no, c.module_path, c.name, c.kind, c.depth).where(c.run_no == run_no)
    if kinds:
        query = query.where(c.kind.in_([kind.value for kind in kinds]))
    rows = conn.execute(query.order_by(c.depth.is_(None), c.depth, c.module_path, c.name, c.kind))
    return [TensorName._make(row) for row in rows]


def count_tensors(conn: Connection, run_no: int) -> dict[str, int]:
    """How many tensors of each kind a run has."""
    query = select(_TENSOR.kind, func.count()).where(_TENSOR.run_no == run_no).group_by(_TENSOR.kind)
    return dict(conn.execute(query).all())
