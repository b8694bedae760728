from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from initscope.hooks import vocabulary as v
from initscope.hooks.client.outline import Outline, tidy
from initscope.hooks.wire import RunDescription
from tests.support.bench_sender import BenchSender
from tests.support.telemetry import rows, tensors


def test_it_stays_with_every_batch_until_one_is_acknowledged() -> None:
    bench = BenchSender()
    bench.outline.tell(RunDescription(model_class="Net"), tensors(2))
    bench.transport.fate = 400
    bench.record(0, 3, rows(3))
    bench.turn(2)
    bench.transport.fate = "stored"
    bench.record(1, 3, rows(3))
    bench.drain()
    bench.record(2, 3, rows(3))
    bench.drain()
    carried = [len(batch.get("tensors", [])) for batch in bench.transport.batches.values()]
    described = ["description" in batch for batch in bench.transport.batches.values()]
    assert sum(carried) == 2
    assert sum(described) == 1
    assert not carried[-1]


def test_what_a_rank_started_with_travels_until_it_is_acknowledged_and_once() -> None:
    bench = BenchSender()
    bench.outline.compare({"fc.weight": "aa", "": "bb"})
    for step in range(3):
        bench.record(step, 3, rows(3))
        bench.drain()
    assert [batch.get("digests") for batch in bench.transport.batches.values()] == [
        {"fc.weight": "aa", "": "bb"},
        None,
        None,
    ]


def test_no_more_digests_travel_than_the_wire_carries() -> None:
    outline = Outline()
    outline.compare({f"p{i}": "aa" for i in range(2 * v.MAX_DIGESTS)})
    assert outline.waiting
    carried = outline.carry()
    assert len(carried.digests) == v.MAX_DIGESTS
    outline.acknowledge(carried)
    assert not outline.waiting


def test_what_is_told_while_a_batch_is_under_way_is_sent_again() -> None:
    outline = Outline()
    outline.tell(RunDescription(model_class="A"), tensors(1))
    outline.absorb()
    carried = outline.carry()
    newer = [replace(tensors(1)[0], depth=3)]
    outline.tell(RunDescription(model_class="B"), newer)
    outline.absorb()
    outline.acknowledge(carried)
    again = outline.carry()
    assert again.description
    assert again.description.model_class == "B"
    assert list(again.tensors) == newer


def test_many_tensors_go_in_front_in_pieces() -> None:
    bench = BenchSender(limit=100)
    bench.outline.tell(None, tensors(1_200))
    bench.record(0, 5, rows(5))
    bench.drain()
    batches = list(bench.transport.batches.values())
    assert [len(batch["tensors"]) for batch in batches] == [500, 500, 200]
    assert [batch["accepted"] for batch in batches] == [0, 0, 5]


def test_a_tensor_that_the_collector_refuses_is_found_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    bench = BenchSender()
    bad = tensors(40)[17]
    bench.outline.tell(RunDescription(model_class="Net"), tensors(40))
    for _ in range(300):
        if not bench.outline.waiting:
            break
        bench.outline.absorb()
        bench.transport.fate = 422 if bad in bench.outline.carry().tensors else "stored"
        bench.turn()
    told = {t["key"] for batch in bench.transport.batches.values() for t in batch.get("tensors", [])}
    assert told == {t.key for t in tensors(40)} - {bad.key}
    assert any("description" in batch for batch in bench.transport.batches.values())
    assert bad.module_path in caplog.text
    bench.transport.fate = "stored"
    bench.record(0, 2, rows(2))
    bench.drain()
    assert bench.books.acknowledged == 2


def test_a_config_of_anything_becomes_json_within_the_limit() -> None:
    loop: dict[str, object] = {}
    loop["self"] = loop
    strange = {
        "path": Path("a"), "nan": float("nan"), "set": {1}, 3: "int key", "bytes": b"\xff", "text": "a\x00b\ud800",
        "loop": loop, "kind": v.Kind.WEIGHT, "nested": {"deep": [1, (2, None, True)]},
    }  # fmt: skip
    plain = tidy(RunDescription(config=strange)).config  # type: ignore[arg-type]
    text = json.dumps(plain)
    assert len(text) < v.MAX_CONFIG_BYTES
    assert plain["path"] == "a"
    assert plain["nested"] == {"deep": [1, [2, None, True]]}
    assert plain["text"] == "a?b?"
    assert plain["3"] == "int key"


def test_a_config_that_is_too_large_is_cut_and_says_so() -> None:
    plain = tidy(RunDescription(config={f"key{i}": "x" * 500 for i in range(1_000)})).config
    assert len(json.dumps(plain)) <= v.MAX_CONFIG_BYTES
    assert "entries left out" in plain["…"]
    assert plain["key0"] == "x" * 500


def test_tags_and_notes_fit_the_wire() -> None:
    tidied = tidy(RunDescription(tags=["a\nb", "", "x" * 500], notes=["n" * 900]))
    assert tidied.tags == ["a?b", "x" * v.MAX_NAME]
    assert len(tidied.notes[0]) == v.MAX_MODULE_PATH


def test_telling_without_end_is_bounded() -> None:
    outline = Outline()
    assert sum(outline.tell(None, []) for _ in range(5_000)) == 1_000
