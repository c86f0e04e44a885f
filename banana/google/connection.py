"""One HTTP/1.1 connection to the Gemini API: a request goes out chunk by chunk, and its response is read as it arrives.

Heads, and bodies with chunked transfer coding, are parsed by httptools. A body with a length is not parsed: it is read from
the socket into the blocks that are handed on. Errors are httpx's. Source: RFC 9112.
"""

import asyncio
import enum
import select
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import cast

import httptools
import httpx

from banana.payload.pieces import Bytes, Chunk

Headers = list[tuple[bytes, bytes]]

# The status line and all headers; Google's are under 2 KB.
MAX_HEAD_BYTES = 64 * 1024
# Of a body that nobody reads yet; then the socket is left alone.
MAX_UNREAD_BYTES = 2 << 20
# The reader of a body with a length is woken when so much of it has arrived, or its end.
WAKE_BYTES = 1 << 20
# Up to this the chunks of a body are sent as one.
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


def _anew(error: httpx.TransportError) -> httpx.TransportError:
    """Return an error like this one, which is kept. What is raised holds the frames above it: kept, it would be a circle."""
    return type(error)(*error.args)


class ResponseStream(httpx.AsyncByteStream):
    """The body of a response as it arrives: a queue of chunks that is read once.

    Attributes:
        status: of HTTP; 0 until the head is there.
        headers: as they came, their names in lower case.
        wake_bytes: the reader is woken when so much has arrived, or the body has ended or failed.

    """

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: Headers = []
        self.wake_bytes = 0
        self._connection = connection
        self._chunks: deque[Chunk] = deque()
        self._unread_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_whole = False
        self._error: httpx.TransportError | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk. Raises httpx.RemoteProtocolError when the body was cut, behind all that came of it."""
        while not self._chunks:
            if self._error is not None:
                raise _anew(self._error)
            if self._is_whole:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunk = self._chunks.popleft()
        self._unread_bytes -= len(chunk)
        if not self._chunks and not self._is_whole:
            self._connection.resume_reading(self)
        return cast(bytes, chunk)

    async def aclose(self) -> None:
        """Discard the rest; closes the connection unless the body was received to its end."""
        if not self._is_whole:
            self._connection.close()

    def unread(self) -> list[Chunk]:
        """Return what has arrived and was not read, with the block that is not full yet."""
        self._connection.hand_on_started_block(self)
        chunks, self._chunks = list(self._chunks), deque()
        return chunks

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, its last if it came several times; empty if there is none."""
        return next((value for header, value in reversed(self.headers) if header == name), b"")

    @property
    def has_room(self) -> bool:
        """Whether more should come before its reader takes what there is."""
        return self._unread_bytes < MAX_UNREAD_BYTES

    def put(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self._chunks.append(chunk)
        self._unread_bytes += len(chunk)
        if self._unread_bytes >= self.wake_bytes:
            self._wake()

    def end(self) -> None:
        """End the body: it is whole."""
        self._is_whole = True
        self._wake()

    def fail(self, error: httpx.TransportError) -> None:
        """End the body with an error."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.BufferedProtocol):
    """A connection: one request at a time, and none before it is established whole, TLS included.

    `scratch` is what all connections of an event loop read into, where they cannot read into a block: at least `READ_BYTES`.

    Attributes:
        origin: whom it is connected to, or will be.
        state: who it belongs to; `open`, `send` and `close` change it, and the end of a response.
        on_free, on_close: called with it when a response was whole and another request may follow, and when it is gone.
        was_used: whether a response came on it: the peer may close it in the moment of the next request.

    """

    def __init__(self, scratch: bytearray, origin: object = None) -> None:
        self.origin = origin
        self._scratch = memoryview(scratch)
        self.state = State.CONNECTING
        self.on_free: Callable[[Connection], object] = Connection.close
        self.on_close: Callable[[Connection], object] = lambda _: None
        self.was_used = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_paused = False  # whether the peer does not read
        self._response: ResponseStream | None = None  # that is awaited or under way
        self._was_sent = False  # whether its request was handed to the transport whole
        self._waiter: asyncio.Future[None] | None = None  # for the response's head, or for the peer to read
        self._error: httpx.TransportError | None = None
        self._has_eof = False  # whether the peer said that it sends no more; an encrypted connection can be cut without
        self._may_read_blocks = True
        self._block: bytearray | None = None  # of a body with a length, that is read into
        self._block_bytes = 0  # that are in it
        self._expect_head()

    @property
    def is_idle(self) -> bool:
        """Whether a request can be sent on it."""
        return self.state is State.IDLE and self._transport is not None and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        """Whether another request can be sent on it: nothing has arrived since the last response, in the socket's buffer either."""
        tcp_socket = self._transport.get_extra_info("socket") if self.is_idle and self._transport is not None else None
        if tcp_socket is None:
            return False
        poll = select.poll()
        poll.register(tcp_socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    def open(self, transport: asyncio.Transport) -> None:
        """Give it to the pool: `transport` is connected whole, through a proxy and encrypted where that is so."""
        if self.state is State.CONNECTING:
            self._transport = transport
            self.state = State.IDLE
        else:
            transport.abort()

    async def send(self, head: bytes, body: AsyncIterable[Bytes], *, in_blocks: bool = True) -> ResponseStream:
        """Send a request; return its response when the head is there.

        Unless `in_blocks`, no part of the response's body waits for a block to be full.
        The first byte is written after `body` has given its first chunk. Raises httpx.ConnectError if the connection is not
        idle, httpx.WriteError if a part of the request was never handed to it, httpx.ReadError if it ended before there was
        a response, httpx.RemoteProtocolError if what came is not HTTP, and what `body` raises. Cancelled, it closes the
        connection.
        """
        if not self.is_idle:
            state = "closing" if self.state is State.IDLE else self.state.name.lower()
            raise httpx.ConnectError(f"the connection is {state}")
        self.state = State.BUSY
        response = self._response = ResponseStream(self)
        self._may_read_blocks = in_blocks
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

    def resume_reading(self, response: ResponseStream) -> None:
        """Go on reading what was paused, unless the connection serves another request by now."""
        if self._response is response and self._transport is not None:
            self._transport.resume_reading()

    def hand_on_started_block(self, response: ResponseStream) -> None:
        """Hand on what there is of a block."""
        block, length = self._block, self._block_bytes
        if self._response is not response or block is None or not length:
            return
        self._block, self._block_bytes = None, 0
        self._left_bytes -= length
        self._hand_on(response, bytes(memoryview(block)[:length]))

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
        self.hand_on_started_block(response)
        ends_here = self._left_bytes == _UNTIL_CLOSE and not self._is_parsed
        if response.status and ends_here and self._has_eof and exc is None:
            self._end()
        elif response.status:
            self._fail(httpx.RemoteProtocolError("the connection was closed inside the body"))
        elif not self._was_sent:
            self._fail(httpx.WriteError("the connection was closed before the whole request was sent"))
        else:
            self._fail(httpx.ReadError(type(exc or ConnectionResetError()).__name__))

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

    def _take(self, response: ResponseStream, data: bytes) -> None:
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
        self._block_bytes = 0
        self._keeps_alive = False
        self._was_sent = was_sent

    async def _write(self, head: bytes, body: AsyncIterable[Bytes], response: ResponseStream) -> None:
        """Write a request, no faster than the peer reads, and no further once it has answered."""
        assert self._transport is not None
        small: list[Bytes] = [head]
        size_bytes = 0
        async for chunk in body:
            size_bytes += len(chunk)
            if size_bytes < SMALL_BODY_BYTES:
                small.append(chunk)
                continue
            if small:
                self._transport.write(b"".join(small))
                small.clear()
            # What the peer has already answered is read before more is sent: an early 400 or 413 is followed by a reset,
            # and the failed write would hide it.
            await asyncio.sleep(0)
            while self._is_paused and not response.status:
                await self._wait()
            if response.status:
                return
            if self._error is not None:
                raise _anew(self._error)
            self._transport.write(chunk)
        if small:
            self._transport.write(b"".join(small))
        self._was_sent = True

    async def _wait(self) -> None:
        """Wait until something happens. Raises what ended the connection."""
        if self._error is not None:
            raise _anew(self._error)
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take_head(self, response: ResponseStream, data: bytes) -> None:
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
        elif self._left_bytes > 0 and self._may_read_blocks and 200 <= response.status < 300:
            self._begin_blocks(response, memoryview(data))
        elif data:
            self._take(response, data)

    def _parse_head(self, response: ResponseStream, head: bytes) -> bool:
        """Parse one head; return whether it is one. An interim response (RFC 9110, section 15.2) leaves no trace."""
        try:
            self._parser.feed_data(head)
            status = self._parser.get_status_code()
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(f"not HTTP: {type(error).__name__}"))
            return False
        if len(head) > MAX_HEAD_BYTES or not self._is_head_whole:
            self._fail(httpx.RemoteProtocolError("not HTTP: the head does not end"))
            return False
        if status < 200:
            self._expect_head(was_sent=self._was_sent)
            response.headers = []
            return True
        self._frame(response, status)
        response.status = status
        self._wake()
        return True

    def _take_counted(self, response: ResponseStream, data: bytes) -> None:
        """Take a part of a body with a length."""
        if len(data) > self._left_bytes:
            self._keeps_alive = False
            data = data[: self._left_bytes]
        self._left_bytes -= len(data)
        self._hand_on(response, data)
        if not self._left_bytes:
            self._end()

    def _begin_blocks(self, response: ResponseStream, start: memoryview) -> None:
        """Read a body with a length in blocks, of which the `start` is here."""
        self._reads_blocks = True
        response.wake_bytes = WAKE_BYTES
        if len(start) > self._left_bytes:  # more than was announced
            self._keeps_alive = False
        if start:
            buffer = self.get_buffer(-1)
            length = min(len(start), len(buffer))
            buffer[:length] = start[:length]
            self.buffer_updated(length)

    def _take_block(self, response: ResponseStream, block: bytearray) -> None:
        """Hand on a block that is full."""
        if self._block_bytes < len(block):
            return
        self._block, self._block_bytes = None, 0
        self._left_bytes -= len(block)
        self._hand_on(response, block)
        if not self._left_bytes and self._response is response:  # else its reader had enough
            self._end()
        elif self._transport is not None and self._transport.get_extra_info("ssl_object") is None:
            # Not of TLS: uvloop reads it a buffer a turn by itself, and a peer that closes while the reading of an encrypted
            # connection is paused takes what is not read yet with it (a response that was paid for).
            # One block a turn of the event loop: a connection whose window the kernel has opened wide would be read to its end,
            # while those with a narrow one get no more than that in each turn, and wait for 20 of them.
            self._transport.pause_reading()
            self._loop.call_soon(self._read_next_block, response)

    def _read_next_block(self, response: ResponseStream) -> None:
        if response.has_room:  # else its reader lets it go on
            self.resume_reading(response)

    def _frame(self, response: ResponseStream, status: int) -> None:
        """Find out where the body ends. httptools has refused what contradicts itself."""
        has_body = status not in _WITHOUT_BODY
        length = response.header(b"content-length")
        self._is_parsed = has_body and bool(response.header(b"transfer-encoding"))
        self._left_bytes = (int(length) if length else _UNTIL_CLOSE) if has_body else 0

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(httpx.RemoteProtocolError("the body is not in chunked coding"))

    def _hand_on(self, response: ResponseStream, chunk: Chunk) -> None:
        response.put(chunk)
        if not response.has_room and self._transport is not None:
            self._transport.pause_reading()

    def _end(self) -> None:
        """End a response that is whole."""
        response, self._response = self._response, None
        self._reads_blocks = False
        if response is None:
            return
        self.was_used = True
        if self.state is State.BUSY and self._was_sent and self._keeps_alive:
            self.state = State.IDLE
            if self._transport is not None:
                self._transport.resume_reading()
            self.on_free(self)
        else:
            self.close()
        response.end()

    def _fail(self, error: httpx.TransportError) -> None:
        """End what is under way with an error."""
        response, self._response = self._response, None
        self.close()
        if response is None:
            return
        if not response.status:
            self._error = error
        response.fail(error)
        self._wake()
