"""Everything that can be wrong with a body is a 4xx in the one shape, and what was accepted before stays."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from initscope.hooks import encoding, wire
from initscope.hooks.vocabulary import MAX_RECORDS_PER_BATCH, MAX_TENSORS_PER_RUN, Kind
from tests.support.collector import Collector, absent, batch, info, running_collector, stats

JSON = wire.MEDIA_JSON
BINARY = wire.MEDIA_BINARY


def plain(**changes: Any) -> dict[str, Any]:
    """A good batch as data, with changes."""
    body = json.loads(encoding.to_json(batch(7, {("fc", 5): stats()}, session=2)))
    return {**body, **changes}


def text(**changes: Any) -> bytes:
    return json.dumps(plain(**changes)).encode()


def named(name: str) -> bytes:
    return text(run={"run_id": name})


def refused(collector: Collector, body: bytes, media: str = JSON, *, coding: str = "gzip") -> tuple[int, str, Any]:
    """Status, code and field; fails unless the answer has the one shape and nothing was stored."""
    before = collector.counts()
    response = collector.post(body, media, coding=coding)
    assert 400 <= response.status_code < 500, response.text
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"code", "message", "field", "hint"}
    assert error["message"]
    assert len(response.content) < 1000
    assert collector.counts() == before
    return response.status_code, error["code"], error["field"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One collector for all bodies that store nothing; it has accepted something before."""
    with running_collector(tmp_path_factory.mktemp("home")) as running:
        running.send(batch(0))
        assert running.counts() == (1, 1, 1, 0)
        yield running


HEADERS: list[tuple[str, Callable[[], bytes], int, str | None]] = [
    ("NUL in a name", lambda: named("a\0b"), 422, "run.run_id"),
    ("lone surrogate in a name", lambda: named("a\ud800"), 422, "run.run_id"),
    ("newline in a name", lambda: named("a\nb"), 422, "run.run_id"),
    ("long name", lambda: named("x" * 129), 422, "run.run_id"),
    ("huge name", lambda: named("x" * 10_000_000), 422, "run.run_id"),
    ("empty name", lambda: named(""), 422, "run.run_id"),
    ("number as a name", lambda: text(run={"run_id": 5}), 422, "run.run_id"),
    ("no run", lambda: text(run=None), 422, "run"),
    ("sequence 2^63", lambda: text(sequence=2**63), 422, "sequence"),
    ("negative sequence", lambda: text(sequence=-1), 422, "sequence"),
    ("sequence NaN", lambda: text(sequence=float("nan")), 422, "sequence"),
    ("sequence as text NaN", lambda: text(sequence="NaN"), 422, "sequence"),
    ("session not hex", lambda: text(session={"session_id": "z" * 32}), 422, "session.session_id"),
    ("step beyond the limit", lambda: text(last_step=10**12 + 1), 422, "last_step"),
    ("status unknown", lambda: text(status="exploded"), 422, "status"),
    ("tensor of unknown kind", lambda: text(tensors=[{"key": 1, "module_path": "a", "name": "w", "kind": "x"}]), 422,
     "tensors.0.kind"),
    ("scalar without a value", lambda: text(scalars=[{"step": 0, "name": "loss", "value": None}]), 422,
     "scalars.0.value"),
    ("scalar at 2^63", lambda: text(scalars=[{"step": 2**63, "name": "loss", "value": 1}]), 422, "scalars.0.step"),
    ("scalar of 400 digits", lambda: text(scalars=[{"step": 0, "name": "loss", "value": 10**400}]), 422,
     "scalars.0.value"),
    ("config too large", lambda: text(description={"config": {"a": "x" * 70_000}}), 422, "description.config"),
    ("config too deep", lambda: text(description={"config": {"a": json.loads("[" * 60 + "]" * 60)}}), 422,
     "description.config"),
    ("endless notes", lambda: text(description={"notes": ["x" * 500] * 500}), 422, "description"),
    ("a reason of 400 digits", lambda: text(books={"dropped": {"queue_full": 10**400}}), 422,
     "books.dropped.queue_full"),
    ("less than nothing dropped", lambda: text(books={"dropped": {"queue_full": -1}}), 422, "books.dropped.queue_full"),
    ("endless reasons", lambda: text(books={"dropped": {f"reason {i}": 1 for i in range(5000)}}), 422, "books"),
]  # fmt: skip

