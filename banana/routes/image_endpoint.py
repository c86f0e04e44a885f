"""How an API format's request for images is served: the body becomes an order, the order's outcomes a response.

The format itself is two pure parts: `order_of` reads a body into an order, and a `ResponseWriter` writes what became of it.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.structs import replace
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.responses import Response

from banana import errors
from banana.exchange import Exchange
from banana.google.contents import Turn, conversation
from banana.google.wire import Image
from banana.http.addresses import base_url_of
from banana.http.responses import COMMENT, KeepAliveResponse, PiecesStreamResponse
from banana.images import Failure, Order, Outcome, Outcomes, sum_of
from banana.ledger.ledger import Entry
from banana.payload.lazyjson import LazyJsonParser
from banana.payload.pictures import EncodedPicture
from banana.payload.pieces import Bytes, Pieces
from banana.results.fingerprints import fields_of
from banana.results.history import Said
from banana.results.works import Job, results_of
from banana.routes.deps import Context, Result, Services, TaskFormat
from banana.routes.dialect import Dialect, with_error_response
from banana.routes.kept import preference_of
from banana.routes.submission import accepted, check_kept, submission_of

Body = TypeVar("Body", bound=BaseModel)


class ResponseWriter(ABC):
    """Writes the outcomes of one order in an API format, events in the order in which they are sent; no I/O.

    Attributes:
        streams: whether each outcome is sent as an event as soon as it is there.
        as_links: whether images are sent as links.
        needs_links: whether nothing else will do.
        allows_leading_whitespace: whether whitespace may go before the response's body.
        waits_for_outcome: whether a stream begins with an outcome, or a silence, so that an error keeps its own status;
            else at once, so that its id is there.
        is_kept: whether it is to be found again by its id, as a task.
        is_stored: whether it is to be found again by its id once it has ended, if it can be.
        in_background: whether its caller does not wait for it.

    """

    streams = False
    as_links = False
    needs_links = False
    allows_leading_whitespace = True
    waits_for_outcome = True
    is_kept = False
    is_stored = False
    in_background = False

    @abstractmethod
    def response(self, outcomes: Outcomes, exchange: Exchange) -> Response:
        """Return the response that holds the outcomes."""

    def accepted(self, entry: Entry) -> Response:
        """Return the response of a request in the background that was begun."""
        raise NotImplementedError

    def first_event(self, exchange: Exchange) -> Pieces:
        """Return the event that begins the stream; no pieces where the format has none."""
        return ()

    @abstractmethod
    def event(self, outcome: Outcome, exchange: Exchange) -> Pieces:
        """Return the event of one outcome; no pieces where the format has none for it."""

    @abstractmethod
    def error_event(self, error: errors.BananaError, exchange: Exchange) -> Pieces:
        """Return the event of an error that ends the stream."""

    @abstractmethod
    def last_event(self, failures: list[Failure], cost_usd: Decimal | None, exchange: Exchange) -> Pieces:
        """Return the event that ends the stream, given the errors in the order of the calls, and what all calls cost."""


@dataclass(frozen=True, slots=True)
class ImageEndpoint(Generic[Body]):
    """What an API format's requests for images are.

    Attributes:
        path: of the route.
        body: what its body must be.
        order_of: reads a body into an order.
        writer_for: chooses how to answer, by the body and the request's headers.
        result: the body of a response in JSON, and a task's result.
        explicit_base64: the value of `response_format` by which a task's result holds pictures instead of links; None
            where it always does.
        dialect: the API format.
        takes_key: whether there are keys and tasks.

    """

    path: str
    body: type[Body]
    order_of: Callable[[Body], Order]
    writer_for: Callable[[Body, Order, Headers, Services], ResponseWriter]
    result: Result
    explicit_base64: str | None
    dialect: Dialect
    takes_key: bool = True

    @property
    def task_format(self) -> TaskFormat:
        """How its tasks are carried out again, and what their results are."""

        def job_of(order: bytes, services: Services) -> Job:
            parser = LazyJsonParser()
            parser.feed(order)
            return self._job(self.body.model_validate(parser.close(), strict=True), services)

        return TaskFormat(job_of, self.result, self.dialect)

    async def respond(self, body: Body, context: Context) -> Response:
        """Carry out a request; return its response: images, a stream of events, or a task where that is preferred."""
        writer, services = self._writer(body, context), context.services
        if self.takes_key and preference_of(context.request.headers).respond_async and not writer.streams:
            return await self._accepted(body, writer, context)
        if writer.needs_links:
            services.requests.check_kept("response_format")
        if writer.is_kept:
            services.requests.check_kept("background" if writer.in_background else "store")
        if writer.in_background and not writer.streams:
            return await self._in_background(body, writer, context)
        return context.closed_at_the_end(await self._respond(body, writer, context))

    async def respond_with_task(self, body: Body, context: Context) -> Response:
        """Begin a task; return the response that names it."""
        writer = self._writer(body, context)
        if writer.streams:
            raise errors.InvalidRequest.of_fields([("stream", "is not supported for tasks; poll the task instead")])
        return await self._accepted(body, writer, context)

    def _writer(self, body: Body, context: Context) -> ResponseWriter:
        return self.writer_for(body, self.order_of(body), context.request.headers, context.services)

    async def _accepted(self, body: Body, writer: ResponseWriter, context: Context) -> Response:
        return await accepted(self._job(body, context.services), self.result, context, as_links=writer.as_links)

    async def _in_background(self, body: Body, writer: ResponseWriter, context: Context) -> Response:
        submission = submission_of(self._job(body, context.services), context, is_task=True)
        await context.services.requests.submit(submission)
        assert submission.entry is not None
        check_kept(submission.entry)
        return writer.accepted(submission.entry)

    async def _respond(self, body: Body, writer: ResponseWriter, context: Context) -> Response:
        """Carry out the request, and answer it: whole, or as events."""
        exchange, services = context.exchange, context.services
        is_plain = exchange.idempotency_key is None and not (writer.as_links or writer.is_kept or writer.is_stored)
        if is_plain and not writer.streams:
            order, _ = await _looked_up(self.order_of(body), exchange, services)
            return await _whole(services.images.make(order, exchange), writer, context)
        source = await self._source(body, writer, context)
        if writer.as_links:
            source = _linked(source, services, base_url_of(context.request, services.public_url))
        if writer.streams:
            begun = await _begun(source) if writer.waits_for_outcome else source
            return PiecesStreamResponse(_events(begun, writer, exchange), "text/event-stream", source)
        return await _whole(_collected(source, exchange), writer, context)

    async def _source(
        self, body: Body, writer: ResponseWriter, context: Context
    ) -> AsyncGenerator[Outcome | None, None]:
        """Return the outcomes as they come: of a request with a key, of one with links, of any other."""
        exchange, services = context.exchange, context.services
        if exchange.idempotency_key is not None or writer.is_kept:
            submission = submission_of(self._job(body, services), context, is_task=writer.is_kept)
            submission.is_followed = not writer.in_background
            await services.requests.submit(submission)
            source = services.requests.outcomes(submission, with_content=not writer.as_links)
            # What has ended is read before a status is sent, because it may be gone.
            return source if submission.is_active else _replayed([outcome async for outcome in source])
        order = self.order_of(body)
        outcomes = _outcomes(order, exchange, services)
        if writer.is_stored:
            return services.requests.keep_ended(outcomes, exchange, self.path, order.count)
        return services.requests.keep_unclaimed(outcomes, exchange) if writer.as_links else outcomes

    def _job(self, body: Body, services: Services) -> Job:
        order, fields = self.order_of(body), fields_of(body)
        return Job(
            route=self.path,
            content=fields,
            order=lambda: order_pieces(fields),
            calls=order.count,
            limit=lambda: services.images.limit_of(order),
            has_links=self.explicit_base64 is not None and fields.get("response_format") != self.explicit_base64,
            dialect=self.dialect.name,
            outcomes=lambda exchange: _outcomes(order, exchange, services),
        )


async def _whole(outcomes: Awaitable[Outcomes], writer: ResponseWriter, context: Context) -> Response:
    """Return the response when all outcomes are there; whitespace goes before it where that is set."""
    exchange = context.exchange

    async def work() -> Response:
        return writer.response(await outcomes, exchange)

    interval_seconds = context.services.keepalive_seconds if writer.allows_leading_whitespace else 0
    return await KeepAliveResponse.respond_within(
        with_error_response(work(), context.dialect, exchange), interval_seconds
    )


def data_uri_of(outcome: Outcome) -> Pieces:
    """Return an image as a data URI."""
    assert isinstance(outcome.result, Image)
    return [f"data:{outcome.result.mime_type};base64,".encode(), *outcome.result.picture.pieces]


def order_pieces(fields: dict[str, Any]) -> Pieces:
    """Return the fields of a body as JSON, in pieces; its pictures are the pieces they came in."""
    return list(_json_pieces(fields))


def _json_pieces(value: Any) -> Iterator[Bytes]:
    match value:
        case EncodedPicture():
            yield b'"'
            yield from value.pieces
            yield b'"'
        case dict():
            yield b"{"
            for number, (name, item) in enumerate(value.items()):
                yield (b"," if number else b"") + msgspec.json.encode(name) + b":"
                yield from _json_pieces(item)
            yield b"}"
        case list() | tuple():
            yield b"["
            for number, item in enumerate(value):
                if number:
                    yield b","
                yield from _json_pieces(item)
            yield b"]"
        case _:
            yield msgspec.json.encode(value)


async def _looked_up(order: Order, exchange: Exchange, services: Services) -> tuple[Order, Sequence[Turn]]:
    """Return the order with all that its conversation refers to, and what of that are its own turns.

    Raises as `History.looked_up`.
    """
    own = await services.history.looked_up(order.turns, exchange)
    if not order.previous:
        return (order if own is order.turns else replace(order, turns=own)), own
    earlier = await services.history.conversation(order.previous, exchange)
    developer = "\n\n".join(filter(None, (earlier.developer, order.developer)))
    return replace(order, turns=conversation([*earlier.turns, *own]), developer=developer), own


async def _outcomes(order: Order, exchange: Exchange, services: Services) -> AsyncGenerator[Outcome | None, None]:
    """Yield what each call of an order became; what cannot be looked up becomes of all of them."""
    try:
        began = order
        order, own = await _looked_up(order, exchange, services)
    except errors.BananaError as error:
        for index in range(order.count):
            yield Outcome(index, error)
        return
    if order.stores_input and exchange.kept_id:
        # Beside the calls, and mostly done before them.
        services.requests.store_input(exchange.kept_id, began.previous, Said(own, began.developer))
    async with aclosing(services.images.stream(order, exchange)) as outcomes:
        async for outcome in outcomes:
            yield outcome


async def _begun(source: AsyncGenerator[Outcome | None, None]) -> AsyncGenerator[Outcome | None, None]:
    """Return `source` when it has yielded a result or a silence. Raises the error when all that it yields are errors."""
    first: list[Outcome | None] = []
    try:
        async for outcome in source:
            first.append(outcome)
            if outcome is None or not isinstance(outcome.result, errors.BananaError):
                return _continued(first, source)
        results_of([outcome for outcome in first if outcome is not None])
    except BaseException:
        await source.aclose()
        raise
    return _continued(first, source)


async def _continued(
    first: list[Outcome | None], source: AsyncGenerator[Outcome | None, None]
) -> AsyncGenerator[Outcome | None, None]:
    while first:
        yield first.pop(0)
    async for outcome in source:
        yield outcome


async def _collected(source: AsyncGenerator[Outcome | None, None], exchange: Exchange) -> Outcomes:
    """Return all outcomes, in the order of the calls. Raises the error when all of them are errors."""
    outcomes = results_of([outcome async for outcome in source if outcome is not None])
    return Outcomes(outcomes, exchange.kept_id or "", int(exchange.kept_since or 0))


async def _replayed(outcomes: list[Outcome | None]) -> AsyncGenerator[Outcome | None, None]:
    for outcome in outcomes:
        yield outcome


async def _linked(
    source: AsyncGenerator[Outcome | None, None], services: Services, base_url: str
) -> AsyncGenerator[Outcome | None, None]:
    """Yield `source`, with links to what is kept."""
    try:
        async for outcome in source:
            yield outcome and services.requests.linked(outcome, base_url)
    finally:
        await source.aclose()


async def _events(
    outcomes: AsyncGenerator[Outcome | None, None], writer: ResponseWriter, exchange: Exchange
) -> AsyncGenerator[Pieces, None]:
    """Yield an event for each outcome, a comment for each silence, and the last event."""
    failures: list[Failure] = []
    costs: list[Decimal | None] = []
    if start := writer.first_event(exchange):
        yield start
    try:
        async for outcome in outcomes:
            if outcome is None:
                yield COMMENT
                continue
            costs.append(outcome.result.cost_usd)
            if isinstance(outcome.result, errors.BananaError):
                failures.append(Failure(outcome.index, outcome.result))
            yield writer.event(outcome, exchange)
    except errors.BananaError as error:
        exchange.error_code = error.code
        yield writer.error_event(error, exchange)
        return
    failures.sort(key=lambda failure: failure.index)
    if failures and not exchange.images_returned:
        exchange.error_code = failures[0].error.code
    yield writer.last_event(failures, sum_of(costs), exchange)
