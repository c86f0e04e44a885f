"""Images of other hosts: from those that are allowed alone, never from a private network, and bounded."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest

from banana.results import downloads
from banana.results.downloads import Downloads, _is_public
from banana.results.remote import Refused
from tests.pictures import png

pytestmark = pytest.mark.anyio
Serve = Callable[[str, asyncio.StreamWriter], Coroutine[Any, Any, None]]
FOREVER = 1e9


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def host(serve: Serve) -> AsyncIterator[tuple[str, list[str]]]:
    """A host on this machine: its address, and the heads of the requests that came."""
    heads: list[str] = []
    serving: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(cast(asyncio.Task[Any], asyncio.current_task()))
        with suppress(asyncio.CancelledError):
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await serve(heads[-1].split()[1], writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


def saying(data: bytes) -> Serve:
    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return serve


async def fetch(
    address: str, *hosts: str, max_bytes: int = 1 << 20, reserve: Callable[[int], None] = lambda _: None
) -> bytes:
    made = Downloads(hosts, max_bytes)
    try:
        return b"".join((await made.image(address, FOREVER, reserve)).decoded())
    finally:
        await made.close()


async def test_an_allowed_hosts_image_is_downloaded() -> None:
    """As it is, its bytes counted as they come; nothing of this service is sent along."""
    counted: list[int] = []
    async with host(saying(response(png(size=(200, 100))))) as (address, heads):
        found = await fetch(f"{address}/a.png?x=1", "127.0.0.1", reserve=counted.append)

    (head,) = heads
    assert found == png(size=(200, 100))
    assert sum(counted) >= len(found)
    assert head.startswith("GET /a.png?x=1 HTTP/1.1\r\n")
    assert not {"authorization", "cookie", "x-goog-api-key"} & {
        line.split(":")[0].lower() for line in head.splitlines()
    }


@pytest.mark.parametrize(
    "address",
    [
        "http://images.example/a.png",
        "http://127.0.0.1:1/a.png",
        "ftp://images.example/a.png",
        "http:///a.png",
        "http://[::1/a.png",
        "http://xn--/a.png",
        "http://xn--a.example/",
        "http://allowed.example.evil.example/a.png",
    ],
)
async def test_what_is_not_allowed_is_not_asked(address: str) -> None:
    """Nobody is connected to; the error of a host names the setting."""
    with pytest.raises(Refused) as caught:
        await fetch(address, "allowed.example")

    assert "IMAGE_URL_HOSTS" in str(caught.value) or "URL" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1", "2130706433", "0x7f000001", "0177.0.0.1",
     "10.1.2.3", "192.168.0.1", "169.254.169.254", "[fe80::1]", "[fc00::1]", "localhost.", "[64:ff9b::7f00:1]", "[::7f00:1]"],
)  # fmt: skip
async def test_any_host_is_any_public_one(name: str) -> None:
    """However a private address is written: no connection is made, where somebody listens neither."""
    async with host(saying(response(png()))) as (address, heads):
        port = address.rpartition(":")[2]
        with pytest.raises(Refused):
            await fetch(f"http://{name}:{port}/a.png", "*")

    assert not heads


@pytest.mark.parametrize(
    ("address", "is_public"),
    [("8.8.8.8", True), ("2001:4860:4860::8888", True), ("100.64.0.1", False), ("224.0.0.1", False), ("2002:7f00:1::", False),
     ("::ffff:10.0.0.1", False), ("198.18.0.1", False), ("255.255.255.255", False),
     ("64:ff9b::808:808", True), ("64:ff9b:1::a00:1", False), ("fec0::1", False), ("::ffff:0:10.0.0.1", False)],
)  # fmt: skip
def test_what_is_public(address: str, is_public: bool) -> None:
    """By the registries of IANA, and by the IPv4 address that an IPv6 address embeds."""
    assert _is_public(ipaddress.ip_address(address)) == is_public


async def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the address that was checked, whatever the name leads to a moment later."""
    answers = iter(["127.0.0.1", "10.0.0.1"])
    asked: list[str] = []

    async def resolved(self: Downloads, name: str) -> list[Any]:
        asked.append(name)
        return [ipaddress.ip_address(next(answers))]

    monkeypatch.setattr(Downloads, "_resolved", resolved)
    monkeypatch.setattr(downloads, "_is_public", lambda address: str(address) == "127.0.0.1")
    async with host(saying(response(png()))) as (address, heads):
        port = address.rpartition(":")[2]
        assert await fetch(f"http://images.example:{port}/a.png", "*.example") == png()

    assert asked == ["images.example"]
    assert f"host: images.example:{port}" in heads[0].lower()


