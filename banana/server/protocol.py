"""HTTP/1.1 as uvicorn speaks it, but for its edges: no request is lost, and no connection holds the worker.

What is different, and why, stands in the package's docstring. How a response is sent is in `server/cycle`.
"""

import asyncio
import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import chain
from typing import Any
from urllib.parse import unquote

import httptools
import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from banana import errors
from banana.server.client_connection import CallerTransport, Linger
from banana.server.cycle import Cycle
from banana.server.descriptors import SPARE_CONNECTIONS, requests_within_limit

# How long a retiring worker listens on an idle connection; a busy client's pauses are milliseconds.
DRAIN_SECONDS = 2
# The request line and all headers; nginx takes 32 KB, Node 16 KB, browsers send a few.
MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10
# Requests that may wait for the one before them on their connection; browsers and SDKs send none so.
MAX_PIPELINED = 8

log = structlog.get_logger(__name__)


@dataclass
class Connections:
    """The callers' connections of one worker; makes the protocol of each, as uvicorn asks for it.

    Attributes:
        max_requests: how many requests are served at once; `SPARE_CONNECTIONS` more are held.
        max_upstream_connections: how many connections to Google there may be beside them.
        idle_seconds: how long a caller may take without reading one byte of a response.
        head_seconds: from the connection, or the first byte of another request on it, to the end of the head.
        linger: how long, and how much, is read from a caller whose response is complete and whose request is not.
        stopping: a value of multiprocessing, not 0 when the whole service is to end, and not only this worker; None where
            nothing tells the two apart.

    """

    max_requests: int = 2048
    max_upstream_connections: int = 100
    idle_seconds: float = 30
    head_seconds: float = HEAD_SECONDS
    linger: Linger = field(default_factory=Linger)
    stopping: Any = None
    # Those that wait for a request, and those whose callers only go on sending; longest first.
    waiting: "dict[ServerProtocol, None]" = field(default_factory=dict, repr=False)
    lingering: "dict[ServerProtocol, None]" = field(default_factory=dict, repr=False)

    def __call__(self, **of_uvicorn: Any) -> "ServerProtocol":
        """Return the protocol of a new connection."""
        return ServerProtocol(self, **of_uvicorn)

    def make_room(self, newest: "ServerProtocol", connections: int) -> None:
        """Close a connection that nobody needs, when there are too many; what was sent on it still arrives."""
        limit = requests_within_limit(self.max_requests, self.max_upstream_connections) + SPARE_CONNECTIONS
        if connections <= limit:
            return
        longest = next((other for other in chain(self.lingering, self.waiting) if other is not newest), None)
        if longest is not None:
            self.forget(longest)
            longest.transport.close()

    def forget(self, protocol: "ServerProtocol") -> None:
        """Take a connection out of those that may be closed."""
        self.waiting.pop(protocol, None)
        self.lingering.pop(protocol, None)


