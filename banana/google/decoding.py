"""Content codings of responses: a body that was compressed although nobody asked for it is decompressed as it is read.

httpx's own decoders decompress a chunk at once, whatever it becomes, read the first member of a gzip file alone, and take one
that was cut for whole. Source: RFC 9110, section 8.4.
"""

import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import httpx

from banana.payload.pieces import Chunk

# More than a server and a proxy each apply.
MAX_CODINGS = 2
_GZIP_MAGIC = b"\x1f\x8b"
# Decompressed at a time: a small body may expand to gigabytes, and whoever reads it counts them and stops.
_DECODED_BYTES = 256 * 1024
Unread = Callable[[], Iterable[Chunk]]


def codings_of(headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the codings in the order in which they were applied."""
    listed = b",".join(value for name, value in headers if name == b"content-encoding").lower()
    return [name for coding in listed.split(b",") if (name := coding.strip())]


class UndecodableStream(httpx.AsyncByteStream):
    """The body of `stream`, which has more than `MAX_CODINGS`."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Raise httpx.DecodingError."""
        raise httpx.DecodingError(f"more than {MAX_CODINGS} content codings")

    async def aclose(self) -> None:
        """Discard the body."""
        await self._stream.aclose()

    def unread(self) -> list[Chunk]:
        """Return nothing."""
        return []


class DecodedStream(httpx.AsyncByteStream):
    """The body of `stream`, decompressed; `unread` returns what has arrived of that and was not read.

    A coding that is only said to be there is passed over.
    """

    def __init__(self, stream: httpx.AsyncByteStream, unread: Unread) -> None:
        self._stream = stream
        self._unread = unread
        self._decoder = _Decoder()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body, with every member of a gzip file (RFC 1952); what else stands behind them is left out.

        Raises httpx.DecodingError, and httpx.RemoteProtocolError if the compressed data has no end.
        """
        try:
            async for chunk in self._stream:
                for decoded in self._decoder.decode(chunk):
                    yield decoded
        except httpx.TransportError:
            if rest := self._decoder.flush():
                yield rest
            raise
        if rest := self._decoder.flush():
            yield rest
        if not self._decoder.is_whole:
            raise httpx.RemoteProtocolError("the compressed body has no end")

    async def aclose(self) -> None:
        """Discard the rest."""
        await self._stream.aclose()

    def unread(self) -> Iterator[Chunk]:
        """Yield what has arrived and was not read, decoded a part at a time."""
        with suppress(httpx.DecodingError):
            for chunk in self._unread():
                yield from self._decoder.decode(bytes(chunk))
            yield self._decoder.flush()


class _Decoder:
    """gzip, or zlib's format, of several members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._is_begun = False
        self._behind = b""  # the last member, of what may be the beginning of another

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing of what has begun."""
        return self._member.eof or not self._is_begun

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what the next bytes stand for, a part at a time. Raises httpx.DecodingError."""
        while chunk:
            if self._member.eof and not (chunk := self._next_member(chunk)):
                return
            self._is_begun = True
            try:
                decoded = self._member.decompress(chunk, _DECODED_BYTES)
            except zlib.error as error:
                raise httpx.DecodingError(str(error)) from None
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if decoded:
                yield decoded

    def flush(self) -> bytes:
        """Return what is left of what has come."""
        return self._member.flush()

    def _next_member(self, chunk: bytes) -> bytes:
        """Return what is to be decompressed by a new member, if any."""
        self._behind = (self._behind + chunk) if len(self._behind) < len(_GZIP_MAGIC) else self._behind[:2]
        if self._behind[: len(_GZIP_MAGIC)] != _GZIP_MAGIC:
            return b""
        started, self._behind = self._behind, b""
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return started
