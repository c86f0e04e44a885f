"""What goes back: bodies in pieces that are never joined, signs of life while there is none, errors in their shape."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from banana import errors
from banana.asgi import note, request_id_of
from banana.skeleton import Bytes

# Proxies are not to wait for more before they pass on what there is; X-Accel-Buffering is nginx's word for it.
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


# A server-sent event that is none: it keeps a connection that a proxy would cut.
COMMENT: tuple[Bytes, ...] = (b": still at work\n\n",)


class PlainRoute(APIRoute):
    """A documented route whose handler takes the request and returns the response.

    FastAPI's dependencies, body models and exit stacks are passed by: nothing here uses them, and they cost a tenth of
    a small request's processor time.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = self._respond

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class PiecesResponse(Response):
    """A response whose body is many pieces, sent one after the other under one Content-Length."""

    def __init__(self, pieces: Sequence[Bytes], media_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.pieces = pieces
        size_bytes = sum(map(len, pieces))
        super().__init__(media_type=media_type, headers={"content-length": str(size_bytes)} | dict(headers or {}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces, each as the connection takes it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send_pieces(self.pieces, send)


class KeptAlive(Response):
    """A JSON answer that is still being made: whitespace, which JSON ignores, until it is there.

    Its status is 200 by then, so a failure is told in the body alone, in the shape it always has.
    """

    def __init__(self, work: asyncio.Task[Response], every_seconds: float) -> None:
        super().__init__(media_type="application/json", headers=UNBUFFERED)
        del self.headers["content-length"]
        self._work = work
        self._every_seconds = every_seconds

    @classmethod
    async def unless_soon(cls, work: Coroutine[Any, Any, Response], every_seconds: float) -> Response:
        """Return what `work` returns if that is within `every_seconds`, else a KeptAlive; 0 waits for ever."""
        if not every_seconds:
            return await work
        task = asyncio.create_task(work)
        try:
            await asyncio.wait([task], timeout=every_seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        return await task if task.done() else cls(task, every_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send whitespace, then the answer's body."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            while not self._work.done():
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
                await asyncio.wait([self._work], timeout=self._every_seconds)
        finally:
            self._work.cancel()
        response = await self._work
        pieces = response.pieces if isinstance(response, PiecesResponse) else [response.body]
        await send_pieces(pieces, send)


class Stream(Response):
    """A body without a length, whose parts are sent as they come, each given as its pieces."""

    def __init__(self, parts: AsyncGenerator[Sequence[Bytes], None], media_type: str) -> None:
        super().__init__(media_type=media_type, headers=UNBUFFERED)
        del self.headers["content-length"]
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send each part as it comes."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._parts) as parts:
            async for pieces in parts:
                for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def documented(content: Mapping[str, Any], error: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of a route's answers: `content` of a success, and the schema of every error's body."""
    codes = (400, 401, 404, 413, 422, 429, 500, 502, 503, 504)
    told: dict[int | str, dict[str, Any]] = {
        code: {"description": "An error.", "content": {"application/json": {"schema": error}}} for code in codes
    }
    return {200: {"description": "What was asked for.", "content": content}, **told}


async def send_pieces(pieces: Sequence[Bytes], send: Send) -> None:
    """Send a body, each piece as the connection takes it; one without pieces is empty."""
    pieces = pieces or (b"",)
    last = len(pieces) - 1
    for number, piece in enumerate(pieces):
        await send({"type": "http.response.body", "body": piece, "more_body": number < last})


def tell(request: Request, error: errors.BananaError) -> Response:
    """Return the answer of our own routes that tells of `error`, and note its code for the log."""
    note(request.scope, code=error.code)
    return JSONResponse(error.body(request_id_of(request.scope)), error.status, headers=error.headers)
