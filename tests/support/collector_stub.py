"""A collector over real HTTP that behaves as told: well, badly, or not at all. Stores each batch once, by identity.

As a program (`python -m tests.support.collector_stub PORT JOURNAL`) it keeps what it stored in a journal, synced
before it answers, so that it can be killed and started again on the same port.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import struct
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from initscope.hooks.encoding import parse_binary
from initscope.hooks.wire import Records


class Mode(StrEnum):
    """How a request is treated. Nothing is stored unless it says so."""

    OK = "ok"
    STORE_THEN_RESET = "store_then_reset"
    STORE_THEN_GARBAGE = "store_then_garbage"
    BLACK_HOLE = "black_hole"
    DRIP = "drip"
    RESET = "reset"
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    NOT_FOUND = "404"
    TOO_LARGE = "413"
    UNPROCESSABLE = "422"
    SLOW_DOWN = "429"
    ERROR = "500"
    GARBAGE = "garbage"
    NO_COUNTS = "no_counts"
    OVERSIZED = "oversized"
    TRUNCATED = "truncated"
    REDIRECT = "redirect"
    REJECT_FIRST = "reject_first"


@dataclass(frozen=True, slots=True)
class Received:
    """A batch that was stored."""

    header: dict[str, Any]
    records: Records

    @property
    def scalars(self) -> list[dict[str, Any]]:
        return self.header.get("scalars", [])

    @property
    def count(self) -> int:
        return len(self.records) + len(self.scalars)


@dataclass(slots=True)
class Log:
    """What the stub has seen. Read it after the requests of interest have ended, or poll it."""

    stored: dict[tuple[str, int], Received] = field(default_factory=dict)
    bodies: dict[tuple[str, int], bytes] = field(default_factory=dict)
    changed: list[tuple[str, int]] = field(default_factory=list)
    duplicates: int = 0
    heartbeats: list[dict[str, Any]] = field(default_factory=list)
    treated: list[tuple[str, Mode]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    connections: int = 0

    @property
    def batches(self) -> list[Received]:
        return list(self.stored.values())

    @property
    def rows(self) -> list[tuple[int, int, int]]:
        """(attempt, tensor key, step) of every stored record."""
        return [
            (batch.header["run"].get("attempt", 0), int(key), int(step))
            for batch in self.batches
            for key, step in zip(batch.records.columns["tensor"], batch.records.columns["step"], strict=True)
        ]

    @property
    def scalars(self) -> list[tuple[int, str, Any]]:
        return [(s["step"], s["name"], s["value"]) for batch in self.batches for s in batch.scalars]

    def seen(self, mode: Mode) -> int:
        return sum(treated is mode for _, treated in self.treated)


class CollectorStub:
    """Listens on a free port of 127.0.0.1 until `close`. `behave` sets the modes of the next batches, the last stays.

    Heartbeats are treated in the mode that the next batch would get.
    """

    def __init__(self, *modes: Mode, port: int = 0, most_rows: int = 10_000, retry_after: str = "1") -> None:
        self.log = Log()
        self.most_rows = most_rows
        self.retry_after = retry_after
        self.journal: Path | None = None
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._modes: deque[Mode] = deque(modes or (Mode.OK,))
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.stub = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def behave(self, *modes: Mode) -> None:
        with self._lock:
            self._modes = deque(modes)

    def close(self) -> None:
        """Ends everything, hanging requests included."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> CollectorStub:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def wait_until(self, done: Any, seconds: float = 20.0) -> bool:
        """Polls `done(log)`; generous, because the machine may be busy."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if done(self.log):
                return True
            time.sleep(0.02)
        return bool(done(self.log))

    def next_mode(self, path: str) -> Mode:
        with self._lock:
            keep = len(self._modes) == 1 or not path.endswith("/batches")
            mode = self._modes[0] if keep else self._modes.popleft()
            self.log.treated.append((path, mode))
            return mode

    def store(self, body: bytes) -> tuple[Received, bool]:
        """The batch and whether it was known; refuses to forget that one identity had two contents."""
        header, records = parse_binary(gzip.decompress(body))
        identity = (header["session"]["session_id"], header.get("sequence", 0))
        with self._lock:
            known = identity in self.log.stored
            if known:
                self.log.duplicates += 1
                if self.log.bodies.get(identity, body) != body:
                    self.log.changed.append(identity)
            else:
                self.log.stored[identity] = Received(header, records)
                self.log.bodies[identity] = body
                self._write_journal(body)
            return self.log.stored[identity], known

    def remember(self, identity: tuple[str, int], body: bytes) -> None:
        """Notes the bytes of a batch that is not stored."""
        with self._lock:
            if self.log.bodies.setdefault(identity, body) != body:
                self.log.changed.append(identity)

    def load(self, journal: Path) -> None:
        """Continues a journal; a torn last entry was never acknowledged."""
        self.journal = journal
        for body in read_journal(journal):
            header, records = parse_binary(gzip.decompress(body))
            identity = (header["session"]["session_id"], header.get("sequence", 0))
            self.log.stored[identity] = Received(header, records)

    def _write_journal(self, body: bytes) -> None:
        if self.journal is not None:
            with self.journal.open("ab") as file:
                file.write(struct.pack("<I", len(body)) + body)
                file.flush()
                os.fsync(file.fileno())


def read_journal(journal: Path) -> list[bytes]:
    """Complete entries of a journal."""
    data, offset, entries = journal.read_bytes() if journal.exists() else b"", 0, []
    while offset + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        if offset + 4 + length > len(data):
            break
        entries.append(data[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return entries


def closed_port() -> int:
    """A port of 127.0.0.1 where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    stub: CollectorStub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""

    def shutdown_request(self, request: Any) -> None:
        """Without the usual shutdown where the handler asked for a reset: that would send a polite end first."""
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0):
            request.close()
        else:
            super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.stub.log.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_POST(self) -> None:
        stub = self.server.stub
        body = self.rfile.read(int(self.headers["Content-Length"]))
        stub.log.authorizations.append(self.headers.get("Authorization", ""))
        mode = stub.next_mode(self.path)
        if self.path.endswith("/heartbeats") and mode in (Mode.OK, Mode.REJECT_FIRST, Mode.TOO_LARGE):
            stub.log.heartbeats.append(json.loads(body))
            self._answer(200, b"{}")
        else:
            _TREATMENTS[mode](self, body)

    def _answer(self, status: int, body: bytes, length: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str, **headers: str) -> None:
        error = {"code": code, "message": f"scripted {code}", "field": None, "hint": None}
        self._answer(status, json.dumps({"error": error}).encode(), **headers)

    def ok(self, body: bytes) -> None:
        if len(gzip.decompress(body)) == 0:
            self._error(400, "empty")
            return
        batch, known = self.server.stub.store(body)
        self._counts(batch.count, known)

    def _counts(self, accepted: int, duplicate: bool, rejected: int = 0) -> None:
        listed = [{"index": i, "code": "unknown_tensor", "message": "not described"} for i in range(min(10, rejected))]
        answer = {"accepted": accepted, "duplicate": duplicate, "rejected": listed, "rejected_count": rejected}
        self._answer(200, json.dumps(answer).encode())

    def reject_first(self, body: bytes) -> None:
        batch, known = self.server.stub.store(body)
        bad = min(1, len(batch.records))
        self._counts(batch.count - bad, known, bad)

    def too_large(self, body: bytes) -> None:
        header, records = parse_binary(gzip.decompress(body))
        if len(records) + len(header.get("scalars", [])) > self.server.stub.most_rows:
            self._error(413, "body_too_large")
        else:
            self.ok(body)

    def reset(self, body: bytes) -> None:
        self._remember(body)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _remember(self, body: bytes) -> None:
        if self.path.endswith("/batches"):
            header, _ = parse_binary(gzip.decompress(body))
            self.server.stub.remember((header["session"]["session_id"], header.get("sequence", 0)), body)

    def store_then_reset(self, body: bytes) -> None:
        if self.path.endswith("/batches"):
            self.server.stub.store(body)
        self.reset(body)

    def store_then_garbage(self, body: bytes) -> None:
        if self.path.endswith("/batches"):
            self.server.stub.store(body)
        self.garbage(body)

    def black_hole(self, body: bytes) -> None:
        self._remember(body)
        self.server.stub.released.wait()
        self.close_connection = True

    def drip(self, body: bytes) -> None:
        self._remember(body)
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000:
            self.wfile.write(bytes([byte]))
            if self.server.stub.released.wait(0.3):
                break
        self.close_connection = True

    def garbage(self, body: bytes) -> None:  # noqa: ARG002
        self._answer(200, b"<html>It works!\xff\xfe</html>")

    def no_counts(self, body: bytes) -> None:  # noqa: ARG002
        self._answer(200, b"{}")

    def oversized(self, body: bytes) -> None:  # noqa: ARG002
        padding = json.dumps({"accepted": 1, "duplicate": False, "rejected": [], "padding": "x" * 200_000})
        self._answer(200, padding.encode())

    def truncated(self, body: bytes) -> None:  # noqa: ARG002
        self._answer(200, b'{"accepted": 1, "dupl', length="400")
        self.close_connection = True


