"""What holds for every request: a known Host, a request id, safe headers."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from initscope.service.api.responses import Answer
from initscope.service.settings import Settings

_LOG = logging.getLogger(__name__)

SAFE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NO_STORE: Final = "no-store"


class Gate:
    """Refuses foreign Host headers (DNS rebinding) and NUL in addresses; puts the safe headers on every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._names = {"localhost", socket.gethostname().lower(), settings.host.lower()}
        self._names |= {name.lower().strip("[]") for name in settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.setdefault("Cache-Control", _NO_STORE)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        host = _host_name(Headers(scope=scope).get("host", ""))
        app = self._app if self._is_known(host) else _FOREIGN
        if app is self._app and _has_nul(scope):
            app = _NUL
        if app is _FOREIGN:
            _LOG.warning("refused a request for the foreign host %r; INITSCOPE_ALLOWED_HOSTS names more", host[:100])
        await app(scope, receive, send_safely)

    def _is_known(self, host: str) -> bool:
        # An address cannot be rebound: only names can be made to point here by somebody else.
        return host in self._names or _is_address(host)


def _host_name(host: str) -> str:
    """The Host header without its port, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _has_nul(scope: Scope) -> bool:
    """PostgreSQL takes no NUL in a text: no name that is stored anywhere has one."""
    return "\0" in scope["path"] or b"%00" in scope.get("query_string", b"")


_NUL: Final = Answer(
    {
        "error": {
            "code": "bad_request",
            "message": "the path or the query holds a NUL, which is in no name",
            "field": None,
            "hint": None,
        }
    },
    status_code=400,
)
_FOREIGN: Final = Answer(
    {
        "error": {
            "code": "foreign_host",
            "message": "this service does not answer for the host that the request names",
            "field": "Host",
            "hint": "open it by its own address, or add the name to INITSCOPE_ALLOWED_HOSTS",
        }
    },
    status_code=403,
)
