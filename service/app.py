"""The collector as one ASGI application."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fastapi import APIRouter, FastAPI

from initscope.hooks import rule_file
from initscope.hooks.rules.selection import Selection, select
from initscope.service import home
from initscope.service.api import (
    batches,
    capabilities,
    compare,
    errors,
    findings,
    health,
    heartbeats,
    login,
    rules,
    runs,
    stats,
    tensors,
)
from initscope.service.api.auth import Logins
from initscope.service.api.middleware import Gate
from initscope.service.api.responses import Answer
from initscope.service.exporter import endpoint
from initscope.service.exporter.metrics import ServiceMetrics
from initscope.service.ingest.accept import Ingest
from initscope.service.ingest.limits import Admission
from initscope.service.ingest.tally import Tally
from initscope.service.settings import Settings
from initscope.service.store.engine import Database
from initscope.service.web import compare as compare_page
from initscope.service.web import pages
from initscope.service.web.assets import make_assets
from initscope.service.worker import Worker

ROUTERS: Final[tuple[APIRouter, ...]] = (
    health.router,
    login.router,
    batches.router,
    heartbeats.router,
    capabilities.router,
    runs.router,
    tensors.router,
    stats.router,
    findings.router,
    compare.router,
    rules.router,
    endpoint.router,
    pages.router,
    compare_page.router,
)  # fmt: skip
"""Every room's routes; a new router is one line here."""


def create_app(settings: Settings, database: Database | None = None, selection: Selection | None = None) -> FastAPI:
    """The application; its lifespan starts and stops the worker.

    The schema is expected at head (`store.schema.ensure`). A database that is handed over stays its owner's to close.
    `selection` are the rules that judge, by default those of `load_rules`.
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
    app.state.selection = selection or load_rules(settings)
    app.state.tally = Tally()
    app.state.admission = Admission()
    app.state.ingest = Ingest(app.state.database, app.state.tally)
    app.state.metrics = ServiceMetrics(app.version, app.state.database, app.state.tally)
    app.state.logins = Logins(home.cookie_key(settings))
    errors.install(app)
    app.add_middleware(Gate, settings=settings)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", make_assets(), name="static")
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    worker = Worker(app.state.database, app.state.metrics.evaluation_seconds, app.state.selection)
    worker.start()
    try:
        yield
    finally:
        await to_thread(worker.stop)
        if app.state.owns_database:
            app.state.database.close()


def load_rules(settings: Settings) -> Selection:
    """The rules that judge every run, as the settings' file has them; `RuleError` names what is wrong with it."""
    return select() if settings.rules is None else rule_file.load(settings.rules)


def installed_version() -> str:
    """The version of the installed package."""
    try:
        return version("initscope")
    except PackageNotFoundError:  # a bare checkout
        return "0"
