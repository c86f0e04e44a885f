"""What is wrapped around the app, over a real socket: the work ends when the caller leaves."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from banana.app import create_app
from standin.server import StandIn
from tests.conftest import served, settings_for
from tests.patience import eventually, lines_of, logged, soon

pytestmark = pytest.mark.anyio
BODY = json.dumps({"prompt": "a banana"}).encode()


def head(size_bytes: int, more: str = "") -> bytes:
    return f"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size_bytes}\r\n{more}\r\n".encode()


async def leave(address: str, sent: bytes, after_seconds: float, when: Callable[[], object] = lambda: True) -> None:
    """Send bytes, wait, and reset the connection; the seconds count from when it is so."""
    _, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
    writer.write(sent)
    await writer.drain()
    await eventually(when)
    await asyncio.sleep(after_seconds)
    writer.transport.abort()


def is_request(line: dict[str, Any]) -> bool:
    return bool(line["event"] == "request")


@pytest.mark.parametrize("fault", ["hang", "hang-inside"])
async def test_a_caller_who_leaves_ends_the_call(stand_in: StandIn, fault: str) -> None:
    """Within half a second the call to Google is closed, and the log says 499."""
    stand_in.plan.append(fault)
    async with served(create_app(settings_for(stand_in))) as address:
        await leave(address, head(len(BODY)) + BODY, 0.2, lambda: stand_in.calls)
        await soon(lambda: stand_in.calls[0].aborted, 0.5)
        (line,) = await logged(is_request)

    assert (line["status"], line["model"]) == (499, "gemini-3-pro-image")


async def test_a_caller_who_leaves_while_sending_asks_nothing_of_google(stand_in: StandIn) -> None:
    """Half a body and no more: nothing is sent, and the log says 499."""
    async with served(create_app(settings_for(stand_in))) as address:
        await leave(address, head(5000) + BODY, 0.1)
        (line,) = await logged(is_request)

    assert line["status"] == 499
    assert not stand_in.calls


async def test_a_declared_body_over_the_limit_is_refused_before_it_comes(stand_in: StandIn) -> None:
    """A client that asks with Expect: 100-continue is told 413 and sends nothing."""
    async with served(create_app(settings_for(stand_in, max_request_bytes=2000))) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        writer.write(head(10**9, "Expect: 100-continue\r\n"))
        status = await asyncio.wait_for(reader.readline(), 10)
        writer.close()

    assert status == b"HTTP/1.1 413 Request Entity Too Large\r\n" or status.startswith(b"HTTP/1.1 413")


async def test_a_large_answer_arrives_whole_over_a_socket(stand_in: StandIn) -> None:
    """Pieces under one Content-Length, kept-alive connections: what Google sent is what arrives."""
    async with served(create_app(settings_for(stand_in))) as address, httpx.AsyncClient() as client:
        for size in ("1K", "4K", "1K"):
            answer = await client.post(f"{address}/generate", json={"prompt": "big", "image_size": size}, timeout=20)
            assert len(answer.json()["images"]) == 1


async def test_an_upload_that_never_ends_ends_at_the_deadline(stand_in: StandIn) -> None:
    """A body that does not come is a 504, not a connection held for ever."""
    async with served(create_app(settings_for(stand_in, request_timeout_seconds=0.3))) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        writer.write(head(5000) + BODY)
        status = await asyncio.wait_for(reader.readline(), 10)
        writer.close()

    assert status == b"HTTP/1.1 504 Gateway Timeout\r\n"


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_the_line_of_a_caller_who_left_is_whole(stand_in: StandIn, accept: str) -> None:
    """The calls have ended when the request's line is written: it has their count, and comes last."""
    stand_in.plan.extend(["hang", "hang"])
    body = b'{"prompt":"x","number_of_images":2}'
    async with served(create_app(settings_for(stand_in))) as address:
        await leave(address, head(len(body), f"Accept: {accept}\r\n") + body, 0.1, lambda: len(stand_in.calls) == 2)
        await logged(is_request)
        lines = lines_of()

    events = [line["event"] for line in lines if line["event"] in ("request", "upstream_attempt")]
    assert events == ["upstream_attempt", "upstream_attempt", "request"]
    assert [line["attempts"] for line in lines if line["event"] == "request"] == [2]