RECORDS: list[tuple[str, dict[str, Any], int, str | None]] = [
    ("not an object", {"records": [1]}, 422, "records"),
    ("not lists", {"records": {"tensor": 1, "step": 1, "count": 1}}, 422, "records.tensor"),
    ("unequal columns", {"records": {"tensor": [1, 2], "step": [1], "count": [1, 2]}}, 422, "records.step"),
    ("NaN as a count", {"records": {"tensor": [1], "step": [1], "count": [float("nan")]}}, 422, "records.count.0"),
    ("text as a count", {"records": {"tensor": [1], "step": [1], "count": ["NaN"]}}, 422, "records.count.0"),
    ("count 2^63", {"records": {"tensor": [1], "step": [1], "count": [2**63]}}, 422, "records.count.0"),
    ("a list as a mean", {"records": {"tensor": [1], "step": [1], "count": [1], "mean": [[]]}}, 422, "records.mean.0"),
    ("no steps", {"records": {"tensor": [1], "count": [1]}}, 422, "records.step"),
]


@pytest.mark.parametrize(("body", "status", "field"), [case[1:] for case in HEADERS], ids=[case[0] for case in HEADERS])
def test_a_bad_header_is_refused_by_its_field(shared: Collector, body, status, field) -> None:
    assert refused(shared, body()) == (status, "invalid_field", field)


@pytest.mark.parametrize(
    ("changes", "status", "field"), [case[1:] for case in RECORDS], ids=[case[0] for case in RECORDS]
)
def test_bad_columns_are_refused_by_their_field(shared: Collector, changes, status, field) -> None:
    assert refused(shared, text(**changes)) == (status, "invalid_field", field)


