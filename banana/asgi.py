"""Pure-ASGI wrappers around the whole application; they look at no route and read no body.

Who asked what and how it ended; how large a body may be; and that the work ends when the caller leaves.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from banana import errors, metrics

log = structlog.get_logger(__name__)

# A request id of the caller's own is taken over when it can stand in a header and a log line as it is.
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
CALLER_LEFT = 499
# How far an answer is. AccessLog, which sees every message, keeps it in scope["state"]["answer"] for the wrappers inside.
NOT_BEGUN, BEGUN, COMPLETE = range(3)


def note(scope: Scope, **fields: object) -> None:
    """Add `fields` to the line that the log will have for this request."""
    scope["state"]["note"].update(fields)


def facts_of(scope: Scope) -> dict[str, Any]:
    """Return the fields that the log will have for this request, to be added to."""
    facts: dict[str, Any] = scope["state"]["note"]
    return facts


def request_id_of(scope: Scope) -> str:
    """Return the id by which this request is found in the log."""
    request_id: str = scope["state"]["request_id"]
    return request_id


class AccessLog:
    """Gives every request an id, tells it in `X-Request-ID`, and writes one log line when the request has ended."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and log it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        trace = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
        bound = {"request_id": request_id} | ({"trace_id": trace[1]} if trace else {})
        scope.setdefault("state", {}).update(request_id=request_id, note={}, answer=NOT_BEGUN, bytes_in=0)
        with structlog.contextvars.bound_contextvars(**bound):
            await self._logged(scope, receive, send, request_id)

    async def _logged(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = time.perf_counter()
        state = scope["state"]
        status = CALLER_LEFT
        bytes_out = 0

        async def watched_send(message: Message) -> None:
            nonlocal status, bytes_out
            if message["type"] == "http.response.start":
                state["answer"] = BEGUN
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in self._headers.items():
                    headers[name] = value
                await send(message)
                return
            bytes_out += len(message.get("body", b""))
            await send(message)
            if not message.get("more_body", False):
                state["answer"] = COMPLETE

        metrics.in_flight.inc()
        try:
            await self._app(scope, receive, watched_send)
        finally:
            metrics.in_flight.dec()
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "unmatched")
            seen = {"status": status, "duration_ms": round(seconds * 1000, 1), "bytes_in": state["bytes_in"]}
            fields = seen | {"bytes_out": bytes_out} | state["note"]
            _count(route, fields, seconds)
            log.info("request", method=scope["method"], path=scope["path"], route=route, **fields)


def _count(route: str, fields: dict[str, Any], seconds: float) -> None:
    metrics.requests.labels(route, str(fields["status"])).inc()
    metrics.request_seconds.labels(route).observe(seconds)
    metrics.request_bytes.labels("in").inc(fields["bytes_in"])
    metrics.request_bytes.labels("out").inc(fields["bytes_out"])
    if fields["status"] != CALLER_LEFT:
        metrics.images.inc(fields.get("images_returned", 0))


class LastResort:
    """Turns an exception that nobody expected into an `Internal` answer and a traceback in the log.

    `tell` writes an error in the dialect of the route.
    """

    def __init__(self, app: ASGIApp, tell: Callable[[Request, errors.BananaError], Response]) -> None:
        self._app = app
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and answer whatever becomes of it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            await self._app(scope, receive, send)
        except Exception:
            log.exception("internal_error")
            if scope["state"]["answer"] != NOT_BEGUN:
                raise
            await self._tell(Request(scope), errors.Internal())(scope, receive, send)


class BodyLimit:
    """Makes a body over `max_bytes` end in TooLarge: by its Content-Length before any of it is read, else on the way."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, counting its body."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "0")
        declared_bytes = int(declared) if declared.isascii() and declared.isdigit() else 0
        state = scope["state"]

        async def limited_receive() -> Message:
            self._check(declared_bytes)
            message = await receive()
            state["bytes_in"] += len(message.get("body", b""))
            self._check(state["bytes_in"])
            return message

        await self._app(scope, limited_receive, send)

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise errors.TooLarge(f"The body is over this service's limit of {self._max_bytes} bytes.")


class CancelOnDisconnect:
    """Cancels the application when the caller leaves: while its body arrives, while it waits, while it is answered.

    Starlette lets a handler run on (https://github.com/fastapi/fastapi/issues/3766); here that would go on paying.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request for as long as its caller stays."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        task = asyncio.current_task()
        assert task is not None
        watch: asyncio.Task[None] | None = None
        left = False

        def leave() -> None:
            nonlocal left
            if scope["state"]["answer"] != COMPLETE:
                left = True
                note(scope, status=CALLER_LEFT)
                task.cancel()

        async def until_disconnect() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            leave()

        async def watched_receive() -> Message:
            nonlocal watch
            if watch is not None:  # the body is over; what is left to come is the disconnect
                await asyncio.shield(watch)
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.disconnect":
                leave()
                await asyncio.sleep(0)  # the cancellation arrives here
            elif not message.get("more_body", False):
                watch = asyncio.create_task(until_disconnect())
            return message

        try:
            await self._app(scope, watched_receive, send)
        except asyncio.CancelledError:
            if not left:
                raise
            task.uncancel()
        finally:
            if watch is not None:
                watch.cancel()