_TREATMENTS: dict[Mode, Any] = {
    Mode.OK: _Handler.ok,
    Mode.STORE_THEN_RESET: _Handler.store_then_reset,
    Mode.STORE_THEN_GARBAGE: _Handler.store_then_garbage,
    Mode.BLACK_HOLE: _Handler.black_hole,
    Mode.DRIP: _Handler.drip,
    Mode.RESET: _Handler.reset,
    Mode.UNAUTHORIZED: lambda handler, _: handler._error(401, "unauthorized"),
    Mode.FORBIDDEN: lambda handler, _: handler._error(403, "forbidden"),
    Mode.NOT_FOUND: lambda handler, _: handler._error(404, "not_found"),
    Mode.TOO_LARGE: _Handler.too_large,
    Mode.UNPROCESSABLE: lambda handler, _: handler._error(422, "invalid_field"),
    Mode.SLOW_DOWN: lambda handler, _: handler._error(429, "overload", Retry_After=handler.server.stub.retry_after),
    Mode.ERROR: lambda handler, _: handler._error(500, "internal"),
    Mode.GARBAGE: _Handler.garbage,
    Mode.NO_COUNTS: _Handler.no_counts,
    Mode.OVERSIZED: _Handler.oversized,
    Mode.TRUNCATED: _Handler.truncated,
    Mode.REDIRECT: lambda handler, _: handler._error(302, "moved", Location="http://127.0.0.1:1/"),
    Mode.REJECT_FIRST: _Handler.reject_first,
}


if __name__ == "__main__":
    stub = CollectorStub(port=int(sys.argv[1]))
    stub.load(Path(sys.argv[2]))
    print("ready", flush=True)
    threading.Event().wait()
