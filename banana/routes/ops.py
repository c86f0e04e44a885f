"""The routes for those who run the service. They never ask the upstream and are never rate limited."""

from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from banana import metrics


class Health(BaseModel):
    """The service is up."""

    status: str = "healthy"
    version: str


class Readiness(BaseModel):
    """Whether requests should be sent here; `reasons` when not, `degraded` names what works with less than it should."""

    status: str
    reasons: list[str]
    degraded: list[str]


def router(
    version: str,
    *,
    reasons: Callable[[], list[str]],
    degraded: Callable[[], list[str]],
    metrics_folder: Path | None,
) -> APIRouter:
    """Return the routes; `reasons` tells why this worker should get no requests, `degraded` what is not at its best."""
    routes = APIRouter(tags=["operation"])

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health", operation_id="health")
    async def health() -> Health:
        """Tell that the process answers; says nothing of Google."""
        return Health(version=version)

    @routes.get("/ready", operation_id="ready", response_model=Readiness, responses={503: {"model": Readiness}})
    async def ready() -> Response:
        """Tell whether requests should be sent here: 503 while the worker retires or when every API key was refused."""
        why_not = reasons()
        told = Readiness(status="not ready" if why_not else "ready", reasons=why_not, degraded=degraded())
        return JSONResponse(told.model_dump(), 503 if why_not else 200)

    @routes.get("/metrics", operation_id="metrics", response_class=Response)
    async def prometheus() -> Response:
        """Return what is counted, over all workers, in Prometheus' text format."""
        return Response(metrics.exposition(metrics_folder), media_type=CONTENT_TYPE_LATEST)

    return routes
