"""Who may do what: tokens in the header, or the cookie of a login."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request
from sqlalchemy import Connection

from initscope.service.api.errors import ApiError
from initscope.service.store import tokens
from initscope.service.store.engine import Database
from initscope.service.store.tokens import Grant, Scope

COOKIE: Final = "initscope_session"
COOKIE_SECONDS: Final = 7 * 24 * 3600
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Logins:
    """Single-use login codes, and cookies signed with a key that only this home has.

    A cookie names its token, so that revoking the token ends the cookie too. Codes live in memory only.
    """

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock
        self._codes: dict[str, str] = {}

    def make_code(self, token_id: str) -> str:
        """A new code, good for one login as the bearer of that token."""
        code = secrets.token_urlsafe(24)
        self._codes[code] = token_id
        return code

    def redeem(self, code: str) -> str | None:
        """The token's id, once."""
        return self._codes.pop(code, None)

    def make_cookie(self, token_id: str) -> str:
        """A value that proves a login for seven days."""
        body = f"{token_id}.{int(self._clock()) + COOKIE_SECONDS}"
        return f"{body}.{self._sign(body)}"

    def read_cookie(self, value: str) -> str | None:
        """The token's id; None for a forged or expired value."""
        body, _, signature = value.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(body).encode()):
            return None
        token_id, _, expires = body.partition(".")
        return token_id if int(expires) > self._clock() else None

    def _sign(self, body: str) -> str:
        return hmac.digest(self._key, body.encode(), "sha256").hex()


class Require:
    """A dependency that lets a request pass if its bearer has one of the scopes; gives the `Grant`."""

    def __init__(self, scopes: tuple[Scope, ...]) -> None:
        self.scopes = scopes

    def __call__(self, request: Request) -> Grant:
        """401 without a valid token or cookie, 403 without a scope."""
        grant = _grant_of(request)
        if not any(grant.allows(scope) for scope in self.scopes):
            raise ApiError(
                403,
                "forbidden",
                f"this token lacks the scope {' or '.join(self.scopes)}",
                hint="initscope token create --scope …",
            )
        return grant


def require(*scopes: Scope) -> Require:
    """The dependency of a route: any of the scopes is enough, and admin always is."""
    return Require(scopes)


Reader = Annotated[Grant, Depends(require("read"))]
Admin = Annotated[Grant, Depends(require("admin"))]


def _grant_of(request: Request) -> Grant:
    database: Database = request.app.state.database
    header, cookie = request.headers.get("authorization"), request.cookies.get(COOKIE)
    if header is not None:
        with database.read() as connection:
            grant = _by_header(connection, header)
    elif cookie is not None:
        grant = _by_cookie(request, database, cookie)
    else:
        raise _unauthorized("a token is needed")
    if grant is None:
        raise _unauthorized("the token or login is unknown, expired or revoked")
    return grant


def _by_header(connection: Connection, header: str) -> Grant | None:
    scheme, _, token = header.partition(" ")
    return tokens.find(connection, token.strip()) if scheme.lower() == "bearer" else None


def _by_cookie(request: Request, database: Database, cookie: str) -> Grant | None:
    if request.method not in _SAFE_METHODS:
        check_same_origin(request)
    logins: Logins = request.app.state.logins
    token_id = logins.read_cookie(cookie)
    if token_id is None:
        return None
    with database.read() as connection:
        grant = tokens.find_by_id(connection, token_id)
    # A browser never sends batches: a stolen cookie must not be able to write a run.
    return Grant(grant.token_id, grant.scopes - {"ingest"}) if grant else None


def check_same_origin(request: Request) -> None:
    """Refuses a change that another site's page asked the browser for."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    same_host = origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    if site == "same-origin" or (site is None and same_host):
        return
    raise ApiError(403, "cross_site", "this change was not asked for by a page of this service", field="Origin")


def _unauthorized(message: str) -> ApiError:
    return ApiError(
        401,
        "unauthorized",
        message,
        hint="send Authorization: Bearer TOKEN; the first token is in the file `token` of the collector's home",
        headers={"WWW-Authenticate": "Bearer"},
    )
