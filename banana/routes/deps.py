"""What path operations depend on: who calls, how often, once for a key, for how much, and the body.

The order in which they are named is the order in which they are asked: nobody without a token is counted, and no body is read
of a request that is over its rate limit.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

from fastapi import Depends, Header
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from banana import errors
from banana.admission.budgets import Budgets, Spending
from banana.admission.rate import RateLimit
from banana.admission.tokens import Auth, address_of
from banana.exchange import Exchange, nothing_before_sending
from banana.google.client import GeminiClient
from banana.google.models import ModelNames
from banana.google.prices import Prices
from banana.http.bodies import BodyReader
from banana.http.middleware import exchange_of
from banana.http.responses import BegunResponse
from banana.images import Images, Outcomes
from banana.money import written
from banana.payload.pieces import Pieces
from banana.results.files import Files
from banana.results.history import History
from banana.results.links import Links
from banana.results.requests import KeptRequests, NothingKept
from banana.results.works import BOOKKEEPING_SECONDS, Job
from banana.routes.dialect import Dialect, dialect_of
from banana.routes.kept import KEY_HEADER, key_of, key_refused

Model = TypeVar("Model", bound=BaseModel)

# For the documentation alone: `Auth` looks at every place where a token may be.
TOKEN = HTTPBearer(
    auto_error=False, description="One of ACCESS_TOKENS. The headers x-goog-api-key and x-api-key work too."
)


class Result(Protocol):
    """Writes the body of a response in JSON, with pictures or with links to them."""

    def __call__(self, outcomes: Outcomes, *, as_links: bool) -> Pieces:
        """Return the body in pieces."""
        ...


class JobReader(Protocol):
    """Reads an order as the job wrote it."""

    def __call__(self, order: bytes, services: "Services") -> Job:
        """Return the job, for these services."""
        ...


@dataclass(frozen=True, slots=True)
class TaskFormat:
    """What a route's tasks are.

    Attributes:
        job_of: reads an order as the job wrote it, for these services.
        result: the body that the route would have answered with.
        dialect: of the route, for errors.

    """

    job_of: JobReader
    result: Result
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class Health:
    """What `/ready` and `/metrics` tell.

    Attributes:
        reasons: returns why this worker should get no requests.
        degraded: returns what works with less than it should.
        metrics_folder: where several workers leave what they count; None when there is one.
        metrics_token: what `/metrics` asks for; None when it is open.

    """

    reasons: Callable[[], list[str]]
    degraded: Callable[[], list[str]]
    metrics_folder: Path | None
    metrics_token: str | None


@dataclass(frozen=True, slots=True)
class Services:
    """What the wiring has built, as `app.state.services`.

    Attributes:
        dialects: every API format; the first answers what no other claims.
        auth: finds out who calls.
        rate_limit: how often.
        budgets: how much.
        bodies: reads what they send.
        images: makes images.
        client: the calls to Google, for what is passed through.
        models: the names of models.
        prices: what they cost.
        requests: what is carried out once and kept.
        history: what conversations refer to.
        files: where results are kept.
        links: what they are fetched by.
        task_formats: what the tasks of each route are.
        health: for those who run the service.
        keepalive_seconds: silence before whitespace is sent, 0 for never.
        chat_images_as_links: whether the pictures of a chat are links.
        public_url: where people reach the service; None where requests say it.

    """

    dialects: Sequence[Dialect]
    auth: Auth
    rate_limit: RateLimit
    budgets: Budgets
    bodies: BodyReader
    images: Images
    client: GeminiClient
    models: ModelNames
    prices: Prices
    requests: KeptRequests | NothingKept
    history: History
    files: Files
    links: Links
    task_formats: Mapping[str, TaskFormat]
    health: Health
    keepalive_seconds: float
    chat_images_as_links: bool
    public_url: str | None


async def services_of(request: Request) -> Services:
    """Return what the wiring has built."""
    services: Services = request.app.state.services
    return services


async def health_of(request: Request) -> Health:
    """Return what `/ready` and `/metrics` tell."""
    return (await services_of(request)).health


@dataclass(frozen=True, slots=True)
class Context:
    """What a path operation is handed beside its body.

    Attributes:
        request: of the framework.
        exchange: the request while it is served.
        services: what the wiring has built.
        dialect: the API format of the request.
        spending: what the request spends.
        closing: closed when the response was sent, or will not be.

    """

    request: Request
    exchange: Exchange
    services: Services
    dialect: Dialect
    spending: Spending
    closing: AsyncExitStack

    @property
    def caller(self) -> str:
        """Who calls."""
        assert self.exchange.caller is not None
        return self.exchange.caller

    def closed_at_the_end(self, response: Response) -> Response:
        """Return `response`, which is closed at the end if something runs behind it: its caller may leave before it is sent."""
        if isinstance(response, BegunResponse):
            self.closing.push_async_callback(response.close)
        return response


async def context(request: Request) -> AsyncIterator[Context]:
    """Yield the context of a request; when its response was sent, close what it left, and settle what it spent."""
    services = await services_of(request)
    exchange, dialect = exchange_of(request.scope), dialect_of(request, services.dialects)
    exchange.dialect = dialect.name
    spending = services.budgets.spending(exchange)
    exchange.before_sending = spending.reserve
    try:
        async with AsyncExitStack() as closing:
            closing.push_async_callback(spending.settle)
            request.state.context = Context(request, exchange, services, dialect, spending, closing)
            yield request.state.context
    finally:
        # Circles of references, which would keep its bodies for a while.
        del request.state.context
        exchange.before_sending, exchange.admit_claim = nothing_before_sending, None


CurrentContext = Annotated[Context, Depends(context)]


def context_of(request: Request) -> Context:
    """Return the context of a request: FastAPI would solve `context` again for each dependency that names it."""
    found: Context = request.state.context
    return found


async def authenticated(request: Request) -> None:
    """Find out who calls. Raises Unauthorized; RateLimited when too many such requests came from the address."""
    context = context_of(request)
    exchange, services = context.exchange, context.services
    try:
        exchange.caller = services.auth.caller_of(request, context.dialect.token_parameter)
    except errors.Unauthorized:
        exchange.caller = address_of(request)
        await services.rate_limit.count_refusal(request)
        raise
    if services.auth.needs_token:
        exchange.caller_label = exchange.caller


async def priced(request: Request) -> AsyncIterator[None]:
    """Let the response say which model answered, what it cost, and what is left of the caller's budget."""
    try:
        yield
    except (errors.BananaError, RequestValidationError):
        await _write_price(context_of(request))
        raise
    await _write_price(context_of(request))


