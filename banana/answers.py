"""What goes back: a body in pieces that are never joined, and errors in the shape of the route's dialect."""

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from banana import errors
from banana.asgi import note, request_id_of
from banana.skeleton import Bytes


class PiecesResponse(Response):
    """A response whose body is many pieces, sent one after the other under one Content-Length."""

    def __init__(self, pieces: Sequence[Bytes], media_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.pieces = pieces
        size_bytes = sum(map(len, pieces))
        super().__init__(media_type=media_type, headers={"content-length": str(size_bytes)} | dict(headers or {}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces, each as the connection takes it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def tell(request: Request, error: errors.BananaError) -> Response:
    """Return the answer that tells of `error`, and note its code for the log."""
    return tell_scope(request.scope, error)


def tell_scope(scope: Scope, error: errors.BananaError) -> Response:
    """The same, where there is no request object."""
    note(scope, code=error.code)
    return JSONResponse(error.body(request_id_of(scope)), error.status, headers=error.headers)
