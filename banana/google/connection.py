"""One HTTP/1.1 connection to Google: a request goes out in pieces, and its response is handed on as it arrives.

Heads, and bodies in chunks, are parsed by httptools. A body with a length is not parsed: it is read from the socket into
the blocks that are handed on. Source: RFC 9112.
"""

import asyncio
import enum
from collections.abc import Callable
from typing import cast

import httptools

from banana import errors
from banana.payload.pieces import Chunk, Pieces, size_of

Sink = Callable[[Chunk], None]
Headers = list[tuple[bytes, bytes]]

# The status line and all headers; Google's are under 2 KB.
MAX_HEAD_BYTES = 64 * 1024
# Of a body that nobody reads yet; then the socket is left alone.
MAX_UNREAD_BYTES = 256 * 1024
# Below this the pieces of a body are sent as one.
SMALL_BODY_BYTES = 64 * 1024
# What is read at once, where it is not known how much there will be: of a head, of a body in chunks.
READ_HEAD_BYTES = 16 * 1024
READ_BYTES = 256 * 1024
# The blocks of a body with a length; a shorter one is a block by itself.
BLOCK_BYTES = 256 * 1024
_END_OF_HEAD = b"\r\n\r\n"
# The length of a body that ends with the connection.
_UNTIL_CLOSE = -1
_WITHOUT_BODY = (204, 304)


class State(enum.Enum):
    """Who a connection belongs to: nobody yet (it is being established), the pool, one request, or nobody any more."""

    CONNECTING = enum.auto()
    IDLE = enum.auto()
    BUSY = enum.auto()
    CLOSED = enum.auto()


