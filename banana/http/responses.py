"""Responses whose bodies are pieces that are never joined, and heartbeats while there is no body yet."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any

import msgspec
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from banana import errors, redaction
from banana.payload.pieces import Bytes, Pieces, joined, size_of
from banana.server.cycle import PIECES

# Proxies are not to wait for more before they pass on what there is; X-Accel-Buffering is nginx's word for it.
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
# A comment of a stream of events: it keeps a connection that a proxy would cut. No blank line behind it: some clients take
# one for the end of an event that is empty (openai-go before 3.43 does).
COMMENT: Pieces = (b": keep-alive\n",)

log = structlog.get_logger(__name__)


def one_line(document: object) -> bytes:
    """Return `document` as JSON that is one line for every reader, for events."""
    return redaction.one_line(msgspec.json.encode(document))


class PiecesResponse(Response):
    """A response whose body is many pieces, sent one after the other under one Content-Length."""

    def __init__(self, pieces: Pieces, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.pieces = pieces
        super().__init__(media_type=media_type, headers={"content-length": str(size_of(pieces))} | dict(headers or {}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await _send_pieces(self._released(), scope, send)

    def _released(self) -> Pieces:
        """Return the pieces, and hold them no longer: what was sent is let go of while the rest is."""
        pieces, self.pieces = self.pieces, ()
        return pieces


class BegunResponse(Response):
    """A response with something running behind it, which ends with `close`, also when it is never sent."""

    async def close(self) -> None:
        """End what runs; nothing happens when it has ended."""
        raise NotImplementedError


class KeepAliveResponse(BegunResponse):
    """A JSON response that is still being made: whitespace, which JSON ignores, until it is there.

    Its status is 200 by then, so an error is in the body alone, in the shape it always has.
    """

    def __init__(self, work: asyncio.Task[Response], interval_seconds: float) -> None:
        super().__init__(media_type="application/json", headers=UNBUFFERED)
        del self.headers["content-length"]
        self._work = work
        self._interval_seconds = interval_seconds

    async def close(self) -> None:
        """Cancel the work when it still runs."""
        if not self._work.done():
            await _cancelled(self._work)

    @classmethod
    async def respond_within(cls, work: Coroutine[Any, Any, Response], interval_seconds: float) -> Response:
        """Return what `work` returns if that is within `interval_seconds`, else a KeepAliveResponse; 0 waits for ever."""
        if not interval_seconds:
            return await work
        task = asyncio.create_task(work)
        try:
            await asyncio.wait([task], timeout=interval_seconds)
        except asyncio.CancelledError:
            await _cancelled(task)
            raise
        return await task if task.done() else cls(task, interval_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send whitespace, then the response's body."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while not self._work.done():
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
                await asyncio.wait([self._work], timeout=self._interval_seconds)
        except BaseException:
            await _cancelled(self._work)
            raise
        response = await self._work
        await _send_pieces(response.pieces if isinstance(response, PiecesResponse) else [response.body], scope, send)


class PiecesStreamResponse(BegunResponse):
    """A response without a length, whose parts are sent as they come, each given as its pieces.

    `source`, which `parts` reads, is closed with it, also when the response never begins. What `parts` raises is too late for
    a response of its own: the stream ends without its end, by which the client knows that it was cut.
    """

    def __init__(self, parts: AsyncGenerator[Pieces, None], media_type: str, source: AsyncGenerator[Any, None]) -> None:
        super().__init__(media_type=media_type, headers=UNBUFFERED)
        del self.headers["content-length"]
        self._parts = parts
        self._source = source

    async def close(self) -> None:
        """Close the parts and their source."""
        async with aclosing(self._source), aclosing(self._parts):
            pass

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send each part as it comes."""
        async with aclosing(self._source), aclosing(self._parts) as parts:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for pieces in parts:
                    if size_of(pieces):
                        await _send_pieces(pieces, scope, send, more_body=True)
            except errors.BananaError as error:
                log.warning("response_cut", code=error.code)
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Return when `task` has ended, cancelled."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _send_pieces(pieces: Pieces, scope: Scope, send: Send, *, more_body: bool = False) -> None:
    """Send a body, or a part of one: at once where the server takes pieces, else each as the connection takes it."""
    if PIECES in scope.get("extensions", ()):
        message = {"type": PIECES, "pieces": list(joined(pieces)), "more_body": more_body}
        del pieces
        await send(message)
        return
    last: Bytes = b""
    for piece in joined(pieces):
        if last:
            await send({"type": "http.response.body", "body": last, "more_body": True})
        last = piece
    await send({"type": "http.response.body", "body": last, "more_body": more_body})
