"""How a response is sent, beside a connection that writes down what it is given."""

import asyncio
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from banana.server.cycle import ON_DISCONNECT, PIECES, WRITE_BYTES, Cycle

pytestmark = pytest.mark.anyio
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]}
WHOLE = {"type": PIECES, "pieces": [b"abc", memoryview(b"def")]}


class Block(bytearray):
    """Memory of which can be seen whether somebody holds it."""


class Connection(asyncio.Transport):
    """A connection that takes everything; `writes` are the system calls it would make."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False
        self.on_write: Callable[[], object] = lambda: None

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.writes.append(b"".join(list_of_data))
        self.on_write()

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def resume_reading(self) -> None:
        """Read on."""


def cycle_over(connection: Connection, method: str = "GET", version: str = "1.1") -> Cycle:
    """The cycle of a request that came whole."""
    cycle = Cycle(
        {"type": "http", "method": method, "http_version": version},
        transport=connection,
        flow=FlowControl(connection),
        logger=logging.getLogger(),
        access_logger=logging.getLogger(),
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=version != "1.0",
        on_response=lambda: None,
    )
    cycle.more_body = False
    return cycle


def call_on_disconnect(cycle: Cycle, callback: Callable[[], object]) -> None:
    """As the application asks for it."""
    scope: Any = cycle.scope
    scope["extensions"][ON_DISCONNECT]["set"](callback)


async def sent(cycle: Cycle, *messages: dict[str, Any]) -> None:
    for message in messages:
        await cycle.send(dict(message))  # its pieces are taken out of it


async def test_a_response_with_a_length_is_one_write() -> None:
    """Head and all pieces together: two writes are two system calls, and often two packets."""
    connection = Connection()
    await sent(cycle_over(connection), START, WHOLE)

    assert connection.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef"]


@pytest.mark.parametrize(
    ("method", "version", "headers", "expected"),
    [
        ("GET", "1.1", [], [b"transfer-encoding: chunked\r\n\r\n", b"6\r\nabcdef\r\n", b"3\r\nghi\r\n0\r\n\r\n"]),
        ("GET", "1.0", [], [b"connection: close\r\n\r\n", b"abcdef", b"ghi"]),
        ("HEAD", "1.1", [(b"content-length", b"9")], [b"content-length: 9\r\n\r\n"]),
        ("GET", "1.1", [(b"Content-Length", b"9")], [b"content-length: 9\r\n\r\nabcdef", b"ghi"]),
        (
            "GET",
            "1.1",
            [(b"Transfer-Encoding", b"chunked")],
            [b"chunked\r\n\r\n", b"6\r\nabcdef\r\n", b"3\r\nghi\r\n0\r\n\r\n"],
        ),
        (
            "GET",
            "1.1",
            [(b"connection", b"TE, Close"), (b"content-length", b"9")],
            [b"length: 9\r\n\r\nabcdef", b"ghi"],
        ),
        ("HEAD", "1.1", [], [b"HTTP/1.1 200 OK\r\n\r\n"]),
    ],
)
async def test_a_body_ends_as_its_head_says(
    method: str, version: str, headers: Sequence[tuple[bytes, bytes]], expected: list[bytes]
) -> None:
    """In chunks, with the connection, or not at all; a head without a length does not wait for its body."""
    connection = Connection()
    start = START | {"headers": headers}
    last = {"type": "http.response.body", "body": b"ghi"}
    await sent(cycle_over(connection, method, version), start, WHOLE | {"more_body": True}, last)

    assert [write[-len(end) :] for write, end in zip(connection.writes, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([WHOLE], "Expected ASGI message 'http.response.start'"),
        ([START | {"headers": [(b"x-a", b"1\r\nx-b: 2")]}], "Invalid HTTP header value"),
        ([START | {"headers": [(b"x-a: 1\r\nx-b", b"2")]}], "Invalid HTTP header name"),
        ([START, WHOLE, WHOLE], "after the response was complete"),
        ([START, START], "Expected ASGI message 'http.response.body'"),
        ([START, {"type": "http.response.trailers"}], "Expected ASGI message 'http.response.body'"),
        ([START, {"type": PIECES, "pieces": [b"abcdefg"]}], "longer than Content-Length"),
        ([START, {"type": PIECES, "pieces": [b"abc"]}], "shorter than Content-Length"),
    ],
)
async def test_what_would_break_the_connection_is_refused(messages: list[dict[str, Any]], error: str) -> None:
    """A message in the wrong order, a header that would end early, a length that is not true."""
    with pytest.raises(RuntimeError, match=error):
        await sent(cycle_over(Connection()), *messages)


async def test_a_response_before_the_end_of_the_body_ends_the_connection() -> None:
    """What is left of the body must not be read as a request."""
    connection = Connection()
    cycle = cycle_over(connection)
    cycle.more_body = True
    await sent(cycle, START, WHOLE)

    assert b"\r\nconnection: close\r\n" in connection.writes[0]
    assert connection.is_closed


async def test_a_response_is_complete_when_the_connection_has_taken_it() -> None:
    """A caller who leaves before has not had it."""
    cycle = cycle_over(Connection())
    calls: list[str] = []
    call_on_disconnect(cycle, lambda: calls.append("left"))
    await cycle.send(START)
    cycle.flow.pause_writing()
    sending = asyncio.create_task(sent(cycle, WHOLE))
    await asyncio.sleep(0)
    is_complete = cycle.response_complete
    cycle.disconnect()
    cycle.flow.resume_writing()
    await sending

    assert (is_complete, cycle.response_complete, calls) == (False, False, ["left"])


async def test_who_asks_too_late_is_told_at_once_that_the_caller_left() -> None:
    """And of one who has its response, nobody is told."""
    left, answered = cycle_over(Connection()), cycle_over(Connection())
    calls: list[str] = []
    left.disconnect()
    call_on_disconnect(left, lambda: calls.append("left"))
    await sent(answered, START, WHOLE)
    call_on_disconnect(answered, lambda: calls.append("answered"))
    answered.disconnect()

    assert calls == ["left"]


async def test_what_was_written_of_a_large_response_is_not_held() -> None:
    """The rest waits until the connection has taken it: in all, half of a large response is held."""
    connection, blocks = Connection(), [Block(WRITE_BYTES) for _ in range(3)]
    kept = [weakref.ref(block) for block in blocks]
    cycle = cycle_over(connection)
    await cycle.send(START | {"headers": [(b"content-length", b"%d" % (3 * WRITE_BYTES))]})
    message = {"type": PIECES, "pieces": [memoryview(block) for block in blocks]}
    del blocks
    connection.on_write = cycle.flow.pause_writing
    sending = asyncio.create_task(cycle.send(message))
    await asyncio.sleep(0)
    connection.writes.clear()
    held = [reference() is not None for reference in kept]
    connection.on_write = lambda: None
    cycle.flow.resume_writing()
    await sending

    assert held == [False, True, True]
    assert sum(map(len, connection.writes)) == 2 * WRITE_BYTES
    assert cycle.response_complete
