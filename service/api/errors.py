"""Every refusal of the service in one shape: `{"error": {code, message, field, hint}}`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from initscope.service.api.middleware import SAFE_HEADERS
from initscope.service.api.responses import Answer
from initscope.service.ingest.refusal import Refusal
from initscope.service.store.engine import Busy

_LOG = logging.getLogger(__name__)
_RETRY: Final = {"Retry-After": "1"}
_CODES: Final = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_MAX_FIELD: Final = 200


class ApiError(Refusal):
    """A refusal by a route."""


def install(app: FastAPI) -> None:
    """Gives every kind of failure its answer."""
    app.add_exception_handler(Refusal, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    for unavailable in (Busy, PoolTimeout, OperationalError, InterfaceError):
        app.add_exception_handler(unavailable, _unavailable)
    app.add_exception_handler(DBAPIError, _database)
    app.add_exception_handler(Exception, _internal)


def field_of(location: Sequence[Any]) -> str:
    """A path such as `tensors.3.name`, at most 200 characters."""
    return ".".join(str(part) for part in location)[:_MAX_FIELD]


def answer(
    status: int,
    code: str,
    message: str,
    *,
    field: str | None = None,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error in the one shape."""
    body = {"error": {"code": code, "message": message, "field": field, "hint": hint}}
    return Answer(body, status_code=status, headers=dict(headers or {}))


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 - registered for this class only
    if error.status == HTTPStatus.UNAUTHORIZED and _is_page(request):
        # The query belongs to it: a link that was sent shows a chosen step of a chosen tensor.
        page = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(page, safe='/')}", status_code=HTTPStatus.SEE_OTHER)
    return answer(
        error.status, error.code, error.message, field=error.field, hint=error.hint, headers=error.headers
    )  # fmt: skip


def _is_page(request: Request) -> bool:
    wants_html = "text/html" in request.headers.get("accept", "")
    return request.method == "GET" and wants_html and not request.url.path.startswith(("/api/", "/login"))


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    # The input is never echoed: it may be huge, secret, or a NaN that no JSON can carry.
    first = error.errors()[0]
    where = first["loc"][1:] if first["loc"][:1] in (("body",), ("query",), ("path",)) else first["loc"]
    return answer(422, "invalid_field", str(first["msg"]), field=field_of(where) or None)


def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    phrase = HTTPStatus(error.status_code).phrase
    code = _CODES.get(error.status_code, phrase.lower().replace(" ", "_"))
    return answer(error.status_code, code, str(error.detail or phrase), headers=error.headers)


def _gone(_request: Request, _error: Exception) -> Response:
    return answer(400, "incomplete_body", "the connection ended before the body did")


def _unavailable(_request: Request, error: Exception) -> Response:
    _LOG.warning("the database did not answer: %s", _cause(error))
    return answer(503, "unavailable", "the database does not answer; try again", headers=_RETRY)


def _database(request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)  # noqa: S101
    if error.connection_invalidated or (getattr(error.orig, "sqlstate", None) or "").startswith(
        ("08", "40", "53", "57")
    ):
        return _unavailable(request, error)
    return _internal(request, error)


def _cause(error: Exception) -> str:
    # Statements and parameters stay out of the log.
    return type(error).__name__ if not isinstance(error, DBAPIError) else f"{type(error.orig).__name__}: {error.orig}"


def _internal(request: Request, error: Exception) -> Response:
    request_id = getattr(request.state, "request_id", "unknown")
    _LOG.error("request %s failed", request_id, exc_info=error)
    message = f"the service failed; its log has the details under request {request_id}"
    # Starlette answers this outside of every middleware.
    headers = {**SAFE_HEADERS, "X-Request-Id": request_id, "Cache-Control": "no-store"}
    return answer(500, "internal", message, headers=headers)
