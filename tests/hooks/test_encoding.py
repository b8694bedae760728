from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from initscope.hooks import encoding
from initscope.hooks import vocabulary as v
from initscope.hooks.wire import COLUMNS, Batch, Books, Header, Heartbeat, Records, WireError
from tests.support.batches import batches, example, headers

HEADER = TypeAdapter(Header)
Encode = Callable[[Batch], bytes]
Parse = Callable[[bytes], tuple[dict[str, Any], Records]]
ENCODINGS = [
    pytest.param(encoding.to_json, encoding.parse_json, id="json"),
    pytest.param(encoding.to_binary, encoding.parse_binary, id="binary"),
]
both = pytest.mark.parametrize(("encode", "parse"), ENCODINGS)
parsers = pytest.mark.parametrize("parse", [encoding.parse_json, encoding.parse_binary])


def exact(records: Records) -> dict[str, list[str]]:
    """Columns as text in which NaN equals NaN and -0.0 differs from 0.0."""
    return {name: [repr(float(x) if name in Records.FLOATS else int(x)) for x in column]
            for name, column in records.columns.items()}  # fmt: skip


@both
@given(batch=batches)
def test_what_was_encoded_is_decoded(encode: Encode, parse: Parse, batch: Batch) -> None:
    body, records = parse(encode(batch))
    assert repr(HEADER.validate_python(body)) == repr(batch.header)
    assert exact(records) == exact(batch.records)


@given(batch=batches)
def test_both_encodings_say_the_same(batch: Batch) -> None:
    packed, packed_records = encoding.parse_binary(encoding.to_binary(batch))
    plain, plain_records = encoding.parse_json(encoding.to_json(batch))
    assert packed == plain
    assert exact(packed_records) == exact(plain_records)


SPECIAL = [math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-45, -1.17549421e-38, 3.4028234663852886e38, 1.0]


@both
def test_special_numbers_arrive_as_they_left(encode: Encode, parse: Parse) -> None:
    batch = Batch(example().header)
    for name, column in batch.records.columns.items():
        column.extend(SPECIAL if name in Records.FLOATS else [2**63 - 1, -(2**63), *range(len(SPECIAL) - 2)])  # type: ignore[attr-defined]
    _, records = parse(encode(batch))
    assert exact(records) == exact(batch.records)
    assert records.columns["min"][0] != records.columns["min"][0]
    assert math.copysign(1.0, records.columns["min"][3]) == -1.0
    assert 0.0 < records.columns["min"][5] < 1e-44


@both
@pytest.mark.parametrize("value", SPECIAL)
def test_a_column_of_one_number_arrives_as_that_number(encode: Encode, parse: Parse, value: float) -> None:
    batch = Batch(example().header)
    for name, column in batch.records.columns.items():
        column.extend([value] * 3 if name in Records.FLOATS else [5, 6, 7])  # type: ignore[attr-defined]
    _, records = parse(encode(batch))
    assert exact(records)["std"] == exact(batch.records)["std"]


def test_a_number_beyond_float32_travels_as_infinity_and_never_raises() -> None:
    batch = Batch(example().header)
    for name, column in batch.records.columns.items():
        column.append(-1e300 if name in Records.FLOATS else 1)  # type: ignore[attr-defined]
    for encode, parse in (p.values for p in ENCODINGS):
        assert list(parse(encode(batch))[1].columns["mean"]) == [-math.inf]


def test_columns_of_one_value_cost_nothing_for_each_row() -> None:
    records = Records.empty()
    key, step, stats = example().records.row(0)
    for i in range(1000):
        records.append(key, step + i, stats)
    size = len(encoding.to_binary(Batch(example().header, records)))
    assert size - len(encoding.to_binary(Batch(example().header))) < 9 * 1000  # only the step column is there in full


def test_a_record_costs_at_most_seventy_bytes_and_fifty_compressed() -> None:
    import gzip
    import random

    rng, records, key = random.Random(1), Records.empty(), example().records.row(0)[0]
    for i in range(1000):
        for name, column in records.columns.items():
            value = {"tensor": key + i * 7919, "step": 40, "count": 4096 * (1 + i % 3)}.get(name, 0)
            column.append(rng.gauss(0, 1) if name in COLUMNS[7:13] else value)  # type: ignore[attr-defined]
    bare = Batch(Header(run=example().header.run, session=example().header.session, sequence=1))
    body = encoding.to_binary(Batch(bare.header, records))
    overhead = len(encoding.to_binary(bare))
    assert (len(body) - overhead) / 1000 <= 70
    assert len(gzip.compress(body, 6)) / 1000 <= 50


@parsers
@given(data=st.binary(max_size=200) | st.binary(max_size=120).map(lambda b: b"ISW1" + struct.pack("<I", len(b)) + b))
def test_garbage_is_a_wire_error_and_nothing_else(parse: Parse, data: bytes) -> None:
    with pytest.raises(WireError):
        parse(data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*COLUMNS, "x"]), inner, max_size=4),
    max_leaves=12,
)


