"""Records in the database: written in bulk, past the ORM, by what each database is fastest at."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from initscope.hooks.moments import ABSENT, ChannelStats, Moments, TensorStats
from initscope.hooks.vocabulary import MAX_COUNT
from initscope.service.store.models import TensorStatsRow

Row: TypeAlias = tuple[Any, ...]
"""Values in the order of `COLUMNS`; NULL where a moment is absent."""
Key: TypeAlias = tuple[int, int]
"""(tensor_no, step) inside one attempt."""

COLUMNS: Final = tuple(column.name for column in TensorStatsRow.__table__.columns)
_LIST: Final = ", ".join(COLUMNS)
_KEY_COLUMNS: Final = ("run_no", "tensor_no", "attempt", "step")
TENSOR_NO: Final = COLUMNS.index("tensor_no")
STEP: Final = COLUMNS.index("step")
_FIRST_COUNT: Final = COLUMNS.index("count")
_FIRST_FLOAT: Final = COLUMNS.index("mean")
_SESSION_COUNT: Final = COLUMNS.index("session_count")
_INSERT: Final = f"INSERT INTO tensor_stats ({_LIST}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
_REPLACE: Final = (
    f"{_INSERT} ON CONFLICT ({', '.join(_KEY_COLUMNS)}) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in _KEY_COLUMNS)
)  # fmt: skip
_STAGE: Final = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS incoming_stats (LIKE tensor_stats INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
)
_UPDATE: Final = (
    "UPDATE tensor_stats t SET "  # noqa: S608 - column names of our own table
    + ", ".join(f"{name} = i.{name}" for name in COLUMNS if name not in _KEY_COLUMNS)
    + " FROM incoming_stats i WHERE "
    + " AND ".join(f"t.{name} = i.{name}" for name in _KEY_COLUMNS)
)


def key_of(row: Row) -> Key:
    """(tensor_no, step) of a row."""
    return row[TENSOR_NO], row[STEP]


def insert(connection: Connection, rows: Sequence[Row]) -> None:
    """Writes rows whose keys are new. An IntegrityError, after which the transaction is lost, if one of them exists.

    No savepoint guards it: SQLite would copy every page that the rows touch.
    """
    if rows and connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_INSERT, list(rows))
    elif rows:
        _copy(connection, "tensor_stats", rows)


def find(connection: Connection, run_no: int, attempt: int, keys: Iterable[Key]) -> dict[Key, Row]:
    """The stored rows of those keys, in one statement."""
    pairs = list(keys)
    columns = ", ".join(f"s.{name}" for name in COLUMNS)
    if connection.dialect.name == "sqlite":
        query = (
            f"SELECT {columns} FROM json_each(?) k CROSS JOIN tensor_stats s "  # noqa: S608 - column names of our own table
            "ON s.run_no = ? AND s.attempt = ? AND s.tensor_no = json_extract(k.value, '$[0]') "
            "AND s.step = json_extract(k.value, '$[1]')"
        )
        parameters: tuple[Any, ...] = (json.dumps(pairs), run_no, attempt)
    else:
        query = (
            f"SELECT {columns} FROM unnest(%s::bigint[], %s::bigint[]) k (tensor_no, step) "  # noqa: S608
            "JOIN tensor_stats s ON s.run_no = %s AND s.attempt = %s AND s.tensor_no = k.tensor_no AND s.step = k.step"
        )
        parameters = ([key[0] for key in pairs], [key[1] for key in pairs], run_no, attempt)
    found = connection.exec_driver_sql(query, parameters)
    return {key_of(row): tuple(row) for row in found}


def merge(connection: Connection, run_no: int, attempt: int, rows: Sequence[Row]) -> frozenset[Key]:
    """Writes rows of one more session: new keys as they are, others merged exactly into what other sessions sent.

    The caller holds the run's lock: between the reading and the writing nobody else may touch these keys. The answer
    is the keys of rows that were left out, because the count of both together is more than a column holds.
    """
    stored = find(connection, run_no, attempt, map(key_of, rows))
    beyond = frozenset(key for row in rows if _is_beyond(stored.get(key := key_of(row)), row))
    fresh = [row for row in rows if key_of(row) not in stored]
    known = [row for row in rows if key_of(row) in stored and key_of(row) not in beyond]
    _write(connection, fresh, [_merged(stored[key_of(row)], row) for row in known])
    return beyond


def _is_beyond(stored: Row | None, row: Row) -> bool:
    return stored is not None and bool(stored[_FIRST_COUNT] + row[_FIRST_COUNT] > MAX_COUNT)


def _write(connection: Connection, fresh: Sequence[Row], merged: Sequence[Row]) -> None:
    if connection.dialect.name == "sqlite":
        if fresh or merged:
            connection.exec_driver_sql(_REPLACE, [*fresh, *merged])
        return
    if fresh:
        _copy(connection, "tensor_stats", fresh)
    if merged:
        connection.exec_driver_sql(_STAGE)
        _copy(connection, "incoming_stats", merged)
        connection.exec_driver_sql(_UPDATE)
        # A retried transaction may stage twice.
        connection.exec_driver_sql("DELETE FROM incoming_stats")


def to_stats(row: Row) -> TensorStats:
    """The statistics of a row, exactly as stored."""
    counts = row[_FIRST_COUNT:_FIRST_FLOAT]
    floats = [ABSENT if x is None else x for x in row[_FIRST_FLOAT:_SESSION_COUNT]]
    return TensorStats(Moments(*counts, *floats[:6]), ChannelStats(*floats[6:]))


def _merged(stored: Row, row: Row) -> Row:
    stats = to_stats(stored).merge(to_stats(row))
    m, ch = stats.moments, stats.channels
    floats = (
        m.mean, m.m2, m.m3, m.m4, m.min, m.max,
        ch.signal_fraction, ch.dead_fraction, ch.saturated_fraction, ch.row_similarity,
    )  # fmt: skip
    return (
        *row[:_FIRST_COUNT], m.count, m.nan_count, m.posinf_count, m.neginf_count, m.zero_count,
        *(x if x == x else None for x in floats), stored[_SESSION_COUNT] + row[_SESSION_COUNT],
    )  # fmt: skip


def _copy(connection: Connection, table: str, rows: Iterable[Row]) -> None:
    """Binary COPY through the driver; its errors in SQLAlchemy's clothes, so that callers see one kind."""
    driver: Any = connection.connection.driver_connection
    statement = f"COPY {table} ({_LIST}) FROM STDIN (FORMAT BINARY)"
    errors: Any = connection.dialect.loaded_dbapi
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(_packed(rows))
    except errors.IntegrityError as error:
        raise IntegrityError(statement, None, error) from error
    except errors.OperationalError as error:
        raise OperationalError(statement, None, error) from error
    except errors.Error as error:
        raise DBAPIError(statement, None, error) from error


def _packed(rows: Iterable[Row]) -> bytes:
    """PostgreSQL's binary COPY format: signature, flags, rows of length-prefixed fields, trailer."""
    parts = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
    for row in rows:
        pack, arrange = _layout(tuple([x is None for x in row]))
        parts.append(pack(*arrange((*row, 8, -1, len(row)))))
    parts.append(b"\xff\xff")
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _layout(absent: tuple[bool, ...]) -> tuple[Callable[..., bytes], Callable[[Row], Row]]:
    """How a row with these NULLs is packed, and the order that its values and lengths are packed in.

    The order is of places in (*values, 8, -1, number of fields): a field is its length and value, or only -1.
    """
    size, null, count = range(len(absent), len(absent) + 3)
    format_, places = "!h", [count]
    for i, is_absent in enumerate(absent):
        format_ += "i" if is_absent else "iq" if i < _FIRST_FLOAT or i == _SESSION_COUNT else "id"
        places += [null] if is_absent else [size, i]
    return struct.Struct(format_).pack, itemgetter(*places)
