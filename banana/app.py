"""The only wiring, read top to bottom: settings in, application out."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from banana import __version__, answers, errors, logs
from banana.asgi import AccessLog, BodyLimit, CancelOnDisconnect, LastResort
from banana.callers import Anyone, TokenHolders
from banana.protocol import DrainingProtocol
from banana.ratelimit import Allowance
from banana.relay import Relay
from banana.routes import generate, native, openai, ops, page
from banana.upstream import Upstream
from config import Settings

log = structlog.get_logger(__name__)
DEMO_HEADER = {"X-Demo": "true"}


def create_app(settings: Settings, transport: Any = None, metrics_folder: Path | None = None) -> FastAPI:
    """Build the service.

    `transport` is another network than the real one (an httpx transport), for tests; `metrics_folder` is where several
    workers leave what they count.
    """
    logs.configure(settings.log_file, settings.log_level, settings.log_max_bytes, settings.log_backups)
    upstream = Upstream(
        base_url=settings.gemini_base_url,
        keys=settings.gemini_api_key,
        max_connections=settings.max_connections,
        max_waiting=settings.max_waiting,
        max_response_bytes=settings.max_response_bytes,
        retries=settings.retries,
        backoff_seconds=settings.retry_backoff_seconds,
        proxy=settings.upstream_proxy,
        transport=transport,
    )
    callers = TokenHolders(settings.access_tokens) if settings.access_tokens else Anyone()
    allowance = Allowance(settings.store_url, settings.rate_limit_per_minute, settings.workers, callers)

    def not_ready() -> list[str]:
        usable = upstream.keys.usable()
        return ["draining"] * DrainingProtocol.draining + ([] if usable else ["every API key was refused"])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # What lives as long as the process is not looked at again by the garbage collector: its longest pause was 13 ms.
        gc.collect()
        gc.freeze()
        log.info("started", version=__version__, upstream=settings.gemini_base_url, keys=len(settings.gemini_api_key))
        yield
        await upstream.close()

    app = FastAPIOffline(
        redoc_url=None,
        favicon_url="/page/icon.svg",
        title="BananaService",
        version=__version__,
        summary="A relay between your programs and Google's Gemini image models.",
        lifespan=lifespan,
        middleware=[
            Middleware(AccessLog, headers=DEMO_HEADER if settings.demo else {}),
            Middleware(LastResort, tell=_tell_in_dialect),
            Middleware(CancelOnDisconnect),
            Middleware(BodyLimit, max_bytes=settings.max_request_bytes),
        ],
        exception_handlers={
            errors.BananaError: _tell_error,
            HTTPException: _tell_http_error,
        },
    )
    relay = Relay(
        upstream=upstream,
        guard=allowance.guard,
        timeout_seconds=settings.request_timeout_seconds,
        keepalive_seconds=settings.keepalive_seconds,
        default_model=settings.default_model,
        model_aliases=settings.model_aliases,
        store=settings.gemini_store,
        log_prompts=settings.log_prompts,
    )
    for router in (
        ops.router(
            __version__,
            reasons=not_ready,
            degraded=lambda: ["store"] if allowance.degraded else [],
            metrics_folder=metrics_folder,
        ),
        generate.router(relay),
        openai.router(relay),
        native.router(relay, openai.models(relay)),
    ):
        app.router.routes.extend(router.routes)
    app.router.routes.extend(page.routes())
    return app


def _tell_in_dialect(request: Request, error: errors.BananaError) -> Response:
    """Tell of an error outside every handler in the dialect of the path."""
    path = request.url.path
    if path.startswith("/v1/images") or (path.startswith("/v1/models") and "x-goog-api-key" not in request.headers):
        return openai.tell(request, error)
    if path.startswith(("/v1beta", *(f"{prefix}/models" for prefix in native.PREFIXES))):
        return native.tell(request, error)
    return answers.tell(request, error)


async def _tell_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.BananaError)
    return _tell_in_dialect(request, error)


async def _tell_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    told: errors.BananaError
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        told = errors.MethodNotAllowed(f"{path} does not answer {method}; it answers {allowed}.")
        told.headers["Allow"] = allowed
    elif error.status_code == 404:
        told = errors.NotFound(f"There is nothing at {path}; the routes are listed at /docs.")
    else:
        told = errors.InvalidRequest(str(error.detail))
    return _tell_in_dialect(request, told)
