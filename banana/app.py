"""The only wiring, read top to bottom: settings in, application out."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import structlog
from fastapi import FastAPI, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

from banana import __version__, errors, logs, metrics, tracing
from banana.admission.budgets import Budget, Budgets
from banana.admission.rate import RateLimit
from banana.admission.tokens import NoAuth, TokenAuth
from banana.exchange import ANONYMOUS
from banana.google.client import GeminiClient
from banana.google.key_spend import LimitedKeySpend, UnlimitedKeySpend
from banana.google.keys import KeyRing
from banana.google.models import ModelNames
from banana.google.prices import ModelPrice, Prices
from banana.google.retries import RetryPolicy
from banana.google.slots import Slots
from banana.google.upstream import Upstream, open_client
from banana.http.addresses import ForwardedAddress
from banana.http.bodies import BodyReader
from banana.http.middleware import (
    BodyLimit,
    CancelOnDisconnect,
    ErrorResponses,
    RequestLimit,
    RequestLog,
    exchange_of,
)
from banana.http.origins import OriginCheck, OriginRules
from banana.images import Images
from banana.intervals import INTERVALS, Intervals
from banana.ledger.engines import open_ledger
from banana.ledger.leases import Beat, Leases
from banana.ledger.spend import Window
from banana.ledger.thread import LedgerThread
from banana.payload.memory import Buffers
from banana.redaction import Redaction
from banana.results.files import Files
from banana.results.history import KeptHistory, NoHistory
from banana.results.links import Links
from banana.results.remote import NoRemoteImages, RemoteImages
from banana.results.requests import KeptRequests, NothingKept
from banana.results.storage import open_files
from banana.results.upkeep import SweepOnly, Upkeep
from banana.results.works import Job, Works
from banana.routes import (
    generate,
    google,
    imagen,
    key,
    models,
    openai_chat,
    openai_images,
    openai_responses,
    openrouter_images,
    ops,
    page,
    results,
    tasks,
)
from banana.routes.deps import TOKEN, Health, Services, TaskFormat
from banana.routes.dialect import dialect_of
from banana.server.descriptors import requests_within_limit
from banana.server.protocol import ServerProtocol
from config import Settings, without_userinfo

# Every API format, its routes in this order: a model's name matches more than Google's methods, so they go first.
# Errors outside every route are answered in the format that claims the path; in the first where none does.
API_FORMATS = (
    generate,
    openai_images,
    openai_chat,
    google,
    openai_responses,
    openrouter_images,
    imagen,
    models,
)
# What the tasks of each route are.
TASK_FORMATS: dict[str, TaskFormat] = {
    endpoint.path: endpoint.task_format
    for endpoint in (
        generate.ENDPOINT,
        openai_images.GENERATIONS,
        openai_images.EDITS,
        openrouter_images.ENDPOINT,
        openai_chat.ENDPOINT,
        openai_responses.ENDPOINT,
    )
} | {google.JOB_ROUTE: google.TASK_FORMAT}
DIALECTS = tuple(api_format.DIALECT for api_format in API_FORMATS)
# Pictures converted at once, in each worker: a 4K picture takes 50 MB while it is.
CONVERTER_THREADS = 2
# On every response: no page of another site shows one in a frame, where clicks could be led to /docs; no guessing of types.
SAFETY_HEADERS = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff"}
# The groups of /docs, in their order: what people come for first.
TAGS = {
    "images": "The service's own route. Start here.",
    "OpenAI": "For OpenAI's SDKs and for chat applications: set their base URL to this address and `/v1`.",
    "Google": "For Google's SDKs: set their base URL to this address.",
    "tasks": "Poll, list, cancel and delete tasks, and open links to images.",
    "models": "The available models.",
    "key": "What you may spend, and what you have spent.",
    "operations": "For monitoring. These routes never call Google.",
}
DEMO_HEADERS = {"X-Demo": "true"}
# What programs in other sites' pages may read of a response; without x-should-retry OpenAI's SDK retries what it must not.
EXPOSED_HEADERS = (
    *("X-Request-ID", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After", "X-Demo"),
    *("x-should-retry", "WWW-Authenticate", "X-Cost-USD", "X-Model", "X-Budget-Remaining-USD", "Idempotent-Replayed"),
    *("Location", "Preference-Applied", "ETag", "Content-Range"),
)

log = structlog.get_logger(__name__)


def create_app(
    settings: Settings,
    transport: httpx.AsyncBaseTransport | None = None,
    metrics_folder: Path | None = None,
    degraded: Sequence[str] = (),
    intervals: Intervals = INTERVALS,
) -> FastAPI:
    """Build the service.

    Args:
        settings: of everything.
        transport: of the client for Google, instead of `BlockTransport`: httpx's own, or one of tests.
        metrics_folder: where several workers leave what they count.
        degraded: what already works with less than it should.
        intervals: how long it waits where that is no setting.

    Raises StoreError and LedgerError when STORE_URL cannot be used, ResultsError when RESULTS_URL cannot.

    """
    log_handlers, redaction = _log(settings)
    keys = KeyRing(settings.gemini_api_key)
    buffers = Buffers(settings.max_buffered_bytes)
    recording = _Recording(settings, intervals)
    callers = TokenAuth(settings.access_tokens).names if settings.access_tokens else {ANONYMOUS}
    metrics.begin_costs(callers, recording.models.resolve(None))
    client = _client(settings, transport, keys, buffers, recording)
    rate_limit = RateLimit(settings.store_url, settings.rate_limit_per_minute, settings.workers)
    converter = ThreadPoolExecutor(CONVERTER_THREADS, "converter")
    keeping = _Keeping(settings, buffers, recording, intervals)
    health = Health(
        reasons=lambda: _not_ready(keys),
        degraded=lambda: [*degraded, *_degraded(rate_limit, log_handlers, recording.ledger, keys), *upkeep.degraded],
        metrics_folder=metrics_folder,
        metrics_token=settings.metrics_token,
    )
    services = _services(settings, client, rate_limit, converter, recording, keeping, health, intervals)
    upkeep = keeping.upkeep({route: partial(known.job_of, services=services) for route, known in TASK_FORMATS.items()})
    lifespan = _lifespan(settings, client, rate_limit, converter, buffers, recording, keeping.remote, upkeep)
    app = _app_without_routes(settings, buffers, redaction, lifespan)
    app.state.services = services
    # For /docs, which asks for a token where one is needed.
    token = [Security(TOKEN)] if services.auth.needs_token else []
    for api_format in (*API_FORMATS, tasks, key):
        app.include_router(api_format.router, dependencies=token)
    for other in (ops, results, page):
        app.include_router(other.router)
    return app


def _log(settings: Settings) -> tuple[Sequence[logs.Handler], Redaction]:
    """Return where lines of the log go, and what they must not show."""
    redaction = Redaction(settings.secrets)
    file, level = settings.log_file, settings.log_level
    return logs.configure(file, level, settings.log_max_bytes, settings.log_backups, redaction), redaction


def _services(
    settings: Settings,
    client: GeminiClient,
    rate_limit: RateLimit,
    converter: ThreadPoolExecutor,
    recording: "_Recording",
    keeping: "_Keeping",
    health: Health,
    intervals: Intervals,
) -> Services:
    """Return what the routes are handed."""
    return Services(
        dialects=DIALECTS,
        auth=TokenAuth(settings.access_tokens) if settings.access_tokens else NoAuth(),
        rate_limit=rate_limit,
        bodies=BodyReader(settings.idle_seconds),
        budgets=recording.budgets,
        images=Images(
            client,
            recording.models,
            converter,
            google_store=settings.gemini_store,
            log_prompts=settings.log_prompts,
            prices=recording.prices,
            intervals=intervals,
        ),
        client=client,
        models=recording.models,
        prices=recording.prices,
        requests=keeping.requests,
        history=keeping.history,
        files=keeping.files,
        links=keeping.links,
        task_formats=TASK_FORMATS,
        health=health,
        keepalive_seconds=settings.keepalive_seconds,
        chat_images_as_links=settings.chat_images == "url",
        public_url=settings.public_url,
    )


class _Recording:
    """What is recorded of keys, tasks and costs, built; `owner` is the name of this worker in it."""

    def __init__(self, settings: Settings, intervals: Intervals) -> None:
        self.owner = secrets.token_hex(8)
        self.ledger = LedgerThread(
            open_ledger(
                settings.store_url,
                settings.ledger_file,
                is_file=settings.ledger_is_a_file,
                is_demo=settings.demo,
                intervals=intervals,
            ),
            intervals,
        )
        self.models = ModelNames(settings.default_model, settings.model_aliases)
        self.prices = Prices({self.models.resolve(name): ModelPrice(*p) for name, p in settings.prices.items()})
        budgets = {name: Budget(limit, Window(window)) for name, (limit, window) in settings.budgets.items()}
        self.beat = Beat(self.ledger, self.owner, intervals)
        self.budgets = Budgets(budgets, self.ledger, self.beat, self.owner, intervals)
        limit = settings.key_spend_per_10_minutes
        self.key_spend = (
            LimitedKeySpend(limit, self.ledger, self.beat, self.owner, intervals) if limit else UnlimitedKeySpend()
        )

    async def close(self) -> None:
        """Record what is left to be recorded, and close the ledger."""
        await self.budgets.close()
        await self.ledger.close()


def open_results(settings: Settings) -> Files:
    """Return where results are kept. Raises ResultsError."""
    return open_files(
        settings.results_url,
        lambda: settings.aws_variables,
        settings.keep_results_seconds,
        settings.keep_results_bytes,
        settings.ledger_file.parent,
    )


def _remote_images(settings: Settings) -> RemoteImages:
    """Return the images of the hosts that are allowed."""
    if not settings.image_url_hosts:
        return NoRemoteImages()
    from banana.results.downloads import Downloads

    return Downloads(settings.image_url_hosts, settings.max_request_bytes * 3 // 4)  # as large as in a body


class _Keeping:
    """What keeps results, built; with KEEP_RESULTS_SECONDS=0 what stands for it."""

    def __init__(self, settings: Settings, buffers: Buffers, recording: _Recording, intervals: Intervals) -> None:
        self._intervals = intervals
        self._task_seconds = settings.task_timeout_seconds
        self._has_tokens = bool(settings.access_tokens)
        self.files = open_results(settings)
        self.links = Links(settings.results_secret, settings.ledger_file.with_name("results.secret"), intervals)
        self._ledger, self._beat = recording.ledger, recording.beat
        self._works = Works(self._ledger, self.files, buffers, recording.budgets, recording.owner, intervals)
        max_bytes = settings.max_request_bytes
        self.remote = _remote_images(settings)
        history = KeptHistory(self._ledger, self.files, self.links, self.remote, buffers, max_bytes, intervals)
        self._requests = KeptRequests(
            self._ledger,
            self.files,
            self.links,
            buffers,
            self._works,
            history,
            settings.task_timeout_seconds,
            is_draining=lambda: ServerProtocol.draining,
            is_stopping=ServerProtocol.is_stopping,
            intervals=intervals,
        )
        self._beat.beat_while(lambda: self._works.is_busy or self._requests.is_claiming)
        # An idle worker would not notice that the ledger works again.
        self._beat.beat_while(lambda: recording.ledger.fails)
        self.requests = self._requests if settings.keep_results_seconds else NothingKept()
        self.history = history if settings.keep_results_seconds else NoHistory(self.remote, buffers, max_bytes)

    def upkeep(self, jobs: dict[str, Callable[[bytes], Job]]) -> Upkeep | SweepOnly:
        """Return what runs beside the requests; `jobs` read the orders of tasks."""
        if isinstance(self.requests, NothingKept):
            return SweepOnly(self.files)
        return Upkeep(
            self._ledger,
            Leases(self._ledger, self._beat, intervals=self._intervals),
            self.files,
            self.links,
            self._works,
            self._requests,
            jobs,
            self._task_seconds,
            label_of=(lambda caller: caller) if self._has_tokens else (lambda _: ANONYMOUS),
            intervals=self._intervals,
        )


def _client(
    settings: Settings,
    transport: httpx.AsyncBaseTransport | None,
    keys: KeyRing,
    buffers: Buffers,
    recording: _Recording,
) -> GeminiClient:
    limits = httpx.Limits(
        max_connections=settings.max_connections,
        max_keepalive_connections=settings.max_connections,
        keepalive_expiry=settings.upstream_idle_seconds,
    )
    client = open_client(limits, settings.upstream_proxy, transport)
    return GeminiClient(
        google=Upstream(client, settings.gemini_base_url),
        keys=keys,
        slots=Slots(settings.max_connections, settings.max_waiting),
        retry_policy=RetryPolicy(settings.retries, settings.retry_backoff_seconds),
        max_response_bytes=settings.max_response_bytes,
        buffers=buffers,
        models=recording.models,
        prices=recording.prices,
        key_spend=recording.key_spend,
    )


def _app_without_routes(
    settings: Settings, buffers: Buffers, redaction: Redaction, lifespan: Callable[[FastAPI], Any]
) -> FastAPI:
    """Return the application without its routes: documentation, middleware from the outside in, errors outside routes."""
    return FastAPIOffline(
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to whatever host the request names
        favicon_url="/page/icon.svg",
        title="BananaService",
        version=__version__,
        summary="A relay between your programs and Google's Gemini image models.",
        openapi_tags=[{"name": name, "description": description} for name, description in TAGS.items()],
        telemetry=None if tracing.is_collecting() else dict.fromkeys(("tracing", "metrics", "logs"), False),
        lifespan=lifespan,
        middleware=_middleware(settings, buffers, redaction),
        exception_handlers={
            errors.BananaError: _banana_error_response,
            HTTPException: _http_error_response,
            RequestValidationError: _validation_error_response,
        },
    )


def _middleware(settings: Settings, buffers: Buffers, redaction: Redaction) -> list[Middleware]:
    """Return what every request passes, from the outside in."""
    rules = OriginRules(
        needs_token=bool(settings.access_tokens),
        on_loopback=settings.on_loopback,
        public_url=settings.public_url,
        allowed=frozenset(settings.cors_origins),
    )
    return [
        Middleware(ForwardedAddress, trusted=settings.forwarded_allow_ips),
        Middleware(
            RequestLog,
            timeout_seconds=settings.request_timeout_seconds,
            headers=SAFETY_HEADERS | (DEMO_HEADERS if settings.demo else {}),
            buffers=buffers,
            redaction=redaction,
        ),
        Middleware(OriginCheck, rules=rules, error_response=_error_response),
        *([_cors(settings)] if settings.cors_origins else []),
        Middleware(ErrorResponses, error_response=_error_response),
        Middleware(
            RequestLimit,
            max_requests=requests_within_limit(settings.max_requests, settings.max_connections),
            always=["/health"],
        ),
        Middleware(CancelOnDisconnect),
        Middleware(BodyLimit, max_bytes=settings.max_request_bytes, buffers=buffers),
    ]


def _cors(settings: Settings) -> Middleware:
    """Return what lets pages of other sites read what they get."""
    return Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=EXPOSED_HEADERS,
    )


def _lifespan(
    settings: Settings,
    client: GeminiClient,
    rate_limit: RateLimit,
    converter: ThreadPoolExecutor,
    buffers: Buffers,
    recording: _Recording,
    remote: RemoteImages,
    upkeep: Upkeep | SweepOnly,
) -> Callable[[FastAPI], Any]:
    """Return the lifespan, which only closes what was built."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log.info(
            "started",
            version=__version__,
            upstream=without_userinfo(settings.gemini_base_url),
            keys=len(settings.gemini_api_key),
        )
        running = (recording.beat.run(), upkeep.run(), recording.budgets.run())
        beside = [asyncio.create_task(work) for work in running]
        yield
        await upkeep.drain()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        upkeep.close()
        rate_limit.close()
        converter.shutdown(wait=False)
        await remote.close()
        await client.close()
        await recording.close()

    return lifespan


