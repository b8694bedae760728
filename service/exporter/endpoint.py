"""GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from sqlalchemy.exc import SQLAlchemyError

from initscope.service.api.auth import require
from initscope.service.exporter.metrics import ServiceMetrics
from initscope.service.store.engine import Busy

router = APIRouter(tags=["metrics"])
_READ = require("read")


@router.get("/metrics")
def show_metrics(request: Request) -> Response:
    """Prometheus text or OpenMetrics, for a token with the scope read.

    Without a database tokens cannot be checked: then 200 with nothing but `initscope_database_up 0`, so that the
    outage is a number to alert on and not a failed scrape among others.
    """
    metrics: ServiceMetrics = request.app.state.metrics
    try:
        _READ(request)
    except (SQLAlchemyError, Busy):
        return _render(request, metrics.outage)
    return _render(request, metrics.registry)


def _render(request: Request, registry: CollectorRegistry) -> Response:
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": content_type})
