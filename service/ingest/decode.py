"""From the bytes of a request to a validated batch or heartbeat. Everything wrong ends in a `Refusal`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from initscope.hooks import vocabulary as v
from initscope.hooks import wire
from initscope.hooks.encoding import parse_binary, parse_json
from initscope.hooks.wire import Header, Heartbeat, Records, WireError
from initscope.service.ingest.limits import gunzip, portable, too_large
from initscope.service.ingest.refusal import Refusal

T = TypeVar("T")

_HEADER: Final = TypeAdapter(Header)
_HEARTBEAT: Final = TypeAdapter(Heartbeat)
_PARSERS: Final = {wire.MEDIA_JSON: parse_json, wire.MEDIA_BINARY: parse_binary}
_MAX_BOOKS_BYTES: Final = 16 * 2**10
_MAX_FIELD: Final = 200


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch whose header is valid; its records are judged one by one later."""

    header: Header
    records: Records
    description: dict[str, Any] | None
    """The run's description as plain data that any database takes."""
    books: dict[str, Any] | None
    unknown_fields: int


def decode_batch(content_type: str, content_encoding: str, body: bytes) -> Decoded:
    """A batch from a request's body; 415, 413, 400 or 422 as a `Refusal` with the field's path."""
    parse = _PARSERS.get(_media_type(content_type))
    if parse is None:
        known = " or ".join(_PARSERS)
        raise Refusal(415, "unsupported_media_type", f"the body must be {known}", field="Content-Type")
    data = _decompress(content_encoding, body)
    try:
        plain, records = parse(data)
    except WireError as error:
        raise _malformed(error) from None
    if len(records) > v.MAX_RECORDS_PER_BATCH:
        raise Refusal(422, "invalid_field", f"at most {v.MAX_RECORDS_PER_BATCH} records in a batch", field="records")
    header = _validate(_HEADER, plain)
    return Decoded(header, records, _description(header), plain_books(header.books), _unknown(plain))


def decode_heartbeat(content_type: str, content_encoding: str, body: bytes) -> Heartbeat:
    """A heartbeat from a request's body; refusals as for batches."""
    if _media_type(content_type) not in ("application/json", wire.MEDIA_JSON):
        raise Refusal(415, "unsupported_media_type", "a heartbeat must be application/json", field="Content-Type")
    try:
        plain, _ = parse_json(_decompress(content_encoding, body))
    except WireError as error:
        raise _malformed(error) from None
    return _validate(_HEARTBEAT, plain)


def plain_books(books: wire.Books | None) -> dict[str, Any] | None:
    """Books as plain data; 422 when they name too many reasons."""
    return None if books is None else portable(asdict(books), "books", _MAX_BOOKS_BYTES)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _decompress(content_encoding: str, body: bytes) -> bytes:
    coding = content_encoding.strip().lower()
    if coding == "gzip":
        return gunzip(body)
    if coding not in ("", "identity"):
        raise Refusal(415, "unsupported_encoding", "the body must be gzip or plain", field="Content-Encoding")
    if len(body) > v.MAX_DECODED_BYTES:
        raise too_large("", v.MAX_DECODED_BYTES)
    return body


def _malformed(error: WireError) -> Refusal:
    if error.location == "body":
        return Refusal(400, "invalid_body", f"the body {error.message}")
    return Refusal(422, "invalid_field", error.message, field=error.location[:_MAX_FIELD])


def _validate(adapter: TypeAdapter[T], plain: Mapping[str, Any]) -> T:
    try:
        return adapter.validate_python(plain)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        path = ".".join(str(part) for part in first["loc"])[:_MAX_FIELD]
        raise Refusal(422, "invalid_field", first["msg"], field=path or None) from None


def _description(header: Header) -> dict[str, Any] | None:
    if header.description is None:
        return None
    plain = asdict(header.description)
    config = portable(plain.pop("config"), "description.config", v.MAX_CONFIG_BYTES)
    rest: dict[str, Any] = portable(plain, "description", v.MAX_CONFIG_BYTES)
    return {**rest, "config": config}


def _names(kind: type) -> frozenset[str]:
    return frozenset(f.name for f in fields(kind))


_KNOWN: Final = _names(Header)
_PARTS: Final = {
    "run": _names(wire.RunKey),
    "session": _names(wire.SessionKey),
    "description": _names(wire.RunDescription),
    "books": _names(wire.Books),
    "tensors": _names(wire.TensorInfo),
    "scalars": _names(wire.Scalar),
}


def _unknown(plain: Mapping[str, Any]) -> int:
    """Fields that this version does not know: a newer client's, ignored and counted."""
    count = len(plain.keys() - _KNOWN)
    for name, known in _PARTS.items():
        count += sum(len(item.keys() - known) for item in _objects(plain.get(name)))
    return count


def _objects(part: Any) -> Iterable[Mapping[str, Any]]:
    return part if isinstance(part, list) else [part] if isinstance(part, dict) else []
