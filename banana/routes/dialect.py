"""What an API format is to this service, and the one way in which a request of any format is served.

A dialect is one value and pure functions; nothing of it knows how images are made. A new one is one file beside this
one and one line in the wiring.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import structlog
from fastapi import Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from banana import errors
from banana.admission.budgets import Budgets
from banana.admission.rate import RateLimit
from banana.admission.tokens import Auth, address_of
from banana.exchange import Exchange, nothing_before_sending
from banana.google.client import GeminiClient
from banana.google.models import ModelNames
from banana.google.prices import Prices
from banana.http.bodies import BodyReader
from banana.http.middleware import exchange_of
from banana.http.responses import BegunResponse
from banana.images import Images
from banana.money import written
from banana.results.history import History
from banana.results.requests import KeptRequests, NothingKept
from banana.results.works import BOOKKEEPING_SECONDS
from banana.routes.kept import key_of, key_refused

Handler = Callable[[Request, Exchange], Awaitable[Response]]
Claim = Callable[[Request], bool]

# For the documentation alone: `Auth` looks at every place where a token may be.
_TOKEN = HTTPBearer(
    auto_error=False, description="One of ACCESS_TOKENS. The headers x-goog-api-key and x-api-key work too."
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Dialect:
    """An API format.

    Attributes:
        name: as the log has it.
        claims: whether a request is meant in this format, by its path and its credentials, wherever it goes wrong.
        error_response: an error in the shape of this format.
        token_parameter: of the query, where clients of this format may put their token.

    """

    name: str
    claims: Claim
    error_response: Callable[[Exchange, errors.BananaError], Response]
    token_parameter: str | None = None


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes are handed.

    Attributes:
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
        keepalive_seconds: silence before whitespace is sent, 0 for never.
        chat_images_as_links: whether the pictures of a chat are links.
        public_url: where people reach the service; None where requests say it.

    """

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
    keepalive_seconds: float
    chat_images_as_links: bool
    public_url: str | None


def under(*prefixes: str) -> Claim:
    """Return a claim on all paths that begin with one of `prefixes`."""
    return lambda request: request.scope["path"].startswith(prefixes)


def dialect_of(request: Request, dialects: Sequence[Dialect]) -> Dialect:
    """Return the one of `dialects` that claims the request; the first answers what no other claims."""
    return next((dialect for dialect in dialects[1:] if dialect.claims(request)), dialects[0])


async def with_error_response(work: Awaitable[Response], dialect: Dialect, exchange: Exchange) -> Response:
    """Return what `work` returns, or its error in the shape of `dialect`."""
    try:
        return await work
    except errors.BananaError as error:
        exchange.error_code = error.code
        return dialect.error_response(exchange, error.without_frames())


class DialectRoute(APIRoute):
    """A documented route: who calls, how often, then the handler.

    Of several `dialects` the one that claims a request is the one it is answered in.

    With `takes_key` a POST may have an Idempotency-Key; with `makes_nothing` requests count against the rate limit of
    replays.

    FastAPI's dependencies, body models and exit stacks are not used: they cost a tenth of a small request's processor
    time. It is given `documentation` alone, which are the arguments of `APIRoute`.
    """

    def __init__(
        self,
        path: str,
        handler: Handler,
        dialects: Sequence[Dialect],
        services: Services,
        *,
        takes_key: bool = False,
        makes_nothing: bool = False,
        **documentation: Any,
    ) -> None:
        if services.auth.needs_token:
            documentation["dependencies"] = [Security(_TOKEN)]
        # A model's name may have the prefix of a gateway, with its slash.
        path = path.replace("{model}", "{model:path}")
        super().__init__(path, _documented, response_model=None, response_class=Response, **documentation)
        self.app = self._serve
        self._handler = handler
        self._dialects = dialects
        self._takes_key = takes_key
        self._makes_nothing = makes_nothing
        self.services = services

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, exchange = Request(scope, receive, send), exchange_of(scope)
        dialect = dialect_of(request, self._dialects)
        exchange.dialect = dialect.name
        spending = self.services.budgets.spending(exchange)
        exchange.before_sending = spending.reserve
        response: Response | None = None
        try:
            response = await with_error_response(self._admitted(request, exchange, dialect), dialect, exchange)
            if exchange.answered_model:
                exchange.response_headers["X-Model"] = exchange.answered_model
            with suppress(TimeoutError):  # it goes on beside the response, which is not held back by it
                async with asyncio.timeout(BOOKKEEPING_SECONDS):
                    if not spending.is_settled:
                        await spending.settle()
                    await self._write_cost_headers(exchange)
            await response(scope, receive, send)
        except errors.BananaError as error:
            # Too late for a response of its own: returning without an end makes the server cut the one that began.
            log.warning("response_cut", code=error.code)
        finally:
            if isinstance(response, BegunResponse):  # its caller may have left before it was sent
                await response.close()
            if not spending.is_settled:
                await spending.settle()
            # Circles of references, which would keep its bodies for a while.
            exchange.before_sending, exchange.admit_claim = nothing_before_sending, None

    async def _write_cost_headers(self, exchange: Exchange) -> None:
        """Let the response say what it cost, where all of it is known by now, and what is left of the caller's budget."""
        if exchange.cost_usd is not None and not exchange.open_calls:
            exchange.response_headers.setdefault("X-Cost-USD", written(exchange.cost_usd))
        is_known = exchange.caller is not None and exchange.error_code != errors.Unauthorized.code
        if exchange.caller and is_known and self.services.budgets.budget_of(exchange.caller) is not None:
            with suppress(errors.LedgerUnavailable):
                standing = await self.services.budgets.standing_of(exchange.caller)
                exchange.response_headers["X-Budget-Remaining-USD"] = written(standing.remaining or Decimal(0))

    async def _admitted(self, request: Request, exchange: Exchange, dialect: Dialect) -> Response:
        try:
            exchange.caller = self.services.auth.caller_of(request, dialect.token_parameter)
        except errors.Unauthorized:
            exchange.caller = address_of(request)
            await self.services.rate_limit.count_refusal(request)
            raise
        if self.services.auth.needs_token:
            exchange.caller_label = exchange.caller
        await self._admit(request, exchange)
        return await self._handler(request, exchange)

    async def _admit(self, request: Request, exchange: Exchange) -> None:
        """Count the request against its rate limit; one with a key only as far as can be said before its body is read."""
        rate_limit = self.services.rate_limit
        key = key_of(request.headers) if request.method == "POST" else None
        if key is not None and not self._takes_key:
            raise key_refused()
        if self._makes_nothing:
            await rate_limit.admit_replay(request)
            return
        if key is None:
            await rate_limit.admit(request)
            return
        assert exchange.caller is not None
        is_known = await self.services.requests.is_known(exchange.caller, key)
        await (rate_limit.admit_replay(request) if is_known else rate_limit.admit_arrival(request))

        async def admit_claim(is_new: bool) -> None:
            if is_new:
                await rate_limit.admit(request)
            elif not is_known:
                await rate_limit.admit_replay(request)

        exchange.idempotency_key, exchange.admit_claim = key, admit_claim


# FastAPI wants an endpoint to document; `DialectRoute` never calls it. No docstring: it would be published.
async def _documented(request: Request) -> Response:
    raise NotImplementedError