async def test_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to both is not trusted with either."""

    async def resolved(self: Downloads, name: str) -> list[Any]:
        return [ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("10.0.0.1")]

    monkeypatch.setattr(Downloads, "_resolved", resolved)
    with pytest.raises(Refused, match="private IP address"):
        await fetch("http://images.example/a.png", "*")


async def test_redirects_are_checked_again() -> None:
    """Three are followed; a fourth is not, nor one to where nothing may be asked."""

    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        left = int(path.removeprefix("/"))
        writer.write(response(b"", "302 Found", f"Location: /{left - 1}") if left else response(png()))

    async def elsewhere(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"", "302 Found", f"Location: {path[1:]}"))

    async with host(serve) as (address, heads):
        assert await fetch(f"{address}/3", "127.0.0.1") == png()
        assert len(heads) == 4
        with pytest.raises(Refused, match="3 redirects"):
            await fetch(f"{address}/4", "127.0.0.1")
    async with host(elsewhere) as (address, heads):
        for target in (
            "http://localhost:1/a.png",
            "file:///etc/passwd",
            "http://10.0.0.1/a.png",
            "data:image/png;base64,AA",
            "javascript:1",
        ):
            with pytest.raises(Refused):
                await fetch(f"{address}/{target}", "127.0.0.1")


async def test_an_image_in_crumbs_is_in_few_pieces() -> None:
    """Whatever a host sends at a time."""

    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        picture = png(size=(300, 300))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(picture))
        for at in range(0, len(picture), 7):
            writer.write(picture[at : at + 7])
            await writer.drain()

    made = Downloads(["127.0.0.1"], 1 << 20)
    async with host(serve) as (address, _):
        picture = await made.image(f"{address}/a.png", FOREVER, lambda _: None)
    await made.close()

    assert b"".join(picture.decoded()) == png(size=(300, 300))
    assert len(picture.pieces) == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (response(b"", "404 Not Found"), "404"),
        (response(b"<html>no</html>"), "text/html"),
        (response(b""), "empty"),
        (response(bytes(1 << 21)), "more than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + png(), "cannot be downloaded"),
        (b"nonsense\r\n\r\n", "cannot be downloaded"),
        (b"", "cannot be downloaded"),
    ],
)
async def test_what_is_no_image_is_told(data: bytes, words: str) -> None:
    """What was found instead, in words."""
    async with host(saying(data)) as (address, _):
        with pytest.raises(Refused, match=words):
            await fetch(f"{address}/a.png", "127.0.0.1")


async def test_a_host_that_is_slow_is_not_waited_for() -> None:
    """The request's own deadline bounds it too."""

    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        await asyncio.sleep(1)

    made = Downloads(["127.0.0.1"], 1 << 20)
    async with host(serve) as (address, _):
        with pytest.raises(Refused, match="was not downloaded in time"):
            await made.image(f"{address}/a.png", asyncio.get_running_loop().time() + 0.2, lambda _: None)
    await made.close()


async def test_a_host_that_is_not_there_is_told() -> None:
    """By its name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Refused, match="cannot be downloaded"):
        await fetch(f"http://127.0.0.1:{port}/a.png", "127.0.0.1")
    with pytest.raises(Refused, match=r"no host nowhere\.invalid"):
        await fetch("http://nowhere.invalid/a.png", "*")
