"""The routes for those who run the service. They never call Google and are never rate limited."""

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from banana import errors, metrics
from banana.admission.tokens import bearer_of, is_same

# What /health answers: the version of the interface that the README promises. The service's own is `banana.__version__`.
CONTRACT_VERSION = "1.0.0"
# Schemas, and no models: for the first model of a route FastAPI imports all of pydantic's old version, 20 ms.
_HEALTH: dict[str, Any] = {
    "type": "object",
    "description": "The service is up.",
    "required": ["status", "version"],
    "properties": {"status": {"const": "healthy"}, "version": {"type": "string"}},
}
_READINESS: dict[str, Any] = {
    "type": "object",
    "description": "Whether requests should be sent here; `degraded` names what works with less than it should.",
    "required": ["status", "reasons", "degraded"],
    "properties": {
        "status": {"enum": ["ready", "not ready"]},
        "reasons": {"type": "array", "items": {"type": "string"}, "description": "Why not."},
        "degraded": {"type": "array", "items": {"type": "string"}},
    },
}


def routes(
    *,
    reasons: Callable[[], list[str]],
    degraded: Callable[[], list[str]],
    metrics_folder: Path | None,
    metrics_token: str | None,
) -> list[BaseRoute]:
    """Return the routes.

    Args:
        reasons: why this worker should get no requests; none when it should.
        degraded: what works with less than it should.
        metrics_folder: where several workers leave what they count; None when there is one.
        metrics_token: what `/metrics` asks for; None when it is open.

    """
    router = APIRouter(tags=["operations"])

    @router.head("/health", include_in_schema=False)
    @router.get("/health", operation_id="health", responses=_answered(_HEALTH, 200))
    async def health() -> Response:
        """Answers 200 while the service runs. Never calls Google, never rate limited."""
        return JSONResponse({"status": "healthy", "version": CONTRACT_VERSION})

    @router.get("/ready", operation_id="ready", responses=_answered(_READINESS, 200, 503))
    async def ready() -> Response:
        """Answers 200 if the service can take requests, else 503: the worker is stopping, or Google refused every API key."""
        why_not = reasons()
        readiness = {"status": "not ready" if why_not else "ready", "reasons": why_not, "degraded": degraded()}
        return JSONResponse(readiness, 503 if why_not else 200)

    @router.get("/metrics", operation_id="metrics", summary="Metrics", response_class=Response)
    async def prometheus(request: Request) -> Response:
        """Metrics of all workers in Prometheus' text format. If METRICS_TOKEN is set, it is required as `Authorization: Bearer`."""
        if metrics_token and not is_same(metrics_token, bearer_of(request.headers)):
            raise errors.Unauthorized("Send METRICS_TOKEN as Authorization: Bearer.")
        return Response(metrics.exposition(metrics_folder), media_type=CONTENT_TYPE_LATEST)

    return list(router.routes)


def _answered(schema: dict[str, Any], *statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": schema}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}