class Response:
    """A response whose head is there.

    Attributes:
        status: of HTTP; 0 until the head is there.
        headers: as they came, their names in lower case.

    """

    __slots__ = ("_connection", "_error", "_is_whole", "_sink", "_unread", "_waiter", "headers", "status")

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: Headers = []
        self._connection = connection
        self._unread: list[Chunk] = []
        self._sink: Sink | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_whole = False
        self._error: Exception | None = None

    async def read(self, sink: Sink, *, as_it_comes: bool = False, deadline: float | None = None) -> None:
        """Give `sink` the body, in blocks, or each part `as_it_comes`; return at its end.

        Raises CutResponse, DeadlineExceeded at `deadline` (in seconds of the event loop's clock), both when `sink` has all
        that came, and what `sink` raises.
        """
        if as_it_comes and not self._is_whole:
            self._connection.read_as_it_comes()
        self._sink = sink
        unread, self._unread = self._unread, []
        try:
            for chunk in unread:
                sink(chunk)
            if self._error is not None:
                raise self._error
            if not self._is_whole:
                await self._until_end(deadline)
        except BaseException:
            # What still comes until the connection is closed is nobody's: who read may be gone, and what it held given back.
            self._sink = _drop
            self.close()
            raise

    async def _until_end(self, deadline: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, self._connection.cut, self, _late())
        self._connection.resume_reading()
        try:
            await self._waiter
        finally:
            if timer is not None:
                timer.cancel()

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, its last where it came several times; empty when there is none."""
        return next((value for header, value in reversed(self.headers) if header == name), b"")

    def close(self) -> None:
        """Want no more of it: the connection of a response that is not whole is closed."""
        if not self._is_whole:
            self._connection.close()

    def take(self, chunk: Chunk) -> bool:
        """Take a part of the body from the connection; return whether more of it should come by now."""
        if self._sink is not None:
            self._sink(chunk)
            return True
        self._unread.append(chunk)
        return size_of(self._unread) < MAX_UNREAD_BYTES

    def end(self) -> None:
        """End it: it is whole."""
        self._is_whole = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def _late() -> errors.DeadlineExceeded:
    error = errors.DeadlineExceeded("Google's response was not whole before the deadline; the call was cancelled.")
    error.in_doubt = True
    return error


def _drop(chunk: Chunk) -> None:
    """Take a part of a body that nobody reads any more."""


class Connection(asyncio.BufferedProtocol):
    """A connection: one request at a time, and none before it is established whole, TLS included.

    `scratch` is what all connections of an event loop read into, where they cannot read into a block: at least `READ_BYTES`.

    Attributes:
        state: who it belongs to; `open`, `send` and `close` change it, and the end of a response.
        on_free, on_close: called with it when a response was whole and another request may follow, and when it is gone.
        was_used: whether a response came on it: the peer may close it in the moment of the next request.

    """

    def __init__(self, scratch: bytearray) -> None:
        self._scratch = memoryview(scratch)
        self.state = State.CONNECTING
        self.on_free: Callable[[Connection], object] = Connection.close
        self.on_close: Callable[[Connection], object] = lambda _: None
        self.was_used = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_paused = False  # whether the peer does not read
        self._response: Response | None = None  # that is awaited or under way
        self._was_sent = False  # whether its request was handed to the transport whole
        self._waiter: asyncio.Future[None] | None = None  # for the response's head, or for the peer to read
        self._error: errors.UpstreamError | None = None
        self._has_eof = False  # whether the peer said that it sends no more; an encrypted connection can be cut without
        self._block: bytearray | None = None  # of a body with a length, that is read into
        self._expect_head()

    @property
    def is_idle(self) -> bool:
        """Whether a request can be sent on it."""
        return self.state is State.IDLE and self._transport is not None and not self._transport.is_closing()

    def open(self, transport: asyncio.Transport) -> None:
        """Give it to the pool: `transport` is connected whole, through a proxy and encrypted where that is so."""
        if self.state is State.CONNECTING:
            self._transport = transport
            self.state = State.IDLE
        else:
            transport.abort()

    async def send(self, head: bytes, body: Pieces) -> Response:
        """Send a request; return its response when the head is there.

        Raises NotConnected when the connection is not idle or a part of the request was never handed to it, ConnectionLost
        when it ended before there was a response, and CutResponse when what came is not HTTP. Cancelled, it closes the
        connection.
        """
        if not self.is_idle:
            state = "closing" if self.state is State.IDLE else self.state.name.lower()
            raise errors.NotConnected(f"The connection to Google is {state}; nothing was sent.")
        self.state = State.BUSY
        response = self._response = Response(self)
        self._expect_head()
        try:
            await self._write(head, body, response)
            while not response.status:
                await self._wait()
        except BaseException:
            if self._response is response:  # else it is free, and may serve another request by now
                self.close()
            raise
        return response

    def read_as_it_comes(self) -> None:
        """Let no part of the body wait for a block to be full."""
        self._reads_blocks = False
        if self._response is not None:
            self._hand_on_started_block(self._response)

    def resume_reading(self) -> None:
        """Go on reading."""
        if self._transport is not None:
            self._transport.resume_reading()

    def cut(self, response: Response, error: Exception) -> None:
        """End a response that is under way with an error, when its reader has all that came."""
        if self._response is response:
            self._hand_on_started_block(response)
            self._fail(error)

    def close(self) -> None:
        """Close it at once."""
        self.state = State.CLOSED
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport of a connection that is encrypted where it is to be, or of none."""
        self._transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> bool:
        """Take notice that the peer sends no more; return that the connection is to be closed."""
        self._has_eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way."""
        self.state = State.CLOSED
        self.on_close(self)
        response = self._response
        if response is None:
            return
        self._hand_on_started_block(response)
        ends_here = self._left_bytes == _UNTIL_CLOSE and not self._is_parsed
        if response.status and ends_here and self._has_eof and exc is None:
            self._end()
        elif response.status:
            self._fail(errors.CutResponse("Google's response was cut short."))
        elif not self._was_sent:
            message = "The connection to Google was lost before the whole request was sent; it was not processed."
            self._fail(errors.NotConnected(message))
        else:
            name = type(exc or ConnectionResetError()).__name__
            self._fail(errors.ConnectionLost(f"The connection to Google was lost after the request was sent ({name})."))

    def pause_writing(self) -> None:
        """Wait until the peer reads."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Go on writing."""
        self._is_paused = False
        self._wake()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes are to be written."""
        if self._reads_blocks:
            if self._block is None:  # not before there is something to read: a peer that only announces takes no memory
                self._block = bytearray(min(self._left_bytes, BLOCK_BYTES))
            return memoryview(self._block)[self._block_bytes :]
        is_in_body = self._response is not None and self._response.status
        return self._scratch if is_in_body else self._scratch[:READ_HEAD_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that were written there."""
        response = self._response
        if response is None:
            self.close()  # what nobody asked for would be taken for the next response
        elif self._block is not None:
            self._block_bytes += nbytes
            self._take_block(response, self._block)
        else:
            self._take(response, bytes(self._scratch[:nbytes]))

    def _take(self, response: Response, data: bytes) -> None:
        """Take a part of a head, or of a body that is not read in blocks."""
        if not response.status:
            self._take_head(response, data)
        elif self._is_parsed:
            self._parse(data)
        elif self._left_bytes == _UNTIL_CLOSE:
            self._hand_on(response, data)
        else:
            self._take_counted(response, data)

    def on_message_begin(self) -> None:
        """Take no message from httptools behind the one that was asked for."""
        if self._response is None:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header from httptools; what comes behind a body is none."""
        if self._response is not None and not self._response.status:
            self._response.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take from httptools what it forgets with a body of no length."""
        self._is_head_whole = True
        self._keeps_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body in chunks from httptools."""
        if self._response is not None:
            self._hand_on(self._response, body)

    def on_message_complete(self) -> None:
        """Take the end of a body in chunks from httptools."""
        if self._is_parsed:
            self._end()

    def _expect_head(self, *, was_sent: bool = False) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._head = b""
        self._is_head_whole = False
        self._is_parsed = False  # whether httptools parses the body
        self._left_bytes = 0  # of a body that it does not
        self._reads_blocks = False  # of a body with a length
        self._block = None
        self._block_bytes = 0  # that are in it
        self._keeps_alive = False
        self._was_sent = was_sent

    async def _write(self, head: bytes, body: Pieces, response: Response) -> None:
        """Write a request, no faster than the peer reads, and no further once it has answered."""
        assert self._transport is not None
        if size_of(body) < SMALL_BODY_BYTES:
            self._transport.write(b"".join((head, *body)))
            self._was_sent = True
            return
        self._transport.write(head)
        for piece in body:
            # What Google has already answered is read before more is sent: an early 400 or 413 is followed by a reset,
            # and the failed write would hide it.
            await asyncio.sleep(0)
            while self._is_paused and not response.status:
                await self._wait()
            if response.status:
                return
            if self._error is not None:
                raise self._error
            self._transport.write(piece)
        self._was_sent = True

    async def _wait(self) -> None:
        """Wait until something happens. Raises what ended the connection."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take_head(self, response: Response, data: bytes) -> None:
        """Take a part of the head, and what comes behind it; of several heads the last one that is not interim counts."""
        data = self._head + data if self._head else data
        self._head = b""
        while data and not response.status:
            end = data.find(_END_OF_HEAD)
            if end < 0 and len(data) <= MAX_HEAD_BYTES and b"HTTP/".startswith(data[:5]) and b"\n\n" not in data:
                self._head = data
                return
            end = end + len(_END_OF_HEAD) if end >= 0 else len(data)
            if not self._parse_head(response, data[:end]):
                return
            data = data[end:]
        if not response.status:
            return
        if not (self._is_parsed or self._left_bytes):
            self._end()
        if self._response is None:
            if data:
                self.close()
        elif self._left_bytes > 0:
            self._begin_blocks(memoryview(data))
        elif data:
            self._take(response, data)

    def _parse_head(self, response: Response, head: bytes) -> bool:
        """Parse one head; return whether it is one. An interim response (RFC 9110, section 15.2) leaves no trace."""
        try:
            self._parser.feed_data(head)
            status = self._parser.get_status_code()
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(errors.CutResponse(f"Google's response is not HTTP ({type(error).__name__})."))
            return False
        if len(head) > MAX_HEAD_BYTES or not self._is_head_whole:
            self._fail(errors.CutResponse("Google's response is not HTTP: its head does not end."))
            return False
        if status < 200:
            self._expect_head(was_sent=self._was_sent)
            response.headers = []
            return True
        self._frame(response, status)
        response.status = status
        self._wake()
        return True

    def _take_counted(self, response: Response, data: bytes) -> None:
        """Take a part of a body with a length."""
        if len(data) > self._left_bytes:
            self._keeps_alive = False
            data = data[: self._left_bytes]
        self._left_bytes -= len(data)
        self._hand_on(response, data)
        if not self._left_bytes:
            self._end()

    def _begin_blocks(self, start: memoryview) -> None:
        """Read a body with a length in blocks, of which the `start` is here."""
        self._reads_blocks = True
        if len(start) > self._left_bytes:  # more than was announced
            self._keeps_alive = False
        if start:
            buffer = self.get_buffer(-1)
            length = min(len(start), len(buffer))
            buffer[:length] = start[:length]
            self.buffer_updated(length)

    def _take_block(self, response: Response, block: bytearray) -> None:
        """Hand on a block that is full."""
        if self._block_bytes < len(block):
            return
        self._block, self._block_bytes = None, 0
        self._left_bytes -= len(block)
        self._hand_on(response, block)
        if not self._left_bytes and self._response is response:  # else its reader had enough
            self._end()

    def _hand_on_started_block(self, response: Response) -> None:
        """Hand on what there is of a block."""
        block, length = self._block, self._block_bytes
        self._block, self._block_bytes = None, 0
        if block is not None and length:
            self._left_bytes -= length
            self._hand_on(response, bytes(memoryview(block)[:length]))

    def _frame(self, response: Response, status: int) -> None:
        """Find out where the body ends. httptools has refused what contradicts itself."""
        has_body = status not in _WITHOUT_BODY
        length = response.header(b"content-length")
        self._is_parsed = has_body and bool(response.header(b"transfer-encoding"))
        self._left_bytes = (int(length) if length else _UNTIL_CLOSE) if has_body else 0

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(errors.CutResponse("Google's response was cut short."))

    def _hand_on(self, response: Response, chunk: Chunk) -> None:
        try:
            if not response.take(chunk) and self._transport is not None:
                self._transport.pause_reading()
        except Exception as error:
            self._fail(error)

    def _end(self) -> None:
        """End a response that is whole."""
        response, self._response = self._response, None
        self._reads_blocks = False
        if response is None:
            return
        self.was_used = True
        if self.state is State.BUSY and self._was_sent and self._keeps_alive:
            self.state = State.IDLE
            self.resume_reading()
            self.on_free(self)
        else:
            self.close()
        response.end()

    def _fail(self, error: Exception) -> None:
        """End what is under way with an error."""
        response, self._response = self._response, None
        self.close()
        if response is None:
            return
        if not response.status and isinstance(error, errors.UpstreamError):
            self._error = error
        response.fail(error)
        self._wake()
