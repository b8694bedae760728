"""Both encodings of the wire.

Columnar JSON is for people, packed columns for the client: the same header, with the columns behind it as
little-endian bytes. `parse_*` returns the header as plain data: the collector validates it against
`initscope.hooks.wire.Header`. Standard library only.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Final

from initscope.hooks import vocabulary as v
from initscope.hooks.wire import COLUMNS, Batch, Heartbeat, Records, WireError

_MAGIC: Final = b"ISW1"
_MAX_COLUMNS: Final = 4 * len(COLUMNS)
"""Leaves room for a newer client's; without a bound, constant columns would ask for memory that no byte paid for."""


def to_json(batch: Batch) -> bytes:
    """Columnar JSON: the header's fields and `records`, an object of equally long lists. Absent numbers are null."""
    body = _plain(batch.header)
    body["records"] = {
        name: [_json_number(x, absent=name in Records.FLOATS) for x in column]
        for name, column in batch.records.columns.items()
    }
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def to_binary(batch: Batch) -> bytes:
    """Magic, header length (uint32), header as JSON, then the columns in the order that the header lists them.

    A column whose values are all the same (nan_count, most of the time) is one number in the header instead.
    """
    body = _plain(batch.header)
    layout: list[list[Any]] = []
    chunks: list[bytes] = []
    for name, column in batch.records.columns.items():
        code = "f" if name in Records.FLOATS else "q"
        packed = column if isinstance(column, array) and column.typecode == code else array(code, column)
        raw = _little_endian(packed)
        size = packed.itemsize
        if len(packed) and raw == raw[:size] * len(packed):
            layout.append([name, "constant", _json_number(packed[0], absent=code == "f")])
        else:
            layout.append([name, code])
            chunks.append(raw)
    body["rows"] = len(batch.records)
    body["columns"] = layout
    head = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((_MAGIC, struct.pack("<I", len(head)), head, *chunks))


def parse_json(data: bytes) -> tuple[dict[str, Any], Records]:
    """The header as plain data (not validated) and the records; `WireError` for anything that is no batch."""
    body = _load_object(data)
    given = body.pop("records", {})
    if not isinstance(given, dict):
        raise WireError("records", "must be an object of columns")
    rows = max((len(c) for c in given.values() if isinstance(c, list)), default=0)
    columns: dict[str, Sequence[float]] = {}
    for name in COLUMNS:
        column = given.get(name)
        if column is None:
            column = _default_column(name, rows)
        if not isinstance(column, list) or len(column) != rows:
            raise WireError(f"records.{name}", f"must be a list of {rows} numbers, as long as the longest column")
        floats = name in Records.FLOATS
        columns[name] = [_read_number(x, f"records.{name}.{i}", floats) for i, x in enumerate(column)]
    return body, Records(columns)


def parse_binary(data: bytes) -> tuple[dict[str, Any], Records]:
    """The header as plain data (not validated) and the records; `WireError` for anything that is no batch."""
    if len(data) < 8 or data[:4] != _MAGIC:
        raise WireError("body", "does not begin with the magic of a packed batch")
    (head_length,) = struct.unpack_from("<I", data, 4)
    offset = 8 + head_length
    if offset > len(data):
        raise WireError("body", "is shorter than its header says")
    body = _load_object(data[8:offset])
    rows, layout = body.pop("rows", None), body.pop("columns", None)
    if not _is_int(rows) or not 0 <= rows <= v.MAX_DECODED_BYTES:
        raise WireError("rows", "must be a non-negative integer")
    if rows > v.MAX_RECORDS_PER_BATCH:
        raise WireError("rows", f"at most {v.MAX_RECORDS_PER_BATCH} records in a batch")
    if not isinstance(layout, list) or len(layout) > _MAX_COLUMNS:
        raise WireError("columns", f"must be a list of at most {_MAX_COLUMNS} columns")
    columns: dict[str, Sequence[float]] = {}
    for i, entry in enumerate(layout):
        name, column, offset = _read_column(entry, f"columns.{i}", rows, data, offset)
        if name in columns:
            raise WireError(f"columns.{i}", f"names {name} a second time")
        columns[name] = column
    if offset != len(data):
        raise WireError("body", f"has {len(data) - offset} bytes behind its last column")
    return body, Records({name: columns.get(name) or _default_column(name, rows) for name in COLUMNS})


def _read_column(entry: Any, where: str, rows: int, data: bytes, offset: int) -> tuple[str, Sequence[float], int]:
    if not isinstance(entry, list) or len(entry) not in (2, 3) or not isinstance(entry[0], str):
        raise WireError(where, "must be [name, code] or [name, 'constant', value]")
    name, code = entry[0], entry[1]
    floats = name in Records.FLOATS or name not in COLUMNS
    if code == "constant" and len(entry) == 3:
        return name, [_read_number(entry[2], where, floats)] * rows, offset
    # Columns of a newer client are read over, whatever their type.
    fitting = ["f" if floats else "q"] if name in COLUMNS else ["f", "q"]
    if code not in fitting:
        raise WireError(where, "has a code that does not fit its column")
    column: array[Any] = array(code)
    end = offset + rows * column.itemsize
    if end > len(data):
        raise WireError(where, "is longer than the body")
    column.frombytes(data[offset:end])
    if sys.byteorder == "big":
        column.byteswap()
    return name, column, end


def _load_object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:  # 5,000-digit integers and deep nesting end here too
        raise WireError("body", f"is not JSON: {type(error).__name__}") from None
    if not isinstance(body, dict):
        raise WireError("body", "must be a JSON object")
    return body


def _default_column(name: str, rows: int) -> list[Any]:
    if name in ("tensor", "step", "count") and rows:
        raise WireError(f"records.{name}", "is missing")
    return [math.nan if name in Records.FLOATS else 0] * rows


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_WORDS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _read_number(value: Any, where: str, floats: bool) -> float:
    if not floats:
        if _is_int(value) and -(2**63) <= value < 2**63:
            return int(value)
        raise WireError(where, "must be an integer of 64 bits")
    if value is None:
        return math.nan
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if isinstance(value, float) or (_is_int(value) and abs(value) < 2**63):
        return float(value)
    raise WireError(where, "must be a number, null, or one of NaN, Infinity, -Infinity as text")


def number_to_json(value: float | None) -> float | str | None:
    """A number that any JSON reader takes: non-finite values as text, absent ones as null."""
    if value is None or isinstance(value, int) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def number_from_json(value: Any) -> Any:
    """The inverse of `number_to_json`; anything else passes through."""
    return _WORDS.get(value, value) if isinstance(value, str) else value


def _json_number(value: float, *, absent: bool) -> float | str | None:
    return None if absent and math.isnan(value) else number_to_json(value)


def _little_endian(column: array[Any]) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()


def _plain(value: Any) -> Any:
    """JSON-ready data; fields of dataclasses at their default are left out."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(item) for k, item in value.items()}
    if isinstance(value, float):
        return number_to_json(value)
    if is_dataclass(value):
        given = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: _plain(item) for f, item in given if item != _default(f)}
    return value


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def heartbeat_to_json(beat: Heartbeat) -> bytes:
    """A heartbeat's body."""
    return json.dumps(_plain(beat), separators=(",", ":"), allow_nan=False).encode()