def _not_ready(keys: KeyRing) -> list[str]:
    """Return why this worker should get no requests."""
    reasons = []
    if ServerProtocol.draining:
        reasons.append("draining")
    if not keys.has_usable_key():
        if keys.out_of_money_count():
            reasons.append("no API key has money left")
        else:
            reasons.append("Google refused every API key")
    return reasons


def _degraded(
    rate_limit: RateLimit, log_handlers: Sequence[logs.Handler], ledger: LedgerThread, keys: KeyRing
) -> list[str]:
    """Return what works with less than it should."""
    parts = {
        "store": rate_limit.degraded,
        "log": any(handler.fails for handler in log_handlers),
        "ledger": ledger.fails,
        "keys_out_of_money": bool(keys.out_of_money_count()),
    }
    return [name for name, is_degraded in parts.items() if is_degraded]


def _error_response(request: Request, error: errors.BananaError) -> Response:
    """Return an error in the API format that claims the request."""
    exchange = exchange_of(request.scope)
    exchange.error_code = error.code
    return dialect_of(request, DIALECTS).error_response(exchange, error)


async def _banana_error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.BananaError)
    return _error_response(request, error)


async def _http_error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error_response(request, _from_http_exception(request, error))


async def _validation_error_response(request: Request, error: Exception) -> Response:
    """Return what FastAPI says of a parameter, in our words."""
    assert isinstance(error, RequestValidationError)
    problems = [
        (str(item["loc"][-1]), str(item["msg"]).replace("Input should be", "must be")) for item in error.errors()
    ]
    return _error_response(request, errors.InvalidRequest.of_fields(problems))


def _methods_of(request: Request) -> list[str]:
    """Return the methods that a path answers; the framework names those of the first route that has it."""
    contexts = iter_route_contexts(request.app.routes)
    routes = [(route.path, route.methods) for route in contexts if route.path and getattr(route, "methods", None)]
    path = next((path for path, _ in routes if compile_path(path)[0].match(request.scope["path"])), None)
    if path is None:  # a file of /docs
        return ["GET", "HEAD"]
    return sorted({method for other, methods in routes if other == path for method in methods or ()})


def _from_http_exception(request: Request, error: HTTPException) -> errors.BananaError:
    """Return what an error of the framework means."""
    method, path = request.method, exchange_of(request.scope).path
    not_passed_on = google.not_passed_on(path)
    if error.status_code == 405 and not not_passed_on:
        allowed = ", ".join(_methods_of(request))
        not_allowed = errors.MethodNotAllowed(f"{path} does not support {method}. Use {allowed}.")
        not_allowed.headers["Allow"] = allowed
        return not_allowed
    if error.status_code in (404, 405):
        return errors.NotFound(not_passed_on or f"{path} was not found. All routes are listed at /docs.")
    return errors.InvalidRequest(str(error.detail))