def test_what_is_no_json_is_refused(shared: Collector) -> None:
    for body in (
        b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe\x00", b"garbage" * 1000, b"[" * 20_000, b'{"a":' * 20_000,
        b'{"sequence": ' + b"9" * 5_000 + b"}", b'{"run": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ):  # fmt: skip
        assert refused(shared, body) == (400, "invalid_body", None)


def test_what_is_no_packed_batch_is_refused(shared: Collector) -> None:
    good = encoding.to_binary(batch(7, {("fc", step): stats(mean=step / 100) for step in range(20)}))
    for body in (
        b"ISW1",
        b"ISW1\xff\xff\xff\xff{}",
        b"ISW2" + good[4:],
        good[:-1],
        good + b"x",
        good[: len(good) // 2],
    ):
        status, _, _ = refused(shared, body, BINARY)
        assert status in (400, 422)


def test_a_packed_batch_cannot_ask_for_more_memory_than_it_has_bytes(shared: Collector) -> None:
    columns = [[f"x{i}", "constant", 0] for i in range(100_000)]
    head = json.dumps({**plain(records=None), "rows": 10_000, "columns": columns}).encode()
    body = b"ISW1" + len(head).to_bytes(4, "little") + head
    assert refused(shared, body, BINARY)[2] == "columns"


def test_too_many_records_are_refused(shared: Collector) -> None:
    count = MAX_RECORDS_PER_BATCH + 1
    columns = {"tensor": [1] * count, "step": list(range(count)), "count": [1] * count}
    assert refused(shared, text(records=columns)) == (422, "invalid_field", "records")


@pytest.mark.parametrize("media", ["application/json", "text/plain", "", "application/vnd.initscope.v2+json", "a/b;c"])
def test_another_media_type_is_unsupported(shared: Collector, media: str) -> None:
    assert refused(shared, text(), media)[:2] == (415, "unsupported_media_type")


def test_parameters_of_the_media_type_do_not_matter(embedded: Collector) -> None:
    response = embedded.post(text(), "Application/VND.initscope.v1+JSON; charset=utf-8")
    assert response.status_code == 200


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip", "x"])
def test_another_content_encoding_is_unsupported(shared: Collector, coding: str) -> None:
    assert refused(shared, text(), coding=coding)[:2] == (415, "unsupported_encoding")


def post_raw(collector: Collector, content: bytes) -> tuple[int, str]:
    before = collector.counts()
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    response = collector.http.post("/api/v1/batches", content=content, headers=headers)
    assert collector.counts() == before
    return response.status_code, response.json()["error"]["code"]


def test_a_body_that_is_no_gzip_or_a_part_of_one_is_refused(shared: Collector) -> None:
    whole = gzip.compress(text())
    broken = bytearray(whole)
    broken[-6] ^= 0xFF  # the checksum
    for content in (b"", text(), whole[:-1], whole[:10], whole[: len(whole) // 2], whole + b"tail", bytes(broken)):
        assert post_raw(shared, content) == (400, "invalid_body")


def test_every_member_of_a_gzip_body_counts(embedded: Collector) -> None:
    body = text(tensors=[json.loads(encoding.to_json(batch()))["tensors"][0]])
    content = gzip.compress(body[:50]) + gzip.compress(b"") + gzip.compress(body[50:]) + bytes(512)
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    response = embedded.http.post("/api/v1/batches", content=content, headers=headers)
    assert response.json() == {"accepted": 1, "duplicate": False, "rejected": [], "rejected_count": 0}


def test_bombs_are_too_large(shared: Collector) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    one = bomb.compress(bytes(200 * 2**20)) + bomb.flush()
    assert len(one) < 300_000
    members = gzip.compress(bytes(2**20), 9) * 40
    assert post_raw(shared, one) == (413, "too_large")
    assert post_raw(shared, members) == (413, "too_large")
    assert post_raw(shared, gzip.compress(b"") * 100_000) == (400, "invalid_body")


def test_a_body_larger_than_the_limit_is_refused_with_and_without_a_length(shared: Collector) -> None:
    content = b"x" * (4 * 2**20 + 1)
    assert post_raw(shared, content) == (413, "too_large")

    def pieces():
        for start in range(0, len(content), 2**16):
            yield content[start : start + 2**16]

    assert post_raw(shared, pieces()) == (413, "too_large")  # type: ignore[arg-type]


def test_a_body_of_nothing_but_nan_loses_its_records_and_no_others(collector: Collector) -> None:
    body = plain(records={"tensor": [info("fc").key] * 2, "step": [1, 2], "count": [10, 10], "nan_count": [10, 0]})
    answer = collector.post(json.dumps(body).encode()).json()
    # Ten elements of which ten are NaN are a record; ten finite ones without a minimum are none.
    assert answer["accepted"] == 1
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == [(1, "bad_moments")]


def test_bad_records_are_rejected_by_index_and_good_ones_stored(collector: Collector) -> None:
    cases: dict[tuple[str, int], tuple[Any, str | None]] = {
        ("fc", 0): (stats(), None),
        ("stranger", 0): (stats(), "unknown_tensor"),
        ("fc", -1): (stats(), "bad_step"),
        ("fc", 10**12 + 1): (stats(), "bad_step"),
        ("fc", 1): (stats(count=-5), "bad_count"),
        ("fc", 2): (stats(nan_count=2000), "bad_count"),
        ("fc", 3): (stats(zero_count=2000), "bad_count"),
        ("fc", 4): (stats(neginf_count=-1), "bad_count"),
        ("fc", 5): (stats(std=-1.0, skewness=0.0, kurtosis=0.0), None),
        ("fc", 6): (stats(mean=50.0), "bad_moments"),
        ("fc", 7): (stats(min=4.0), "bad_moments"),
        ("fc", 8): (stats(std=100.0), "bad_moments"),
        ("fc", 9): (absent(), None),
        ("fc", 11): (stats(), None),
    }
    records = {key: record for key, (record, _) in cases.items()}
    sent = batch(0, records, tensors=[info("fc")])
    # Moments cannot carry a negative std, the wire can.
    sent.records.columns["std"][8] = -1.0  # type: ignore[index]
    answer = collector.send(sent)
    expected = [(i, code) for i, (_, code) in enumerate(cases.values()) if code]
    expected = sorted([*expected, (8, "bad_moments")])
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == expected[:10]
    assert all(r["message"] for r in answer["rejected"])
    assert answer["rejected_count"] == len(expected) == 11
    assert answer["accepted"] == 3
    assert collector.rows("SELECT step FROM tensor_stats ORDER BY step") == [(0,), (9,), (11,)]


def test_counts_of_several_ranks_that_no_column_can_hold_are_rejected(collector: Collector) -> None:
    huge = stats(count=2**62)
    for rank, accepted in ((0, 2), (1, 1), (2, 1)):
        given = {("fc", 0): huge, ("fc", 1): stats()}
        answer = collector.send(batch(0, given, session=rank + 1, rank=rank, world_size=3))
        assert answer["accepted"] == accepted
        assert [r["code"] for r in answer["rejected"]] == (["bad_count"] if rank else [])
    assert collector.rows("SELECT step, count FROM tensor_stats ORDER BY step") == [(0, 2**62), (1, 3000)]


def test_a_record_that_stands_twice_in_a_batch_is_stored_once(collector: Collector) -> None:
    for world_size in (1, 2):
        sent = batch(0, run_id=f"run-{world_size}", session=world_size, world_size=world_size)
        for column in sent.records.columns.values():
            column.append(column[0])  # type: ignore[attr-defined]
        answer = collector.send(sent)
        assert [(r["index"], r["code"]) for r in answer["rejected"]] == [(1, "duplicate_row")]
    assert collector.rows("SELECT count FROM tensor_stats") == [(1000,), (1000,)]


def test_tensors_beyond_the_limit_cost_their_own_records_only(embedded: Collector) -> None:
    def many(start: int, count: int) -> list[wire.TensorInfo]:
        return [wire.TensorInfo(key=i, module_path=f"m{i}", name="w", kind=Kind.WEIGHT) for i in range(start, count)]

    embedded.send(batch(0, {}, tensors=many(0, MAX_TENSORS_PER_RUN - 1)))
    beyond = batch(1, {}, tensors=many(MAX_TENSORS_PER_RUN - 1, MAX_TENSORS_PER_RUN + 5))
    for key in (3, MAX_TENSORS_PER_RUN - 1, MAX_TENSORS_PER_RUN):
        beyond.records.append(key, 0, stats())
    answer = embedded.send(beyond)
    assert answer["accepted"] == 2
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == [(2, "unknown_tensor")]
    assert embedded.rows("SELECT COUNT(*) FROM tensors") == [(MAX_TENSORS_PER_RUN,)]


def test_unknown_fields_are_ignored_and_counted(embedded: Collector) -> None:
    body = plain(colour="red")
    body["run"]["owner"] = "me"
    body["tensors"][0]["sharding"] = [1, 2]
    body["records"]["entropy"] = [0.5]
    response = embedded.post(json.dumps(body).encode())
    assert response.json()["accepted"] == 1
    # Columns are not counted: their bytes are skipped unread.
    assert "\ninitscope_ingest_unknown_fields_total 3.0\n" in embedded.http.get("/metrics").text


def test_free_text_is_kept_in_a_form_that_every_reader_takes(collector: Collector) -> None:
    config = {"lr": float("nan"), "note": "a\0b", "half \ud800": 1, "ok": "größer", "n": 10**30}
    body = plain(description={"config": config, "tags": ["x"]})
    assert collector.post(json.dumps(body).encode()).status_code == 200
    runs = collector.http.get("/api/v1/runs").json()["runs"]
    shown = collector.http.get(f"/api/v1/runs/{runs[0]['id']}").json()
    found = json.dumps(shown, ensure_ascii=False)
    for expected in ('"lr": "NaN"', "a�b", "half �", "größer", str(10**30)):
        assert expected in found


def test_heartbeats_are_checked_like_batches(shared: Collector) -> None:
    for body, kind, status in (
        (b"{", "application/json", 400),
        (b"{}", "application/json", 422),
        (b"{}", "text/plain", 415),
        (b" " * 70_000, "application/json", 413),
    ):
        response = shared.http.post("/api/v1/heartbeats", content=body, headers={"Content-Type": kind})
        assert response.status_code == status
        assert response.json()["error"]["message"]
