"""Responses of Google's that end, begin or call themselves otherwise than they should: what was paid reaches its caller."""

import asyncio
import base64
import gzip
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

import config
from banana.app import create_app
from tests.conftest import KEY, client_of, error_of
from tests.google.test_transport import Peer, listening
from tests.pictures import png

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
PICTURE = base64.b64encode(png() + bytes(300_000)).decode()
USAGE = {"promptTokenCount": 7, "candidatesTokenCount": 1120, "totalTokenCount": 1127}
CONTENT = {"role": "model", "parts": [{"inlineData": {"mimeType": "image/png", "data": PICTURE}}]}
DOCUMENT = {"candidates": [{"content": CONTENT, "finishReason": "STOP"}], "usageMetadata": USAGE}
WHOLE = json.dumps(DOCUMENT).encode()
EVENT = b"data: " + WHOLE + b"\r\n\r\n"
LIST = b"[" + WHOLE + b"]"
NATIVE = "/v1beta/models/gemini-3-pro-image"
TURNS = {"contents": [{"parts": [{"text": "a banana"}]}]}
# Each API format: where, what is sent, and what Google answers.
FORMATS: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "generate": ("/generate", {"prompt": "a banana"}, WHOLE),
    "images": ("/v1/images/generations", {"prompt": "a banana"}, WHOLE),
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a banana"}]}, WHOLE),
    "native": (f"{NATIVE}:generateContent", TURNS, WHOLE),
    "native stream": (f"{NATIVE}:streamGenerateContent?alt=sse", TURNS, EVENT),
    "native list": (f"{NATIVE}:streamGenerateContent", TURNS, LIST),
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def framed(how: str, body: bytes) -> bytes:
    """A response whose end never comes."""
    match how:
        case "chunked":
            return HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body)
        case "too long":
            return HEAD + b"Content-Length: %d\r\n\r\n" % (len(body) + 1000) + body
        case "gzip":
            packed = gzip.compress(body)[:-8]  # without its trailer
            return HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (len(packed) + 8) + packed
    return HEAD + b"Connection: keep-alive\r\n\r\n" + body


def saying(response: bytes, end: str = "close") -> Peer:
    """A peer that answers with these bytes, and then closes, resets or does nothing more."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().rpartition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(response)
        await writer.drain()
        if end == "hangs":
            await reader.read()
        elif end == "reset":
            await asyncio.sleep(0.1)
            writer.transport.abort()

    return peer


@asynccontextmanager
async def service(peer: Peer, **values: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The shipped app in front of a peer."""
    given: dict[str, Any] = {"gemini_api_key": (KEY,), "retry_backoff_seconds": 0, "workers": 1}
    async with listening(peer) as url:
        settings = config.read(gemini_base_url=url, **given | {"request_timeout_seconds": 4} | values)
        async with client_of(create_app(settings)) as client:
            yield client


@pytest.mark.parametrize(
    ("name", "how", "end"),
    [
        (name, how, end)
        for name in FORMATS
        for how in ("chunked", "too long", "gzip", "until close")
        for end in ("close", "reset", "hangs")
        # Each waits for its deadline; the formats differ in what they do with a cut, and not in how it comes.
        if end != "hangs" or name in ("generate", "native", "native stream")
    ],
)
async def test_what_is_whole_is_delivered_whatever_became_of_its_end(name: str, how: str, end: str) -> None:
    """JSON says where it ends: neither a cut nor the deadline takes an image that has come."""
    path, body, answer = FORMATS[name]
    # One in two with a key: those that end, and those that hang.
    is_keyed = how in ("chunked", "gzip") and "stream" not in path
    key = {"Idempotency-Key": "k"} if is_keyed else {}
    async with service(saying(framed(how, answer), end)) as client:
        response = await client.post(path, json=body, headers=key)

    assert response.status_code == 200, response.text[:300]
    assert PICTURE in response.text
    assert "error" not in response.text[-300:]


