"""One request at a time over HTTP/1.1 keep-alive, each under one deadline that no collector can stretch."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

MOST_ANSWER_BYTES: Final = 64 * 1024
_MOST_HEAD_BYTES: Final = 32 * 1024


class TransportError(Exception):
    """No usable answer: whether the collector has the batch is unknown."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of at most 64 kB. `retry_after` in seconds from now."""

    status: int
    body: bytes
    retry_after: float | None = None


class Transport(Protocol):
    """What the sender needs; the seam for tests."""

    def post(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Answer:
        """Sends and waits for the answer until `deadline` (monotonic seconds), else raises `TransportError`."""

    def close(self) -> None:
        """Lets go of the connection; a later `post` opens a new one."""


class HttpTransport:
    """Posts to a collector at `url`, which may have a path in front of /api. Follows no redirects, uses no proxy.

    `token` is asked at every connection. Names are resolved here, on the caller's thread, and nowhere else.
    """

    def __init__(self, url: str, token: Callable[[], str | None], connect_timeout: float) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if secure else None
        self._token = token
        self._connect_timeout = connect_timeout
        self._connection: _Connection | None = None
        self._secret: str | None = None

    def post(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Answer:
        """See `Transport.post`. A kept connection that turns out to be closed is replaced once."""
        kept = self._connection is not None
        try:
            return self._exchange(path, body, headers, deadline)
        except (ConnectionError, http.client.BadStatusLine) as error:  # RemoteDisconnected is both
            self.close()
            if not kept:
                raise TransportError(_reason(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise TransportError(_reason(error)) from error
        return self.post(path, body, headers, deadline)

    def close(self) -> None:
        """Closes the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def _exchange(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Answer:
        connection = self._connection
        if connection is None:
            self._secret = self._token()
            connection = self._connection = _Connection(self._host, self._port, self._tls, self._connect_timeout)
        connection.limits = Limits(deadline, MOST_ANSWER_BYTES + _MOST_HEAD_BYTES)
        credentials = {"Authorization": f"Bearer {self._secret}"} if self._secret else {}
        if connection.sock is None:
            connection.connect()
        sent = _send(connection, self._prefix + path, body, {**headers, **credentials})
        response = connection.getresponse()
        content = response.read(MOST_ANSWER_BYTES + 1)
        if len(content) > MOST_ANSWER_BYTES or not response.isclosed():
            self._refuse_rest(response, content)
        if response.will_close or not sent:
            self.close()
        return Answer(response.status, content, _retry_after(response.getheader("Retry-After")))

    def _refuse_rest(self, response: http.client.HTTPResponse, content: bytes) -> None:
        # read(n) returns short, without an error, where the body ends before its Content-Length.
        self.close()
        if len(content) > MOST_ANSWER_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MOST_ANSWER_BYTES} bytes")
        if response.length:
            raise http.client.IncompleteRead(content, response.length)


@dataclass(slots=True)
class Limits:
    """What one request may take: until `deadline`, and `room` bytes of answer."""

    deadline: float
    room: int

    def left(self) -> float:
        """Seconds that remain, never 0 or less."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no complete answer in time")
        return left


class _Connection(http.client.HTTPConnection):
    """A connection whose every wait counts against the limits of the request in progress."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, connect_timeout: float) -> None:
        super().__init__(host, port)
        self.default_port = 443 if tls else 80  # decides whether the Host header names the port
        self._tls = tls
        self._connect_timeout = connect_timeout
        self.limits = Limits(0.0, 0)

    def connect(self) -> None:
        """Resolves, connects (one budget for all addresses), and shakes hands for https."""
        raw = _dial(self.host, self.port, self._connect_timeout, self.limits)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            raw.settimeout(self.limits.left())
            raw = self._tls.wrap_socket(raw, server_hostname=self.host)
        self.sock = _Timed(raw, self)


class _Timed:
    """The part of a socket that http.client uses, with the time that is left set before every wait."""

    def __init__(self, raw: socket.socket, connection: _Connection) -> None:
        self._raw = raw
        self._connection = connection
        self._readers = 0
        self._closing = False

    def sendall(self, data: Any) -> None:
        """Sends everything, or times out: the timeout of a socket's sendall is one for the whole."""
        self._raw.settimeout(self._connection.limits.left())
        self._raw.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - http.client asks for "rb"
        """A reader for one answer."""
        self._readers += 1
        return io.BufferedReader(_Reader(self._raw, self._connection, self.reader_closed))

    def close(self) -> None:
        """Closes the socket when its last answer has been read: http.client closes before it reads the last one."""
        self._closing = True
        if not self._readers:
            self._raw.close()

    def reader_closed(self) -> None:
        """One answer has been read, or given up."""
        self._readers -= 1
        if self._closing and not self._readers:
            self._raw.close()


class _Reader(io.RawIOBase):
    def __init__(self, raw: socket.socket, connection: _Connection, on_close: Callable[[], None]) -> None:
        super().__init__()
        self._raw = raw
        self._connection = connection
        self._on_close = on_close

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._on_close()

    def readinto(self, buffer: Any) -> int:
        limits = self._connection.limits
        self._raw.settimeout(limits.left())
        count = self._raw.recv_into(buffer)
        limits.room -= count
        if limits.room < 0:
            raise http.client.HTTPException(f"an answer of more than {MOST_ANSWER_BYTES} bytes")
        return count


def _send(connection: _Connection, path: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """False if the collector stopped reading: it may have refused a large body, and its answer is worth a look."""
    try:
        connection.request("POST", path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _dial(host: str, port: int, budget: float, limits: Limits) -> socket.socket:
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # cannot be interrupted: sender's thread only
    deadline = min(limits.deadline, time.monotonic() + budget)
    failure: OSError = TimeoutError("no time left to connect")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        raw = socket.socket(family, kind, protocol)
        try:
            raw.settimeout(left / (len(addresses) - index))
            raw.connect(address)
        except OSError as error:
            raw.close()
            failure = error
        else:
            return raw
    raise failure


def _retry_after(header: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _reason(error: Exception) -> str:
    """The kind of failure in words; never the request, which holds the token."""
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    if isinstance(error, socket.gaierror):
        return "has a name that cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections (is it running?)"
    if isinstance(error, ssl.SSLError):
        return f"fails the TLS handshake ({error.reason or type(error).__name__})"
    return f"breaks the connection ({type(error).__name__})"
