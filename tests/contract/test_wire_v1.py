"""Bodies that wire version 1 has sent. Jobs in the field keep sending them: they stay readable, never rewritten."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from initscope.hooks import encoding
from initscope.hooks.wire import Header, Heartbeat, Records
from tests.support.batches import example
from tests.support.wire_schema import FILE, text

BODIES = Path(__file__).with_name("wire_v1")


def read(name: str) -> tuple[Header, Records]:
    parse = encoding.parse_binary if name.endswith(".bin") else encoding.parse_json
    body, records = parse((BODIES / name).read_bytes())
    return TypeAdapter(Header).validate_python(body), records


@pytest.mark.parametrize("name", ["batch.json", "batch.bin"])
def test_a_full_batch_of_version_1_is_still_read_as_it_was_meant(name: str) -> None:
    header, records = read(name)
    assert repr(header) == repr(example().header)
    assert [repr(records.row(i)) for i in range(2)] == [repr(example().records.row(i)) for i in range(2)]


def test_a_heartbeat_of_version_1_is_still_read_as_it_was_meant() -> None:
    beat = TypeAdapter(Heartbeat).validate_json((BODIES / "heartbeat.json").read_bytes())
    want = example().header
    assert beat == Heartbeat(run=want.run, session=want.session, last_step=20, books=want.books)  # type: ignore[arg-type]


def test_a_body_written_by_hand_needs_little_and_may_know_more() -> None:
    header, records = read("by_hand.json")
    assert (header.run.run_id, header.run.project, header.session.rank) == ("by-hand", "default", 0)
    assert header.tensors[0].module_path == ""
    assert math.isnan(header.scalars[0].value)
    key, step, stats = records.row(0)
    assert (key, step, stats.moments.count, stats.moments.mean, stats.moments.max) == (1, 0, 4, 0.5, math.inf)
    assert records.row(1)[2].moments.nan_count == 4
    assert math.isnan(records.row(1)[2].moments.mean)


def test_todays_client_still_writes_these_bytes() -> None:
    """A change here is a change of the wire: raise its version and add a folder, or keep the bytes."""
    assert (BODIES / "batch.bin").read_bytes() == encoding.to_binary(example())
    assert (BODIES / "batch.json").read_bytes() == encoding.to_json(example())


def test_the_published_schema_is_that_of_the_dataclasses() -> None:
    assert FILE.read_text() == text(), "make it again: .venv/bin/python -m tests.support.wire_schema"


def test_the_published_schema_names_every_field_that_the_client_writes() -> None:
    schema = json.loads(FILE.read_text())
    unknown = list(_unknown(json.loads((BODIES / "batch.json").read_bytes()), schema, schema["$defs"], "batch"))
    assert unknown == []
    assert list(_unknown({"sequence": 1, "colour": "red"}, schema, schema["$defs"], "batch")) == ["batch.colour"]


def _unknown(value: Any, schema: dict[str, Any], definitions: dict[str, Any], where: str) -> Any:
    """Paths of `value` that `schema` does not describe; enough of JSON Schema for our own."""
    for option in schema.get("anyOf", []):
        if "$ref" in option:
            schema = option
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, dict) and "properties" in schema:
        for name, item in value.items():
            if name in schema["properties"]:
                yield from _unknown(item, schema["properties"][name], definitions, f"{where}.{name}")
            else:
                yield f"{where}.{name}"
    elif isinstance(value, list):
        for item in value:
            yield from _unknown(item, schema.get("items", {}), definitions, where)