async def _write_price(context: Context) -> None:
    exchange, budgets = context.exchange, context.services.budgets
    if exchange.answered_model:
        exchange.response_headers["X-Model"] = exchange.answered_model
    with suppress(TimeoutError):  # it goes on beside the response, which is not held back by it
        async with asyncio.timeout(BOOKKEEPING_SECONDS):
            await context.spending.settle()
            if exchange.cost_usd is not None and not exchange.open_calls:
                exchange.response_headers.setdefault("X-Cost-USD", written(exchange.cost_usd))
            if budgets.budget_of(context.caller) is not None:
                with suppress(errors.LedgerUnavailable):
                    standing = await budgets.standing_of(context.caller)
                    exchange.response_headers["X-Budget-Remaining-USD"] = written(standing.remaining or Decimal(0))


async def counted(request: Request) -> None:
    """Count a request that makes images against the rate limit. Raises RateLimited."""
    _refuse_key(request)
    await context_of(request).services.rate_limit.admit(request)


async def counted_as_replay(request: Request) -> None:
    """Count a request that makes nothing against the rate limit of replays. Raises RateLimited."""
    _refuse_key(request)
    await context_of(request).services.rate_limit.admit_replay(request)


async def counted_once(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias=KEY_HEADER,
            description="Any unique value of 1 to 255 visible ASCII characters. A repeated request with the same value returns"
            " the first result; Google is called once.",
        ),
    ] = None,
    prefer: Annotated[
        str | None,
        Header(
            alias="Prefer",
            description="`respond-async`: returns a task at once. `respond-async, wait=10`: waits up to 10 s for it to end first.",
        ),
    ] = None,
) -> None:
    """Count a request that makes images; one with an Idempotency-Key only as far as can be said before its body is read.

    Raises RateLimited, and InvalidRequest for a key that is none.
    """
    context = context_of(request)
    exchange, services = context.exchange, context.services
    rate_limit = services.rate_limit
    key = key_of(request.headers)
    if key is None:
        await rate_limit.admit(request)
        return
    is_known = await services.requests.is_known(context.caller, key)
    await (rate_limit.admit_replay(request) if is_known else rate_limit.admit_arrival(request))

    async def admit_claim(is_new: bool) -> None:
        if is_new:
            await rate_limit.admit(request)
        elif not is_known:
            await rate_limit.admit_replay(request)

    exchange.idempotency_key, exchange.admit_claim = key, admit_claim


def _refuse_key(request: Request) -> None:
    """Refuse an Idempotency-Key where there are none; with GET it says nothing. Raises InvalidRequest."""
    if request.method == "POST" and key_of(request.headers) is not None:
        raise key_refused()


def body_as(model: type[Model], files: str | None = None) -> Callable[[Request], Awaitable[Model]]:
    """Return a dependency that returns the request's body as `model`; `files` is the field of a form that holds images.

    It reads the body in FastAPI's place, because the megabytes of base64 in it are to stay where they arrived, and FastAPI
    reads a body before it asks any dependency. Raises as `BodyReader.read`.
    """

    async def read(request: Request) -> Model:
        context = context_of(request)
        return await context.services.bodies.read(
            request, model, context.exchange.deadline, files=files, also=request.path_params
        )

    return read


# The dependencies of routes, by what their requests do. `priced` ends before the response is sent, so that its headers are in
# it; `context` ends behind it.
_CALLER = [Depends(context), Depends(authenticated), Depends(priced, scope="function")]
MAKES_IMAGES = [*_CALLER, Depends(counted)]
MAKES_IMAGES_ONCE = [*_CALLER, Depends(counted_once)]
MAKES_NOTHING = [*_CALLER, Depends(counted_as_replay)]
