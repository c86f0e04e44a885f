"""The way to the Gemini API in tests: the client that ships, over its own transport, to any address."""

import ssl
from typing import NamedTuple

import httpx

from banana.google.transport import BlockTransport
from banana.google.upstream import Upstream, open_client, read
from banana.payload.pieces import Chunk, Pieces


class Request(NamedTuple):
    """The arguments of `Upstream.send`."""

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: Pieces = ()


GET = Request("GET", "")
POST = Request("POST", "", body=[b"{}"])


def way_to(
    url: str, proxy: str | None = None, *, idle_seconds: float = 4, verify: ssl.SSLContext | None = None
) -> Upstream:
    """The API at `url`."""
    limits = httpx.Limits(max_connections=100, keepalive_expiry=idle_seconds)
    transport = BlockTransport(verify=verify, limits=limits, proxy=httpx.Proxy(proxy) if proxy else None)
    return Upstream(open_client(limits, transport=transport), url)


async def body_of(response: httpx.Response) -> bytes:
    """The body, to its end."""
    chunks: list[Chunk] = []
    await read(response, chunks.append)
    return b"".join(chunks)


async def fetched(url: str, google: Upstream | None = None, request: Request = POST) -> tuple[httpx.Response, bytes]:
    """A response, and its body to the end."""
    google = google or way_to(url)
    try:
        response = await google.send(*request)
        return response, await body_of(response)
    finally:
        await google.aclose()
