"""What an answer of the collector means for a batch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from initscope.hooks.client.notices import printable
from initscope.hooks.client.transport import Answer

_PERMANENT: Final = frozenset({400, 401, 403, 404, 409, 413, 415, 422})

_ADVICE: Final = {
    401: "it does not know this token: set INITSCOPE_TOKEN (or token=) to the collector's token",
    403: "this token may not send data: use one with the scope `ingest`",
    404: "the address leads to no collector: check INITSCOPE_URL (or url=)",
    409: "the batch contradicts what it has stored: is INITSCOPE_RUN_ID shared by different runs?",
    415: "it does not speak this version of the wire: use the same version of initscope on both sides",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """The collector has committed the batch, now or (`duplicate`) before."""

    accepted: int
    rejected: int
    duplicate: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Later:
    """No decision: the same bytes must be sent again. `after`: seconds that the collector asked for."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The collector will never take this batch."""

    status: int
    message: str


def judge(answer: Answer) -> Stored | Later | Refused:
    """Permanent: 400 401 403 404 409 413 415 422. Everything else that is no 200 with counts is tried again."""
    if answer.status == 200:
        return _counts(answer.body) or Later("answered 200 without the counts of a collector")
    if answer.status in _PERMANENT:
        said = _said(answer.body)
        return Refused(
            answer.status, " ".join(x for x in (_ADVICE.get(answer.status, ""), said) if x) or "no reason given"
        )
    return Later(f"answered {answer.status}", answer.retry_after)


def shares(stored: Stored, rows: int) -> tuple[int, int, int]:
    """What became of a batch's records and scalars: (acknowledged, rejected, not accounted for); their sum is `rows`.

    A duplicate was decided before, as a whole, even if its counts are not told again.
    """
    rejected = min(stored.rejected, rows)
    acknowledged = rows - rejected if stored.duplicate else min(stored.accepted, rows - rejected)
    return acknowledged, rejected, rows - acknowledged - rejected


def _counts(body: bytes) -> Stored | None:
    found = _object(body)
    duplicate, rejected = found.get("duplicate"), found.get("rejected", [])
    if not isinstance(duplicate, bool) or not isinstance(rejected, list):
        return None
    accepted, count = _count(found.get("accepted")), _count(found.get("rejected_count", len(rejected)))
    if accepted is None or count is None:
        return None
    first = rejected[0] if rejected and isinstance(rejected[0], dict) else {}
    return Stored(accepted, count, duplicate, printable(str(first.get("message", ""))))


def _said(body: bytes) -> str:
    error = _object(body).get("error")
    if not isinstance(error, dict):
        return ""
    words = [str(error[key]) for key in ("field", "message", "hint") if error.get(key)]
    return f"({printable('; '.join(words))})" if words else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
