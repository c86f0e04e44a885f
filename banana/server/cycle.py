"""One request on a caller's connection and its response, as uvicorn has it, but for how the response is sent.

uvicorn does not document the class that this one extends: its version is pinned. That `writelines` pauses the protocol at
once is uvloop's way, and asyncio's from Python 3.12.9 and 3.13.2 on.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from banana.payload.pieces import Bytes, size_of

# Names of extensions in the scope.
PIECES = "banana.pieces"
ON_DISCONNECT = "banana.on_disconnect"
# What is written at once, at least; a picture of 1K is smaller.
WRITE_BYTES = 2 << 20
_WITHOUT_BODY = (204, 304)


class Cycle(RequestResponseCycle):
    """A request and its response; `scope` gets what it can do beside ASGI."""

    def __init__(self, scope: Any, **of_uvicorn: Any) -> None:
        super().__init__(scope=scope, **of_uvicorn)
        self._on_disconnect: Callable[[], object] | None = None
        self._head: Sequence[Bytes] = ()  # that waits for the body, to go with it
        self._ends_with_connection = False
        self._says_close = False  # whether the head does
        self._extensions: dict[str, dict[str, Any]] = {PIECES: {}, ON_DISCONNECT: {"set": self._set_on_disconnect}}
        scope["extensions"] = self._extensions

    async def run_asgi(self, app: Any) -> None:
        """Serve the request, and keep nothing of it: a circle of references would wait for the garbage collector."""
        try:
            await super().run_asgi(app)
        finally:
            self._on_disconnect = None
            self._extensions.clear()

    def disconnect(self) -> None:
        """Take notice that the caller left, unless it has its response."""
        if self.response_complete or self.disconnected:
            return
        self.disconnected = True
        self.message_event.set()
        if self._on_disconnect is not None:
            self._on_disconnect()

    @property
    def is_on_its_way(self) -> bool:
        """Whether a response with a length is being sent."""
        return self.response_started and not self.response_complete and self.chunked_encoding is False

    async def send(self, message: Any) -> None:
        """Send a message of ASGI, or pieces. Raises RuntimeError for what is not to come now."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._start(message)
        elif self.response_complete:
            raise RuntimeError(f"Unexpected ASGI message {message['type']!r}, after the response was complete.")
        elif message["type"] not in (PIECES, "http.response.body"):
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got {message['type']!r}.")
        else:
            await self._write(self._framed_pieces(message))
            if not message.get("more_body", False):
                await self._complete()

    def _set_on_disconnect(self, callback: Callable[[], object] | None) -> None:
        """Let `callback` be called when the caller leaves, at once where it has left; None: nobody any more."""
        self._on_disconnect = callback
        if callback is not None and self.disconnected:
            callback()

    def _start(self, message: Any) -> None:
        """Write the head; one with a length goes with the body."""
        if message["type"] != "http.response.start":
            raise RuntimeError(f"Expected ASGI message 'http.response.start', but got {message['type']!r}.")
        self.response_started = True
        self.waiting_for_100_continue = False
        if self.more_body:  # what is left of it must not be read as a request
            self.keep_alive = False
        status: int = message["status"]
        lines = [STATUS_LINE[status]]
        for name, value in (*self.default_headers, *message.get("headers", ())):
            lines += (self._take_header(name, value), b": ", value, b"\r\n")
        lines.append(self._framing(status))
        if self.chunked_encoding or self._ends_with_connection:
            self.transport.write(b"".join(lines))
        else:
            self._head = (b"".join(lines),)

    def _take_header(self, name: bytes, value: bytes) -> bytes:
        """Look at a header of the response, and return its name. Raises RuntimeError for one that would end it early."""
        if HEADER_RE.search(name):
            raise RuntimeError("Invalid HTTP header name.")
        name = name.lower()
        if HEADER_VALUE_RE.search(value):
            raise RuntimeError("Invalid HTTP header value.")
        if name == b"content-length" and self.chunked_encoding is None:
            self.expected_content_length, self.chunked_encoding = int(value), False
        elif name == b"transfer-encoding" and value.lower() == b"chunked":
            self.expected_content_length, self.chunked_encoding = 0, True
        elif name == b"connection" and b"close" in [token.strip() for token in value.lower().split(b",")]:
            self.keep_alive = False
            self._says_close = True
        return name

    def _framing(self, status: int) -> bytes:
        """Return the end of the head: how the body ends, and the connection."""
        end = b"\r\n" if self.keep_alive or self._says_close else b"connection: close\r\n\r\n"
        if self.chunked_encoding is not None or self.scope["method"] == "HEAD" or status in _WITHOUT_BODY:
            return end
        if self.scope["http_version"] == "1.0":
            self._ends_with_connection = True
            self.expected_content_length = sys.maxsize
            return end
        self.chunked_encoding = True
        return b"transfer-encoding: chunked\r\n" + end

    def _framed_pieces(self, message: Any) -> list[Bytes]:
        """Return a part of the body as it is written, behind the head that waits for it."""
        pieces: Sequence[Bytes] = message.pop("pieces") if message["type"] == PIECES else (message.get("body", b""),)
        length, head = size_of(pieces), self._head
        self._head = ()
        if self.scope["method"] == "HEAD":
            pieces, self.expected_content_length = (), 0
        elif self.chunked_encoding:
            is_last = not message.get("more_body", False)
            chunk = (b"%x\r\n" % length, *pieces, b"\r\n") if length else ()
            pieces = (*chunk, b"0\r\n\r\n") if is_last else chunk
        elif length > self.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        else:
            self.expected_content_length -= length
        return [*head, *pieces]

    async def _write(self, pieces: list[Bytes]) -> None:
        """Write pieces, some at a time, and hold none that was written."""
        pieces.reverse()
        while pieces:
            self.transport.writelines(_next_batch(pieces))
            if pieces and self.flow.write_paused:
                await self.flow.drain()
                if self.disconnected:
                    return

    async def _complete(self) -> None:
        """End the response when the connection has taken it."""
        if self.flow.write_paused:
            await self.flow.drain()
            if self.disconnected:
                return
        if self.expected_content_length and not self._ends_with_connection:
            raise RuntimeError("Response content shorter than Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _next_batch(pieces: list[Bytes]) -> list[Bytes]:
    """Take `WRITE_BYTES` off the end of `pieces`, which are in reverse order; return them in order."""
    batch = [pieces.pop()]
    batch_bytes = len(batch[0])
    while pieces and batch_bytes < WRITE_BYTES:
        batch.append(pieces.pop())
        batch_bytes += len(batch[-1])
    return batch
