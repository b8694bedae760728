"""A deduplicating collector without a network, scripted answer by answer: the seam of the sender."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

from initscope.hooks.client.transport import Answer, TransportError
from initscope.hooks.encoding import parse_binary


class MemoryTransport:
    """Stores batches by (session, sequence); `told` has what it acknowledged. `fate` decides the next answer.

    stored · lost_answer (stored, then the connection breaks) · unreachable · status (a number, nothing stored) ·
    reject (stores all but the first record) · garbage (200 that is no answer)
    """

    def __init__(self) -> None:
        self.fate: str | int = "stored"
        self.batches: dict[tuple[str, int], dict[str, Any]] = {}
        self.rows: list[tuple[int, int, int]] = []
        self.scalars: list[tuple[int, str]] = []
        self.steps: dict[int, list[int]] = {}
        self.bodies: dict[tuple[str, int], bytes] = {}
        self.heartbeats: list[dict[str, Any]] = []
        self.told: dict[tuple[str, int], int] = {}
        self.posts = 0
        self.duplicates = 0
        self.most_rows = 10_000

    def post(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Answer:  # noqa: ARG002
        self.posts += 1
        if self.fate == "unreachable":
            raise TransportError("refuses connections")
        if isinstance(self.fate, int):
            return Answer(self.fate, b"{}", 1.0 if self.fate == 429 else None)
        if path.endswith("/heartbeats"):
            self.heartbeats.append(json.loads(body))
            return Answer(200, b"{}")
        return self._batch(body)

    def _batch(self, body: bytes) -> Answer:
        header, records = parse_binary(gzip.decompress(body))
        identity = (header["session"]["session_id"], header.get("sequence", 0))
        assert self.bodies.setdefault(identity, body) == body, "a batch changed after it was numbered"
        scalars = header.get("scalars", [])
        if len(records) + len(scalars) > self.most_rows:
            return Answer(413, b"{}")
        if self.fate == "garbage":
            return Answer(200, b"<html>")
        bad = 1 if self.fate == "reject" and len(records) else 0
        known = identity in self.batches
        if not known:
            attempt = header["run"].get("attempt", 0)
            keys, steps = records.columns["tensor"], records.columns["step"]
            self.rows += [(attempt, int(k), int(s)) for k, s in zip(keys, steps, strict=True)][bad:]
            self.scalars += [(s["step"], s["name"]) for s in scalars]
            self.steps[identity[1]] = [*map(int, steps), *(s["step"] for s in scalars)]
            self.batches[identity] = {**header, "accepted": len(records) + len(scalars) - bad, "rejected": bad}
        self.duplicates += known
        if self.fate == "lost_answer":
            raise TransportError("breaks the connection")
        batch = self.batches[identity]
        self.told[identity] = batch["accepted"]
        answer = {
            "accepted": batch["accepted"],
            "duplicate": known,
            "rejected": [],
            "rejected_count": batch["rejected"],
        }
        return Answer(200, json.dumps(answer).encode())

    def close(self) -> None:
        """Nothing to let go of."""
