"""How an API format's request for images is served: the body becomes an order, the order's outcomes a response.

The format itself is two pure parts: `order_of` reads a body into an order, and a `ResponseWriter` writes what became of it.
"""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from banana import errors
from banana.exchange import Exchange
from banana.http.responses import COMMENT, KeepAliveResponse, PiecesStreamResponse
from banana.images import Failure, Order, Outcome, Outcomes
from banana.payload.pieces import Pieces
from banana.routes.dialect import Dialect, DialectRoute, Services, with_error_response

Body = TypeVar("Body", bound=BaseModel)


class ResponseWriter(Protocol):
    """Writes the outcomes of one order in an API format; pure.

    Attributes:
        streams: whether each outcome is sent as an event as soon as it is there.
        allows_leading_whitespace: whether whitespace may go before the response's body.

    """

    streams: bool
    allows_leading_whitespace: bool

    def response(self, outcomes: Outcomes, exchange: Exchange) -> Response:
        """Return the response that holds the outcomes."""
        ...

    def event(self, outcome: Outcome, exchange: Exchange) -> Pieces:
        """Return the event of one outcome; no pieces where the format has none for it."""
        ...

    def last_event(self, failures: list[Failure], exchange: Exchange) -> Pieces:
        """Return the event that ends the stream, given the errors in the order of the calls."""
        ...


@dataclass(frozen=True, slots=True)
class ImageEndpoint(Generic[Body]):
    """A route of an API format that makes images.

    Attributes:
        path: of the route.
        body: what its body must be.
        files: the body's field that holds pictures.
        order_of: reads a body into an order.
        writer_for: chooses how to answer, by the body and the request's headers.
        documentation: for the OpenAPI document.

    """

    path: str
    body: type[Body]
    files: str
    order_of: Callable[[Body], Order]
    writer_for: Callable[[Body, Order, Headers], ResponseWriter]
    documentation: dict[str, Any]

    def route(self, dialect: Dialect, services: Services) -> DialectRoute:
        """Return the route."""

        async def handler(request: Request, exchange: Exchange) -> Response:
            body = await services.bodies.read(request, self.body, exchange.deadline, files=self.files)
            order = self.order_of(body)
            writer = self.writer_for(body, order, request.headers)
            if writer.streams:
                outcomes = services.images.stream(order, exchange)
                return PiecesStreamResponse(_events(outcomes, writer, exchange), "text/event-stream", outcomes)

            async def work() -> Response:
                return writer.response(await services.images.make(order, exchange), exchange)

            interval_seconds = services.keepalive_seconds if writer.allows_leading_whitespace else 0
            return await KeepAliveResponse.respond_within(
                with_error_response(work(), dialect, exchange), interval_seconds
            )

        return DialectRoute(self.path, handler, (dialect,), services, methods=["POST"], **self.documentation)


async def _events(
    outcomes: AsyncGenerator[Outcome | None, None], writer: ResponseWriter, exchange: Exchange
) -> AsyncGenerator[Pieces, None]:
    """Yield an event for each outcome, a comment for each silence, and the last event."""
    failures: list[Failure] = []
    async for outcome in outcomes:
        if outcome is None:
            yield COMMENT
            continue
        if isinstance(outcome.result, errors.BananaError):
            failures.append(Failure(outcome.index, outcome.result))
        yield writer.event(outcome, exchange)
    failures.sort(key=lambda failure: failure.index)
    if failures and not exchange.images_returned:
        exchange.error_code = failures[0].error.code
    yield writer.last_event(failures, exchange)
