"""HTTP/1.1 as uvicorn speaks it, but for the end: a retiring worker answers every request that reached it.

uvicorn closes every idle connection as it shuts down, also one whose request is already on its way or was accepted in
that moment: about 1 request in 2,000 was reset by a restart under load. Here an idle connection stays a moment longer,
and what arrives on it is answered, with `Connection: close`.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# How long a retiring worker listens on an idle connection; a busy client's pauses are milliseconds.
LINGER_SECONDS = 2
_BAD_REQUEST = b'{"error":{"code":"invalid_request","message":"The request is not HTTP.","request_id":""}}'


class DrainingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, whose shutdown loses no request."""

    # Of the whole process: connections that are made after the shutdown began must know it too.
    draining = False

    def connection_made(self, transport: Any) -> None:
        """Take a connection; one that a retiring worker still accepted is to be short."""
        super().connection_made(transport)
        if self.draining:
            self._linger()

    def shutdown(self) -> None:
        """Begin to close: after the request that runs, or when none comes for a moment."""
        DrainingProtocol.draining = True
        if self.cycle is None or self.cycle.response_complete:
            self._linger()
        else:
            self.cycle.keep_alive = False

    def _linger(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_SECONDS, self.timeout_keep_alive_handler)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if self.draining:
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the shape of every error."""
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(_BAD_REQUEST) + _BAD_REQUEST)
        self.transport.close()
