"""A tunnel through an HTTP proxy: what happens on a connection before it is one to Google. Source: RFC 9110, section 9.3.6."""

import asyncio
import re
from collections.abc import Sequence
from typing import cast

import httpx

# The proxy's response, its head alone.
MAX_HEAD_BYTES = 64 * 1024
SWITCHING_PROTOCOLS = 101
_END_OF_HEAD = b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


class Tunnel(asyncio.Protocol):
    """The protocol of a proxy's connection until the proxy says that it is connected; TLS takes its transport over then.

    A response to CONNECT with 2xx has no body, whatever its headers say: what follows the head belongs to the tunnel. No
    request but CONNECT is ever written here, so none can be written unencrypted.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def connect(self, target: str, credentials: Sequence[bytes]) -> None:
        """Ask for a tunnel to `target`; return when it is there. Raises httpx.ProxyError."""
        assert self._transport is not None
        lines = [f"CONNECT {target} HTTP/1.1".encode(), f"Host: {target}".encode(), *credentials, b"\r\n"]
        self._transport.write(b"\r\n".join(lines))
        status = await self._status
        if not 200 <= status < 300:
            raise httpx.ProxyError(f"refused the connection ({status})")
        if self._received or self._transport.is_closing():
            # In TLS the client speaks first.
            raise httpx.ProxyError("closed its tunnel, or wrote to it, before TLS began")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take a part of the proxy's response."""
        self._received += data
        while not self._status.done() and (end := self._received.find(_END_OF_HEAD)) >= 0:
            end += len(_END_OF_HEAD)
            head, self._received = self._received[:end], self._received[end:]
            self._take_head(head)
        if not self._status.done() and len(self._received) > MAX_HEAD_BYTES:
            self._fail("its response has no end")

    def eof_received(self) -> bool:
        """Return that the connection is to be closed."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Take notice that the proxy is gone."""
        if not self._status.done():
            self._fail(f"it closed the connection ({type(exc).__name__})" if exc else "it closed the connection")

    def _take_head(self, head: bytes) -> None:
        """Take a head; of its headers none counts."""
        status_line = _STATUS_LINE.match(head)
        if status_line is None:
            self._fail("its response is not HTTP")
        elif (status := int(status_line[1])) == SWITCHING_PROTOCOLS or status >= 200:  # else an interim response
            self._status.set_result(status)

    def _fail(self, why: str) -> None:
        if not self._status.done():
            self._status.set_exception(httpx.ProxyError(f"did not connect: {why}"))
