"""A socket of loopback in front of an ASGI application, which learns of each request's connection and of its end.

uvicorn's protocol, without its server: no lifespan, no signals. An application may break the connection that a request came
on, as networks do (`transport_of`), and is cancelled when the other side hangs up.
"""

import asyncio
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

_TRANSPORT = "standin.transport"
IDLE_SECONDS = 75


def transport_of(request: Request) -> asyncio.Transport:
    """Return the transport of the connection that a request came on."""
    transport: asyncio.Transport = request.scope[_TRANSPORT]
    return transport


class Listener:
    """Serves `app` while it is started; `port` is the one that it listens on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: dict[tuple[str, int], _Connection] = {}

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; port 0 is a free one. Raises OSError."""
        options: Any = {"ws": "none", "lifespan": "off", "log_config": None, "access_log": False, "interface": "asgi3"}
        config = uvicorn.Config(self._serve, proxy_headers=False, timeout_keep_alive=IDLE_SECONDS, **options)
        state = ServerState()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self._connections, config=config, server_state=state, app_state={}), "127.0.0.1", port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is None:
            return
        self._server.close()
        connections = list(self._connections.values())
        for connection in connections:
            connection.transport.abort()
        requests = [connection.request for connection in connections if connection.request]
        await asyncio.gather(*requests, asyncio.sleep(0), return_exceptions=True)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = self._connections.get(scope["client"])
        if connection is None:  # it is gone already
            return
        scope[_TRANSPORT] = connection.transport
        connection.request = asyncio.current_task()
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not connection.is_lost:
                raise
        finally:
            connection.request = None


class _Connection(HttpToolsProtocol):
    """One connection; `request` is what serves the request on it."""

    def __init__(self, connections: "dict[tuple[str, int], _Connection]", **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._of_listener = connections
        self.request: asyncio.Task[None] | None = None
        self.is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Take a connection."""
        super().connection_made(transport)
        assert self.client is not None
        self._of_listener[self.client] = self

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what serves the request."""
        super().connection_lost(exc)
        self.is_lost = True
        if (
            self.client is not None and self._of_listener.get(self.client) is self
        ):  # not the next one from the same port
            del self._of_listener[self.client]
        if self.request is not None:
            self.request.cancel()
