"""What one request may cost: bytes, nesting, and how many are worked on at a time."""

from __future__ import annotations

import json
import math
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from initscope.hooks.encoding import number_to_json
from initscope.hooks.vocabulary import MAX_DECODED_BYTES
from initscope.service.ingest.refusal import Refusal

MAX_IN_FLIGHT: Final = 32
"""Requests with a body at a time; more are asked to come back."""
MAX_NESTING: Final = 32
_CHUNK: Final = 64 * 2**10
_MAX_MEMBERS: Final = 1024


class Admission:
    """Lets a bounded number of requests in, so that waiting costs the client a retry and not the service its memory."""

    def __init__(self, limit: int = MAX_IN_FLIGHT) -> None:
        self._places = threading.BoundedSemaphore(limit)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """A place for the length of the block; `Refusal` 503 when all are taken."""
        if not self._places.acquire(blocking=False):
            raise Refusal(503, "overloaded", "too many batches at a time; try again", headers={"Retry-After": "1"})
        try:
            yield
        finally:
            self._places.release()


def gunzip(body: bytes, limit: int = MAX_DECODED_BYTES) -> bytes:
    """All members of a gzip body, at most `limit` bytes of them: 413 beyond, 400 for garbage or a missing end."""
    source, parts, total, members = memoryview(body), [], 0, 0
    offset = 0
    while offset < len(source):
        members += 1
        if members > _MAX_MEMBERS:
            raise Refusal(400, "invalid_body", f"the gzip body has more than {_MAX_MEMBERS} members")
        member, offset = _member(source, offset, limit - total)
        parts.append(member)
        total += len(member)
        offset = _skip_padding(body, offset)
    if not members:
        raise Refusal(400, "invalid_body", "the body is empty")
    return b"".join(parts)


def _member(source: memoryview, offset: int, room: int) -> tuple[bytes, int]:
    """One member's bytes and where the next begins."""
    stream, parts, size = zlib.decompressobj(31), [], 0
    while not stream.eof:
        chunk = stream.unconsumed_tail or source[offset : offset + _CHUNK]
        if not stream.unconsumed_tail:
            offset += len(chunk)
        if not len(chunk):
            raise Refusal(400, "invalid_body", "the gzip body ends too early")
        try:
            part = stream.decompress(chunk, _CHUNK)
        except zlib.error:
            raise Refusal(400, "invalid_body", "the body is not gzip, although its Content-Encoding says so") from None
        size += len(part)
        if size > room:
            raise too_large("after decompression", MAX_DECODED_BYTES)
        parts.append(part)
    return b"".join(parts), offset - len(stream.unused_data)


def _skip_padding(body: bytes, offset: int) -> int:
    """Zero bytes behind a member are padding (RFC 1952 leaves them open; tape tools write them)."""
    if offset < len(body) and body[offset] == 0:
        return len(body) - len(body[offset:].lstrip(b"\0"))
    return offset


def too_large(what: str, limit: int) -> Refusal:
    """413: more bytes than a request may have."""
    return Refusal(
        413, "too_large", f"the body is larger than {limit} bytes {what}".rstrip(), hint="send smaller batches"
    )


def portable(value: Any, field: str, limit: int) -> Any:
    """Free-form data as every database and JSON reader takes it; 422 when it is too deep or too long.

    Non-finite numbers become text; NUL and lone surrogates, which PostgreSQL or UTF-8 refuse, become U+FFFD.
    """
    plain = _portable(value, field, MAX_NESTING)
    size = len(json.dumps(plain))
    if size > limit:
        raise Refusal(422, "invalid_field", f"has {size} bytes as JSON, at most {limit} are kept", field=field)
    return plain


def _portable(value: Any, field: str, depth: int) -> Any:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else number_to_json(value)
    if isinstance(value, dict | list) and depth == 0:
        raise Refusal(422, "invalid_field", f"is nested more than {MAX_NESTING} levels deep", field=field)
    if isinstance(value, dict):
        return {_clean(key): _portable(item, field, depth - 1) for key, item in value.items()}
    return [_portable(item, field, depth - 1) for item in value] if isinstance(value, list) else value


def _clean(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "�").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
