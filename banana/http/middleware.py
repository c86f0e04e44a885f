"""Pure-ASGI middleware around the whole application; it looks at no route and reads no body.

Who sent what and how it ended; how many requests there may be, and how large; and that the work ends when the caller
leaves.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from banana import errors, metrics
from banana.exchange import CALLER_LEFT, Exchange, Progress, send_by_of
from banana.payload.memory import Buffers
from banana.payload.pieces import size_of
from banana.redaction import Redaction
from banana.server.cycle import ON_DISCONNECT, PIECES

log = structlog.get_logger(__name__)

# A request id of the caller's own is kept when it can stand in a header and a log line as it is.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# What is asked every few seconds, for ever.
PROBES = ("/health", "/ready", "/metrics")
# Of a path in the log; the routes' own are short.
MAX_PATH_CHARACTERS = 200
# Of a path that is looked through for credentials; what is behind it is not logged anyway.
MAX_SEEN_CHARACTERS = 4 * MAX_PATH_CHARACTERS


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange that `RequestLog` made for this request."""
    exchange: Exchange = scope["state"]["exchange"]
    return exchange


class RequestLog:
    """Makes the `Exchange` of each request, and writes its log line and metrics when the request has ended.

    Args:
        app: what serves the request.
        timeout_seconds: from now to the deadline of a request.
        headers: added to every response, beside `X-Request-ID`.
        buffers: given back what the request held when it has ended.
        redaction: of paths, in which callers may put their credentials.

    """

    def __init__(
        self, app: ASGIApp, timeout_seconds: float, headers: dict[str, str], buffers: Buffers, redaction: Redaction
    ) -> None:
        self._app = app
        self._redaction = redaction
        self._buffers = buffers
        self._timeout_seconds = timeout_seconds
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and log it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        exchange = self._exchange(scope)
        scope.setdefault("state", {})["exchange"] = exchange
        with structlog.contextvars.bound_contextvars(**exchange.ids), errors.released():
            metrics.in_flight.inc()
            try:
                await self._app(scope, receive, _watched(send, exchange))
            finally:
                metrics.in_flight.dec()
                self._buffers.release(exchange)
                _record(exchange, getattr(scope.get("route"), "path", "unmatched"))

    def _exchange(self, scope: Scope) -> Exchange:
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        exchange = Exchange(
            deadline=deadline,
            send_by=send_by_of(deadline, self._timeout_seconds),
            method=scope["method"],
            path=self._redaction.path(scope["path"][:MAX_SEEN_CHARACTERS])[:MAX_PATH_CHARACTERS],
        )
        given = _header(scope, b"x-request-id")
        if _REQUEST_ID.fullmatch(given) and self._redaction.path(given) == given:
            exchange.request_id = given
        if trace := _TRACEPARENT.fullmatch(_header(scope, b"traceparent")):
            exchange.trace_id = trace[1]
        exchange.response_headers = {"X-Request-ID": exchange.request_id} | self._headers
        return exchange


def _header(scope: Scope, name: bytes) -> str:
    """Return the value of a header, its first; empty where there is none. Starlette's `Headers` would be built for it."""
    return next((value.decode("latin-1") for found, value in scope["headers"] if found == name), "")


def _watched(send: Send, exchange: Exchange) -> Send:
    """Return `send`, writing the exchange's headers and how far the response is."""

    async def watched_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.progress = Progress.STARTED
            exchange.response_status = message["status"]
            own = {name.lower().encode("latin-1"): value for name, value in exchange.response_headers.items()}
            kept = [(name, value) for name, value in message["headers"] if name not in own]
            message["headers"] = kept + [(name, value.encode("latin-1")) for name, value in own.items()]
            await send(message)
            return
        exchange.bytes_out += size_of(message["pieces"]) if message["type"] == PIECES else len(message.get("body", b""))
        await send(message)
        if not message.get("more_body", False):
            exchange.progress = Progress.COMPLETE

    return watched_send


def _record(exchange: Exchange, route: str) -> None:
    """Write the log line and the metrics of a request that has ended."""
    seconds = time.perf_counter() - exchange.started_at
    metrics.requests.labels(route, str(exchange.status)).inc()
    metrics.request_seconds.labels(route).observe(seconds)
    metrics.request_bytes.labels("in").inc(exchange.bytes_in)
    metrics.request_bytes.labels("out").inc(exchange.bytes_out)
    # What has a key is counted when it has been carried out, once.
    has_left = exchange.status == CALLER_LEFT
    undelivered = exchange.undelivered_usd(caller_left=has_left)
    metrics.count_cost(exchange.caller_label, exchange.model or "", exchange.charged_usd, undelivered)
    if not has_left and exchange.images_returned and exchange.idempotency_key is None:
        label = metrics.model_label(exchange.model or "")
        metrics.images.labels(label, exchange.caller_label).inc(exchange.images_returned)
    log.log(_level_of(exchange), "request", route=route, **exchange.log_fields(seconds))


def _level_of(exchange: Exchange) -> int:
    """Return the log's level of a request: quiet for probes that went well, loud for what went wrong."""
    if exchange.status >= 500:
        return logging.ERROR
    if exchange.status >= 400:
        return logging.WARNING
    return logging.DEBUG if exchange.path in PROBES else logging.INFO


