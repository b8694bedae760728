"""A running collector: database, socket, application and its thread, started and stopped as one thing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError

from initscope.hooks.rules.registry import RuleError
from initscope.hooks.rules.selection import Selection
from initscope.service import home
from initscope.service.api.auth import Logins
from initscope.service.app import create_app, load_rules
from initscope.service.complaint import Complaint
from initscope.service.settings import Settings
from initscope.service.store import schema, tokens
from initscope.service.store.engine import Database
from initscope.service.store.lock import ServerLock

_SHUTDOWN_SECONDS: Final = 10


class CannotStart(Complaint):
    """The collector does not start, and why."""


class RunningServer:
    """Context manager: inside it, the collector of `settings` answers at `url`.

    Raises a `Complaint` for an occupied port, a database in use, a schema of another version, an open address, a file
    of rules that cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cleanup = ExitStack()
        self._app: FastAPI
        self._server: uvicorn.Server
        self._thread: threading.Thread
        self.url: str
        self.token: str
        self.login_link: str

    def __enter__(self) -> RunningServer:
        _check_address(self._settings)
        try:
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def is_alive(self) -> bool:
        """False once the server thread has ended."""
        return self._thread.is_alive()

    def make_login_link(self) -> str:
        """An address that logs one browser in, once. Its code is not the token."""
        logins: Logins = self._app.state.logins
        return f"{self.url}/login?code={logins.make_code(tokens.token_id(self.token))}"

    def _start(self) -> None:
        selection = _load_rules(self._settings)
        database = _open_database(self._settings, self._cleanup)
        listener = _bind(self._settings)
        self._cleanup.callback(listener.close)
        self.token = home.first_token(self._settings, database)
        self._app = create_app(self._settings, database, selection)
        self.url = _url(self._settings, listener)
        config = uvicorn.Config(
            self._app,
            access_log=False,
            log_level="warning",
            log_config=None,
            lifespan="on",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            server_header=False,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="initscope-http", daemon=True)
        self._thread.start()
        self._cleanup.callback(self._stop)
        self._server.wait_until_started(self._thread)
        self.login_link = self.make_login_link()

    def _stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(_SHUTDOWN_SECONDS + 5)


class _Server(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._is_up.set()

    def wait_until_started(self, thread: threading.Thread) -> None:
        while not self._is_up.wait(0.05):
            if not thread.is_alive():
                raise CannotStart("the server ended while it started; its log says why")


def run_server(settings: Settings, *, ready: Callable[[RunningServer], None], stop: threading.Event) -> None:
    """Serves until `stop` is set; `ready` is told once the collector answers."""
    with RunningServer(settings) as server:
        ready(server)
        while not stop.wait(0.5):
            if not server.is_alive:
                raise CannotStart("the server ended by itself; its log says why")


def _check_address(settings: Settings) -> None:
    if not (settings.on_loopback or settings.behind_proxy or settings.insecure):
        raise CannotStart(
            f"{settings.host} can be reached by other machines, and tokens would travel in clear text: "
            "put a TLS proxy in front and add --behind-proxy, or accept that with --insecure"
        )


def _load_rules(settings: Settings) -> Selection:
    try:
        return load_rules(settings)
    except RuleError as error:
        raise CannotStart(f"--rules: {' '.join(str(error).split())}") from None


def _open_database(settings: Settings, cleanup: ExitStack) -> Database:
    try:
        database = Database(settings.url)
        cleanup.callback(database.close)
        if database.path is not None:
            if settings.database_url is None:
                home.ensure(settings)
            cleanup.callback(ServerLock(database.path).release)
        schema.ensure(database)
    except (OperationalError, OSError) as error:
        reason = error.orig if isinstance(error, OperationalError) else error
        raise CannotStart(f"cannot open the database: {' '.join(str(reason).split())}") from None
    return database


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sends small packets at once only where the protocol is named; else each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; --port takes another one"
        ) from None
    return listener


def _url(settings: Settings, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    # An address that a browser on this machine can open, also for a server that listens everywhere.
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"
