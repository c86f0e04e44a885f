"""How an API format's request for images is served: the body becomes an order, the order's outcomes a response.

The format itself is two pure parts: `order_of` reads a body into an order, and a `Reply` writes what became of it.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from banana.exchange import Exchange
from banana.http import bodies
from banana.http.responses import COMMENT, KeepAliveResponse, PiecesStreamResponse
from banana.images import Order, Outcome, Outcomes
from banana.payload.pieces import Pieces
from banana.routes.dialect import Dialect, DialectRoute, Services, answered

Body = TypeVar("Body", bound=BaseModel)


class Reply(Protocol):
    """Writes the outcomes of one order in an API format; pure.

    Attributes:
        streams: whether each outcome is sent as an event as soon as it is there.
        may_be_padded: whether whitespace may go before the response's body.

    """

    streams: bool
    may_be_padded: bool

    def response(self, outcomes: Outcomes) -> Response:
        """Return the response that holds the outcomes."""
        ...

    def event(self, outcome: Outcome, exchange: Exchange) -> Pieces:
        """Return the event of one outcome; no pieces where the format has none for it."""
        ...

    def last_event(self, failures: list[Outcome], exchange: Exchange) -> Pieces:
        """Return the event that ends the stream, given the outcomes that are errors, in the order of the calls."""
        ...


@dataclass(frozen=True, slots=True)
class ImageEndpoint(Generic[Body]):
    """A route of an API format that makes images.

    Attributes:
        path: of the route.
        body: what its body must be.
        files: the body's field that holds pictures.
        order_of: reads a body into an order.
        reply_to: chooses how to answer, by the body and the request's headers.
        documentation: for the OpenAPI document.

    """

    path: str
    body: type[Body]
    files: str
    order_of: Callable[[Body], Order]
    reply_to: Callable[[Body, Headers], Reply]
    documentation: dict[str, Any]

    def route(self, dialect: Dialect, services: Services) -> DialectRoute:
        """Return the route."""

        async def handler(request: Request, exchange: Exchange) -> Response:
            body = await bodies.read(request, self.body, exchange.deadline, files=self.files)
            order, reply = self.order_of(body), self.reply_to(body, request.headers)
            if reply.streams:
                outcomes = services.images.stream(order, exchange)
                return PiecesStreamResponse(_events(outcomes, reply, exchange), "text/event-stream")

            async def work() -> Response:
                return reply.response(await services.images.make(order, exchange))

            every_seconds = services.keepalive_seconds if reply.may_be_padded else 0
            return await KeepAliveResponse.unless_soon(answered(work(), dialect, exchange), every_seconds)

        return DialectRoute(self.path, handler, (dialect,), services, methods=["POST"], **self.documentation)


async def _events(
    outcomes: AsyncGenerator[Outcome | None, None], reply: Reply, exchange: Exchange
) -> AsyncGenerator[Pieces, None]:
    """Yield an event for each outcome, a comment for each silence, and the last event."""
    failures: list[Outcome] = []
    async with aclosing(outcomes):
        async for outcome in outcomes:
            if outcome is None:
                yield COMMENT
                continue
            if outcome.error is not None:
                failures.append(outcome)
            yield reply.event(outcome, exchange)
    failures.sort(key=lambda failure: failure.index)
    yield reply.last_event(failures, exchange)