class ErrorResponses:
    """Answers what is raised by the middleware inside; what nobody expected is `Internal`, with a traceback in the log.

    `error_response` writes an error in the API format of the route.
    """

    def __init__(self, app: ASGIApp, error_response: Callable[[Request, errors.BananaError], Response]) -> None:
        self._app = app
        self._error_response = error_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and answer whatever becomes of it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:  # of a server that cancels nothing
            exchange_of(scope).caller_left = True
        except Exception as error:
            is_expected = isinstance(error, errors.BananaError)
            if not is_expected:
                log.exception("internal_error")
            if exchange_of(scope).progress is not Progress.NOT_STARTED:
                raise
            known = error if isinstance(error, errors.BananaError) else errors.Internal()
            await self._error_response(Request(scope), known)(scope, receive, send)


class RequestLimit:
    """Makes a request beyond `max_requests` at once end in Overloaded; `always` are paths that are served all the same."""

    def __init__(self, app: ASGIApp, max_requests: int, always: Sequence[str]) -> None:
        self._app = app
        self._max_requests = max_requests
        self._always = always
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request when there is room for it."""
        if scope["type"] != "http" or scope["path"] in self._always:
            return await self._app(scope, receive, send)
        if self._requests >= self._max_requests:
            raise errors.Overloaded(
                f"This service is already serving {self._max_requests} requests, its limit. Nothing was sent to Google. Try again later.",
                retry_after_seconds=errors.RETRY_AFTER_SECONDS,
            )
        self._requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= 1


class BodyLimit:
    """Makes a body that is too large end in TooLarge, and one for which there is no room in Overloaded.

    Both by its Content-Length before any of it is read, where it has one, else on the way.

    Args:
        app: what serves the request.
        max_bytes: of one body.
        buffers: the room for all bodies and responses.

    """

    def __init__(self, app: ASGIApp, max_bytes: int, buffers: Buffers) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._buffers = buffers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, counting its body."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = _header(scope, b"content-length")
        expected_bytes = int(declared) if declared.isascii() and declared.isdigit() else 0
        exchange = exchange_of(scope)
        is_form = _header(scope, b"content-type").lower().startswith("multipart/form-data")

        def held_bytes(size_bytes: int) -> int:
            return -(-size_bytes * 4 // 3) if is_form else size_bytes  # of a form the files are held as base64

        async def limited_receive() -> Message:
            if expected_bytes and not exchange.bytes_in:
                self._check_size(expected_bytes)
                # What is only declared is not held: whoever sends nothing takes no room from others.
                self._buffers.check(held_bytes(expected_bytes))
            message = await receive()
            if body := message.get("body"):
                exchange.bytes_in += len(body)
                self._check_size(exchange.bytes_in)
                self._buffers.reserve(exchange, held_bytes(len(body)))
            return message

        await self._app(scope, limited_receive, send)

    def _check_size(self, body_bytes: int) -> None:
        if body_bytes > self._max_bytes:
            raise errors.TooLarge(f"The body is larger than this service's limit of {self._max_bytes} bytes.")


class CancelOnDisconnect:
    """Cancels the application when the caller leaves: while its body arrives, while it waits, while it is answered.

    Starlette lets a handler run on (https://github.com/fastapi/fastapi/issues/3766); here that would go on costing money.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request for as long as its caller stays."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        task, exchange = asyncio.current_task(), exchange_of(scope)
        assert task is not None

        def leave() -> None:
            if exchange.progress is not Progress.COMPLETE:
                exchange.caller_left = True
                task.cancel()

        extension = scope.get("extensions", {}).get(ON_DISCONNECT)
        try:
            if extension is None:
                await self._watching(scope, receive, send, leave)
            else:
                await self._called(scope, receive, send, leave, extension["set"])
        except asyncio.CancelledError as error:
            if not exchange.caller_left:
                raise
            error.__traceback__ = None  # its frames hold the body, and they it
            task.uncancel()

    async def _called(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        leave: Callable[[], None],
        set_on_disconnect: Callable[[Callable[[], None] | None], None],
    ) -> None:
        """Serve one request of a server that calls when the caller leaves."""
        set_on_disconnect(leave)
        try:
            await self._app(scope, receive, send)
        finally:
            set_on_disconnect(None)

    async def _watching(self, scope: Scope, receive: Receive, send: Send, leave: Callable[[], None]) -> None:
        """Serve one request of a server that says only to whoever asks that the caller left."""
        watch = _DisconnectWatch(receive, leave)
        try:
            await self._app(scope, watch.receive, send)
        finally:
            watch.close()


class _DisconnectWatch:
    """Reads on behind the body, and calls `leave` when the caller leaves."""

    def __init__(self, receive: Receive, leave: Callable[[], None]) -> None:
        self._receive = receive
        self._leave = leave
        self._watch: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        if self._watch is not None:  # the body is over; what is left to come is the disconnect
            await asyncio.shield(self._watch)
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._leave()
            await asyncio.sleep(0)  # the cancellation arrives here
        elif not message.get("more_body", False):
            self._watch = asyncio.create_task(self._until_disconnect())
        return message

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def _until_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()
