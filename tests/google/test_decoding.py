"""Compressed bodies: every member of them, a part at a time, and what was cut is not passed off as whole."""

import gzip
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest

from banana.google.decoding import MAX_CODINGS, DecodedStream, UndecodableStream, codings_of
from banana.payload.pieces import Chunk

pytestmark = pytest.mark.anyio
HELLO = b"hello" * 100


class Stream(httpx.AsyncByteStream):
    """A body in chunks of some bytes; `left` is what has arrived and is not read."""

    def __init__(self, body: bytes, step: int, left: bytes = b"") -> None:
        self._chunks = [body[start : start + step] for start in range(0, len(body), step)]
        self._left = left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk

    def unread(self) -> list[Chunk]:
        return [self._left]


async def decoded(body: bytes, step: int) -> list[bytes]:
    stream = Stream(body, step)
    return [chunk async for chunk in DecodedStream(stream, stream.unread)]


@pytest.mark.parametrize("step", [1, 7, 10**6])
@pytest.mark.parametrize(
    ("body", "content"),
    [
        (gzip.compress(HELLO), HELLO),
        (zlib.compress(HELLO), HELLO),
        (gzip.compress(HELLO) + gzip.compress(b"!"), HELLO + b"!"),
        (gzip.compress(HELLO) + b"\x1f trailing", HELLO),
        (b"", b""),
    ],
    ids=["gzip", "deflate", "members", "trailing", "empty"],
)
async def test_a_body_is_decoded_however_it_is_cut(body: bytes, content: bytes, step: int) -> None:
    """All members of it, and nothing that only stands behind them."""
    assert b"".join(await decoded(body, step)) == content


async def test_a_bomb_is_decoded_in_parts() -> None:
    """A reader that counts the bytes can stop in time."""
    chunks = await decoded(gzip.compress(bytes(10 << 20)), 10**6)

    assert sum(map(len, chunks)) == 10 << 20
    assert max(map(len, chunks)) <= 256 << 10


async def until_cut(body: DecodedStream) -> bytes:
    """What a body gives until it ends with an error."""
    taken = b""
    try:
        async for chunk in body:
            taken += chunk
    except httpx.RemoteProtocolError:
        return taken
    raise AssertionError("it was taken for whole")


async def test_a_cut_body_is_cut() -> None:
    """It ends with an error, behind everything that came."""
    stream = Stream(gzip.compress(HELLO)[:-9], 5)

    taken = await until_cut(DecodedStream(stream, stream.unread))

    assert taken
    assert HELLO.startswith(taken)


async def test_what_is_not_compressed_cannot_be_decoded() -> None:
    """The error is httpx's."""
    with pytest.raises(httpx.DecodingError):
        await decoded(b"hello", 5)


async def test_what_was_not_read_is_decoded_too() -> None:
    """A deadline hands on all that has arrived."""
    packed = gzip.compress(HELLO)
    stream = Stream(packed[:15], 5, left=packed[15:])
    body = DecodedStream(stream, stream.unread)

    taken = await until_cut(body)

    assert b"".join([taken, *map(bytes, body.unread())]) == HELLO


async def test_more_codings_than_anybody_applies_are_not_decoded() -> None:
    """Each of them would multiply the work; the response is answered all the same."""
    names = [(b"content-encoding", b"gzip, deflate"), (b"x", b"y"), (b"content-encoding", b"br")]

    assert codings_of(names[:2]) == [b"gzip", b"deflate"]
    assert len(codings_of(names)) > MAX_CODINGS
    with pytest.raises(httpx.DecodingError, match=str(MAX_CODINGS)):
        [chunk async for chunk in UndecodableStream(Stream(b"x", 1))]


async def test_a_bomb_that_was_not_read_is_decoded_in_parts() -> None:
    """At a deadline too, a reader that counts the bytes can stop in time."""
    stream = Stream(b"", 1, left=gzip.compress(bytes(100 << 20)))
    rest = iter(DecodedStream(stream, stream.unread).unread())

    assert len(next(rest)) <= 256 << 10
