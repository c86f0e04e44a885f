"""The routes for those who run the service. They never call Google and are never rate limited."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from banana import errors, metrics
from banana.admission.tokens import bearer_of, is_same
from banana.routes.deps import Health, health_of

# What /health answers: the version of the interface that the README promises. The service's own is `banana.__version__`.
CONTRACT_VERSION = "1.0.0"


class Healthy(BaseModel):
    """The service is up."""

    status: Literal["healthy"] = "healthy"
    version: str = CONTRACT_VERSION


class Readiness(BaseModel):
    """Whether requests should be sent here."""

    status: Literal["ready", "not ready"]
    reasons: list[str] = Field(description="Why not.")
    degraded: list[str] = Field(description="What works with less than it should.")


CurrentHealth = Annotated[Health, Depends(health_of)]
router = APIRouter(tags=["operations"])


@router.head("/health", include_in_schema=False)
@router.get("/health", operation_id="health", summary="Health")
async def health() -> Healthy:
    """Answers 200 while the service runs. Never calls Google, never rate limited."""
    return Healthy()


@router.get("/ready", operation_id="ready", summary="Ready", responses={503: {"model": Readiness}})
async def ready(health: CurrentHealth, response: Response) -> Readiness:
    """Answers 200 if the service can take requests, else 503: the worker is stopping, or Google refused every API key."""
    reasons = health.reasons()
    response.status_code = 503 if reasons else 200
    return Readiness(status="not ready" if reasons else "ready", reasons=reasons, degraded=health.degraded())


@router.get("/metrics", operation_id="metrics", summary="Metrics", response_class=PlainTextResponse)
async def prometheus(request: Request, health: CurrentHealth) -> Response:
    """Metrics of all workers in Prometheus' text format. If METRICS_TOKEN is set, it is required as `Authorization: Bearer`."""
    if health.metrics_token and not is_same(health.metrics_token, bearer_of(request.headers)):
        raise errors.Unauthorized("Send METRICS_TOKEN as Authorization: Bearer.")
    return Response(metrics.exposition(health.metrics_folder), media_type=CONTENT_TYPE_LATEST)