class ServerProtocol(HttpToolsProtocol):
    """uvicorn's protocol over one of `connections`."""

    # Of the whole process: connections that are made after the shutdown began must know it too.
    draining = False
    stopping: Any = None

    def __init__(self, connections: Connections, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        ServerProtocol.stopping = connections.stopping
        self._of_worker = connections
        self._head_timer: Any = None
        self._in_head = False
        self._is_chunked = False  # whether the body is
        self._head_bytes = 0  # that came and were no body
        self._reads_no_more = False
        # Whose response is being made; uvicorn's own `cycle` is the newest, which may have to wait its turn.
        self._answering: Cycle | None = None

    @classmethod
    def is_stopping(cls) -> bool:
        """Return whether the service is to end: what is begun now would have to be waited for."""
        return cls.draining if cls.stopping is None else bool(cls.stopping.value)

    def connection_made(self, transport: Any) -> None:
        """Take a connection; one that a retiring worker still accepted is to be short."""
        caller = CallerTransport(
            transport,
            self.loop,
            self._of_worker.idle_seconds,
            self._of_worker.linger,
            self._is_receiving,
            self._wait_for_end,
        )
        super().connection_made(caller)
        self._of_worker.waiting[self] = None
        self._of_worker.make_room(self, len(self.connections))
        self._limit_head_time()
        if self.draining:
            self._drain()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what belongs to the connection."""
        self._of_worker.forget(self)
        self._unset_head_timer()
        self._unset_keepalive_if_required()
        self._caller.lost()
        if self._answering is not None:
            self._answering.disconnect()
        super().connection_lost(exc)
        # What refers to each other would wait for the garbage collector, with bodies that nobody read.
        self.pipeline.clear()
        self.cycle = self._answering = None  # type: ignore[assignment] # uvicorn has none before the first request either
        self.scope = self.headers = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse what came, never more of a head than it may have."""
        if self.transport.is_closing() or self._reads_no_more:
            self._caller.discard(len(data))
            return
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        while rest and not self.transport.is_closing() and not self._reads_no_more:
            rest = self._parse(rest)
        if self in self._of_worker.waiting and self._head_timer is None:
            self._limit_head_time()

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn keeps none
        """Take the end of the client's stream for a disconnect, as nginx does; return whether the connection is kept.

        It is kept for a response whose length was sent: it is on its way whole, and may have been paid for.
        """
        cycle = self._answering
        if cycle is not None and cycle.is_on_its_way and not self.transport.is_closing():
            self._reads_no_more = True
            self.pipeline.clear()
            cycle.keep_alive = False
            return True
        if cycle is not None:
            cycle.disconnect()
        self._caller.close()  # which watches what is not sent yet
        return False

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes behind the body is none (RFC 9110, section 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Serve the request; one with an upgrade is parsed again without it."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("CONNECT is not supported")
            return
        self._in_head = False
        self._is_chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        self._of_worker.forget(self)
        self._unset_head_timer()
        self._complete_scope()
        self._begin()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if self.parser.should_upgrade():
            return
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin the request that waits, or wait for the next one."""
        super().on_response_complete()
        if not self.transport.is_closing() and (self._answering is None or self._answering.response_complete):
            self._of_worker.waiting[self] = None

    def pause_writing(self) -> None:
        """Wait until the caller reads, but not for ever."""
        super().pause_writing()
        self._caller.wait_for_caller()

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._caller.caller_reads()

    def shutdown(self) -> None:
        """Begin to close: after the request that runs, or when none comes for a moment."""
        ServerProtocol.draining = True
        if self.cycle is None or self.cycle.response_complete:
            self._drain()
        else:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(errors.InvalidRequest("The request is not HTTP/1.1."), HTTPStatus.BAD_REQUEST)

    def _complete_scope(self) -> None:
        """Write into the scope what the request's first line says."""
        version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        self.scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        self.scope["raw_path"] = self.root_path.encode("ascii") + url.path
        self.scope["query_string"] = url.query or b""

    def _begin(self) -> None:
        """Serve a request when those before it on its connection are answered."""
        earlier = self.cycle
        cycle = self.cycle = Cycle(
            self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=self.scope["http_version"] != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(cycle, self.app)
            return
        self.pipeline.appendleft((cycle, self.app))
        if len(self.pipeline) >= MAX_PIPELINED:  # below it is read on: else nobody would see that the caller left
            self.flow.pause_reading()

    def _wait_for_end(self) -> None:
        self._of_worker.lingering[self] = None

    def _end_after_whole_requests(self) -> None:
        """Read nothing more, and close when the requests that came whole are answered."""
        self._reads_no_more = True
        while self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else self._answering
        assert last is not None
        last.keep_alive = False

    @property
    def _caller(self) -> CallerTransport:
        assert isinstance(self.transport, CallerTransport)
        return self.transport

    def _is_receiving(self) -> bool:
        return self.cycle is not None and self.cycle.more_body

    def _parse(self, data: memoryview) -> memoryview:
        """Parse `data` or a part of it; return the rest."""
        in_body = self._is_receiving() and not self._in_head
        # Between chunks stands what is no body, so that a chunked one is parsed in parts too.
        part = data if in_body and not self._is_chunked else data[: MAX_HEAD_BYTES + 1 - self._head_bytes]
        self._head_bytes += len(part)
        try:
            taken = self._fed(part)
        except httptools.HttpParserError:
            self.send_400_response("")
            return data[:0]
        if self._head_bytes > MAX_HEAD_BYTES:
            message = f"The request line and headers are larger than this service's limit of {MAX_HEAD_BYTES} bytes."
            self._refuse(errors.HeadTooLarge(message))
        return data[taken:]

    def _fed(self, data: memoryview) -> int:
        """Give `data` to the parser; return how many bytes it took. Raises httptools.HttpParserError."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own parser has it
            self.parser.feed_data(head)
            taken: int = upgrade.args[0]
            return taken
        return len(data)

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        if self.draining:
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def _drain(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(DRAIN_SECONDS, self.timeout_keep_alive_handler)

    def _limit_head_time(self) -> None:
        self._head_timer = self.loop.call_later(self._of_worker.head_seconds, self.transport.close)

    def _unset_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: errors.BananaError, status_code: int | None = None) -> None:
        """Answer what never becomes a request, in the shape of every error, and close."""
        if self.transport.is_closing():
            return
        cycle = self._answering
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                # A whole request stands before it, and may have been paid for: that one is answered first.
                self._end_after_whole_requests()
                return
            cycle.disconnect()
            if cycle.response_started:
                self._caller.abort()
                return
        self.transport.write(self._refusal(error, HTTPStatus(status_code or error.status)))
        self._unset_head_timer()
        self._caller.close_after_refusal()

    def _refusal(self, error: errors.BananaError, status: HTTPStatus) -> bytes:
        """Return the response, counted and logged like any other."""
        # Not at the top: the launcher imports this module, and prepares the files of the metrics only afterwards.
        from banana import metrics

        request_id = secrets.token_hex(16)
        metrics.requests.labels("unmatched", str(status.value)).inc()
        caller = self.client[0] if self.client else None
        log.warning("request_refused", request_id=request_id, status=status.value, code=error.code, caller=caller)
        body = msgspec.json.encode({"error": {"code": error.code, "message": error.message, "request_id": request_id}})
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            "content-type: application/json",
            f"x-request-id: {request_id}",
            f"content-length: {len(body)}",
            "connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body
