"""The collector as one ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fastapi import APIRouter, FastAPI

from initscope.service import home
from initscope.service.api import errors, findings, health, runs, stats, tensors
from initscope.service.api.auth import Logins
from initscope.service.api.middleware import Gate
from initscope.service.api.responses import Answer
from initscope.service.settings import Settings
from initscope.service.store.engine import Database

ROUTERS: Final[tuple[APIRouter, ...]] = (
    health.router,
    runs.router,
    tensors.router,
    stats.router,
    findings.router,
)  # fmt: skip
"""Every room's routes; a new router is one line here."""


def create_app(settings: Settings, database: Database | None = None) -> FastAPI:
    """The application; its lifespan starts and stops the worker.

    The schema is expected at head (`store.schema.ensure`). A database that is handed over stays its owner's to close.
    """
    app = FastAPI(
        title="initscope",
        version=installed_version(),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        default_response_class=Answer,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.owns_database = database is None
    app.state.database = database or Database(settings.url)
    app.state.logins = Logins(home.cookie_key(settings))
    errors.install(app)
    app.add_middleware(Gate, settings=settings)
    for router in ROUTERS:
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if app.state.owns_database:
            app.state.database.close()


def installed_version() -> str:
    """The version of the installed package."""
    try:
        return version("initscope")
    except PackageNotFoundError:  # a bare checkout
        return "0"