@given(rows=_json, columns=_json, tail=st.binary(max_size=40))
def test_a_packed_body_of_any_layout_is_read_or_refused(rows: Any, columns: Any, tail: bytes) -> None:
    head = json.dumps({"rows": rows, "columns": columns}).encode()
    try:
        _, records = encoding.parse_binary(b"ISW1" + struct.pack("<I", len(head)) + head + tail)
    except WireError:
        return
    assert {len(c) for c in records.columns.values()} == {rows}


@given(given=_json)
def test_json_records_of_any_shape_are_read_or_refused(given: Any) -> None:
    try:
        _, records = encoding.parse_json(json.dumps({"records": given}).encode())
    except WireError:
        return
    assert len({len(c) for c in records.columns.values()}) == 1


@both
def test_every_truncated_body_is_refused(encode: Encode, parse: Parse) -> None:
    data = encode(example())
    for end in range(len(data)):
        with pytest.raises(WireError):
            parse(data[:end])


@both
@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(encode: Encode, parse: Parse, position: int, value: int) -> None:
    data = bytearray(encode(example()))
    data[position % len(data)] = value
    try:
        _, records = parse(bytes(data))
    except WireError:
        return
    assert len({len(c) for c in records.columns.values()}) == 1


@pytest.mark.parametrize(
    ("records", "location"),
    [
        ({"tensor": [1], "step": [0]}, "records.count"),
        ({"tensor": [1], "step": [0, 1], "count": [1, 1]}, "records.tensor"),
        ({"tensor": [1], "step": [0.5], "count": [1]}, "records.step.0"),
        ({"tensor": [1], "step": [True], "count": [1]}, "records.step.0"),
        ({"tensor": [2**63], "step": [0], "count": [1]}, "records.tensor.0"),
        ({"tensor": [1], "step": [0], "count": [1], "mean": ["nan"]}, "records.mean.0"),
        ({"tensor": [1], "step": [0], "count": [1], "mean": [10**400]}, "records.mean.0"),
        ([1, 2], "records"),
    ],
)
def test_a_bad_column_is_refused_by_its_name(records: Any, location: str) -> None:
    with pytest.raises(WireError) as caught:
        encoding.parse_json(json.dumps({"records": records}).encode())
    assert caught.value.location == location


def test_a_packed_batch_of_too_many_records_is_refused_before_its_columns_are_built() -> None:
    head = json.dumps({"rows": v.MAX_RECORDS_PER_BATCH + 1, "columns": [["step", "constant", 1]]}).encode()
    with pytest.raises(WireError) as caught:
        encoding.parse_binary(b"ISW1" + struct.pack("<I", len(head)) + head)
    assert caught.value.location == "rows"


def test_columns_of_a_newer_client_are_read_over() -> None:
    head = (
        b'{"rows":2,"columns":[["tensor","q"],["step","constant",3],["count","constant",1],'
        b'["entropy","f"],["ids","q"],["z","constant",0.5]]}'
    )
    tail = struct.pack("<2q2f2q", 7, 8, 0.5, 0.25, 1, 2)
    _, records = encoding.parse_binary(b"ISW1" + struct.pack("<I", len(head)) + head + tail)
    assert list(records.columns["tensor"]) == [7, 8]
    assert list(records.columns) == list(COLUMNS)


def test_more_columns_than_any_client_has_are_refused() -> None:
    columns = b",".join(b'["x%d","constant",0]' % i for i in range(1000))
    head = b'{"rows":10000,"columns":[' + columns + b"]}"
    with pytest.raises(WireError) as caught:
        encoding.parse_binary(b"ISW1" + struct.pack("<I", len(head)) + head)
    assert caught.value.location == "columns"


def test_a_column_named_twice_is_refused() -> None:
    layout = [[name, "constant", 1] for name in ("tensor", "step", "count", "step")]
    head = json.dumps({"rows": 1, "columns": layout}).encode()
    with pytest.raises(WireError, match="second time"):
        encoding.parse_binary(b"ISW1" + struct.pack("<I", len(head)) + head)


def test_json_for_people_may_leave_out_what_it_does_not_know() -> None:
    _, records = encoding.parse_json(b'{"records": {"tensor": [1], "step": [0], "count": [3], "mean": ["-Infinity"]}}')
    assert records.columns["nan_count"] == [0]
    assert records.columns["mean"] == [-math.inf]
    assert math.isnan(records.columns["std"][0])


def test_encoded_json_is_json_that_every_reader_takes() -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    for data in (encoding.to_json(example()), encoding.heartbeat_to_json(heartbeat())):
        json.loads(data, parse_constant=refuse)


def heartbeat() -> Heartbeat:
    header = example().header
    return Heartbeat(run=header.run, session=header.session, last_step=20, books=header.books or Books())


@given(header=headers)
def test_a_heartbeat_is_read_as_it_was_written(header: Header) -> None:
    beat = Heartbeat(run=header.run, session=header.session, last_step=header.last_step, books=header.books or Books())
    read = TypeAdapter(Heartbeat).validate_python(json.loads(encoding.heartbeat_to_json(beat)))
    assert repr(read) == repr(beat)


@given(st.none() | st.floats())
def test_numbers_of_answers_survive_json(value: float | None) -> None:
    text = json.dumps(encoding.number_to_json(value), allow_nan=False)
    assert repr(encoding.number_from_json(json.loads(text))) == repr(value)
