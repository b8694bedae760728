from __future__ import annotations

import json

import pytest

from initscope.hooks.client.answers import Later, Refused, Stored, judge, shares
from initscope.hooks.client.transport import Answer

GOOD = {"accepted": 3, "duplicate": False, "rejected": [], "rejected_count": 0}


def answered(status: int, body: object = None, after: float | None = None) -> Stored | Later | Refused:
    return judge(Answer(status, json.dumps(body).encode(), after))


def test_a_200_with_counts_is_an_acknowledgement() -> None:
    assert answered(200, GOOD) == Stored(3, 0, duplicate=False)
    listed = [{"index": 1, "code": "bad_step", "message": "step\nis negative"}]
    said = answered(200, {**GOOD, "rejected": listed, "rejected_count": 1})
    assert said == Stored(3, 1, duplicate=False, message="step is negative")
    assert answered(200, {"accepted": 3, "duplicate": True}) == Stored(3, 0, duplicate=True)


@pytest.mark.parametrize(
    "body",
    [None, [], "text", {}, {"accepted": 3}, {**GOOD, "accepted": "3"}, {**GOOD, "accepted": True},
     {**GOOD, "accepted": -1}, {**GOOD, "duplicate": 0}, {**GOOD, "rejected": 4}, {**GOOD, "rejected_count": 1.5}],
)  # fmt: skip
def test_a_200_without_counts_is_a_failure(body: object) -> None:
    assert isinstance(answered(200, body), Later)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b'{"accepted": 1'])
def test_garbage_is_a_failure_and_no_crash(body: bytes) -> None:
    assert isinstance(judge(Answer(200, body)), Later)
    assert isinstance(judge(Answer(404, body)), Refused)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422])
def test_these_are_for_good(status: int) -> None:
    assert isinstance(answered(status), Refused)


@pytest.mark.parametrize(
    "status", [201, 204, 301, 302, 307, 402, 405, 408, 418, 425, 429, 500, 502, 503, 504, 507, 599]
)
def test_everything_else_is_tried_again(status: int) -> None:
    assert answered(status, GOOD, 4.0) == Later(f"answered {status}", 4.0)


def test_a_refusal_says_what_to_do_and_what_the_collector_said() -> None:
    error = {"code": "invalid_field", "message": "too long\r\nx", "field": "run.name", "hint": "shorten it"}
    said = answered(401, {"error": error})
    assert isinstance(said, Refused)
    assert "INITSCOPE_TOKEN" in said.message
    assert "run.name; too long  x; shorten it" in said.message
    odd = answered(400, {"error": "text"})
    assert isinstance(odd, Refused)
    assert odd.message


@pytest.mark.parametrize(
    ("stored", "rows", "expected"),
    [
        (Stored(10, 0, duplicate=False), 10, (10, 0, 0)),
        (Stored(7, 3, duplicate=False), 10, (7, 3, 0)),
        (Stored(0, 0, duplicate=False), 10, (0, 0, 10)),
        (Stored(99, 0, duplicate=False), 10, (10, 0, 0)),
        (Stored(99, 99, duplicate=False), 10, (0, 10, 0)),
        (Stored(0, 0, duplicate=True), 10, (10, 0, 0)),
        (Stored(8, 2, duplicate=True), 10, (8, 2, 0)),
        (Stored(0, 0, duplicate=False), 0, (0, 0, 0)),
    ],
)
def test_every_row_of_an_answered_batch_gets_one_fate(
    stored: Stored, rows: int, expected: tuple[int, int, int]
) -> None:
    assert shares(stored, rows) == expected
    assert sum(expected) == rows
