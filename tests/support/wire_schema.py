"""Writes docs/wire.schema.json from the dataclasses of the wire: `python -m tests.support.wire_schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from initscope.hooks import vocabulary as v
from initscope.hooks.wire import COLUMNS, MEDIA_JSON, WIRE_VERSION, Header, Heartbeat, Records

FILE = Path(__file__).resolve().parents[2] / "docs" / "wire.schema.json"
_NON_FINITE = {"enum": ["NaN", "Infinity", "-Infinity"]}
_LOOSE_NUMBER = {"anyOf": [{"type": "number"}, {"type": "null"}, _NON_FINITE]}


def build() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a batch in columnar JSON, with a heartbeat's beside it."""
    batch = TypeAdapter(Header).json_schema(ref_template="#/$defs/{model}")
    beat = TypeAdapter(Heartbeat).json_schema(ref_template="#/$defs/{model}")
    definitions = {**batch.pop("$defs"), **beat.pop("$defs"), "Heartbeat": beat, "Records": _records()}
    batch["properties"]["records"] = {"$ref": "#/$defs/Records"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:initscope:wire:{WIRE_VERSION}",
        "title": f"initscope wire {WIRE_VERSION}: a batch as {MEDIA_JSON}",
        **_tidy({k: x for k, x in batch.items() if k != "title"}),
        "$defs": {name: _tidy(definitions[name]) for name in sorted(definitions)},
    }


def _records() -> dict[str, Any]:
    def column(name: str) -> dict[str, Any]:
        item = _LOOSE_NUMBER if name in Records.FLOATS else {"type": "integer"}
        return {"type": "array", "items": item, "maxItems": v.MAX_RECORDS_PER_BATCH}

    return {
        "type": "object",
        "description": "Columns of one length. null in a column of floats means absent; a missing column is all "
        "zeros (counts) or absent (floats).",
        "properties": {name: column(name) for name in COLUMNS},
        "required": ["tensor", "step", "count"],
    }


def _tidy(definition: dict[str, Any]) -> dict[str, Any]:
    """Drops titles that repeat names. Numbers may be NaN or infinite as text, which pydantic reads but does not say."""
    for field in definition.get("properties", {}).values():
        field.pop("title", None)
        if field.get("type") == "number":
            field["anyOf"] = [{"type": field.pop("type")}, _NON_FINITE]
        elif {"type": "number"} in field.get("anyOf", []):
            field["anyOf"].append(_NON_FINITE)
    return definition


def text() -> str:
    """The file's content."""
    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