@pytest.mark.parametrize("how", ["chunked", "until close"])
@pytest.mark.parametrize("end", ["hangs", "close"])
@pytest.mark.parametrize("name", ["generate", "images", "chat", "native"])
async def test_what_is_half_is_not_passed_off_as_whole(name: str, end: str, how: str) -> None:
    """An error that says that it may have been billed."""
    path, body, answer = FORMATS[name]
    async with service(saying(framed(how, answer[: len(answer) // 2]), end)) as client:
        response = await client.post(path, json=body)

    assert response.status_code in (424, 502, 504), response.text[:300]


@pytest.mark.parametrize("status", [b"201 Created", b"202 Accepted", b"203 X", b"206 Partial Content", b"299 X"])
@pytest.mark.parametrize("name", ["generate", "images", "native", "native stream"])
async def test_an_image_under_another_status_of_success_is_delivered(name: str, status: bytes) -> None:
    """Google made it; under a key it is replayed, and not made again."""
    path, body, answer = FORMATS[name]
    response = framed("until close", answer).replace(b"200 OK", status)
    calls = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await saying(response)(reader, writer)

    async with service(peer) as client:
        headers = {} if "stream" in name else {"Idempotency-Key": "k"}
        first = await client.post(path, json=body, headers=headers)
        if headers:
            assert (await client.post(path, json=body, headers=headers)).content == first.content

    assert (first.status_code, calls) == (200, 1)
    assert PICTURE in first.text


@pytest.mark.parametrize("status", [b"600 X", b"999 Denied"])
@pytest.mark.parametrize("name", ["generate", "native", "native stream"])
async def test_a_status_that_http_does_not_have_is_an_error_of_ours(name: str, status: bytes) -> None:
    """502, once: what it means for the bill nobody knows."""
    path, body, answer = FORMATS[name]
    calls = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await saying(framed("until close", answer).replace(b"200 OK", status))(reader, writer)

    async with service(peer) as client:
        response = await client.post(path, json=body)

    assert (response.status_code, calls) == (502, 1)


async def test_interim_responses_without_number_are_passed_over() -> None:
    """However many come in one read."""
    interim = b"HTTP/1.1 102 Processing\r\n\r\n" * 5000
    async with service(saying(interim + framed("until close", WHOLE))) as client:
        assert (await client.post("/generate", json={"prompt": "a banana"})).status_code == 200


async def test_more_codings_than_anybody_applies_are_refused() -> None:
    """Before any of them is undone."""
    head = HEAD + b"Content-Encoding: " + b"gzip," * 11_000 + b"gzip\r\nContent-Length: 2\r\n\r\nhi"
    async with service(saying(head)) as client:
        response = await client.post("/generate", json={"prompt": "a banana"})

    assert (response.status_code, error_of(response)["code"]) == (502, "upstream_invalid")


@pytest.mark.parametrize("waits_for", ["slot", "retry", "connection"])
async def test_nothing_is_sent_with_too_little_time_left(waits_for: str) -> None:
    """Half of a deadline of 4 s: what was not sent by then is told as not sent, and its key is free."""
    times: list[float] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if waits_for == "connection":
            await reader.readuntil(b"\r\n\r\n")  # CONNECT, which is not answered in time
            await asyncio.sleep(30)
        await reader.readuntil(b"\r\n\r\n")
        times.append(asyncio.get_running_loop().time() - started)
        if waits_for == "retry":
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        else:
            await reader.read()

    started = math.inf
    values: dict[str, Any] = {
        "request_timeout_seconds": 4,
        "max_connections": 2,
        "retry_backoff_seconds": 1.5,
        "retries": 9,
    }
    async with listening(peer) as url:
        values |= {"upstream_proxy": url} if waits_for == "connection" else {}
        base_url = "https://google.test/v1beta" if waits_for == "connection" else url
        settings = config.read(gemini_base_url=base_url, gemini_api_key=(KEY,), workers=1, **values)
        async with client_of(create_app(settings)) as client:
            started = asyncio.get_running_loop().time()
            requests = (
                client.post("/generate", json={"prompt": "a banana"}, headers={"Idempotency-Key": f"k{number}"})
                for number in range(6)
            )
            responses = await asyncio.gather(*requests)
            errors = [error_of(response) for response in responses]

    unsent = [error for error in errors if "Nothing was sent" in error["message"]]
    assert all(seconds < 3 for seconds in times), times  # 2, and what a busy machine adds until the peer reads
    match waits_for:
        case "slot":
            assert (len(times), len(unsent)) == (2, 4)
            assert sorted(error["code"] for error in errors) == ["outcome_unknown"] * 2 + ["timeout"] * 4
        case "connection":
            assert (times, len(unsent)) == ([], 6)
        case "retry":
            assert {error["code"] for error in errors} <= {"overloaded", "timeout"}
