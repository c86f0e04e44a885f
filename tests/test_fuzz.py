"""Random heads, bodies, forms and answers of Google's at a service that runs, for a bounded time.

Whatever is thrown at it: no 500, no stall of /health, no memory that is never given back, and no picture that was paid for
and reached nobody. Each run has another seed; a failure prints it, and `FUZZ_SEED` repeats it.
"""

import asyncio
import json
import os
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from standin.serving import Listener
from tests.services import Service
from tests.test_bounds import worker_memory_bytes

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
SECONDS = 20
FUZZERS = 12
HOST = b"Host: 127.0.0.1\r\n"
PICTURE = "iVBORw0KGgoA" + "A" * 3000
STATUSES = {200, 400, 401, 403, 404, 405, 413, 422, 429, 431, 502, 503, 504}
NATIVE = "/v1beta/models/gemini-3-pro-image:generateContent"


class Fuzzer:
    """Sends one thing after another; remembers which pictures it was owed and which it got."""

    def __init__(self, number: int, port: int, answers: dict[str, bytes], rng: random.Random) -> None:
        self.name = number
        self.port = port
        self.answers = answers
        self.rng = rng
        self.paid: set[str] = set()
        self.received: set[str] = set()
        self.statuses: dict[int, int] = {}
        self.number = 0

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            self.number += 1
            attack = self.rng.choice([self.head, self.body, self.form, self.answer, self.answer, self.events])
            await attack(f"{self.name}-{self.number}")

    async def head(self, name: str) -> None:
        """A valid request with bytes changed, removed, doubled, cut."""
        body = b'{"prompt":"head","model":"x/y"}'
        request = b"POST /generate HTTP/1.1\r\n%sContent-Length: %d\r\nAccept: */*\r\n\r\n%s" % (HOST, len(body), body)
        await self.exchange(self.mangled(request), waits=False)

    async def body(self, name: str) -> None:
        """JSON that is almost what it should be."""
        document: Any = {"prompt": "x", "image_base64": [PICTURE], "number_of_images": 1, "model": "no such model"}
        key = self.rng.choice([*document, "unknown", "\0", "x" * 2000])
        document[key] = self.rng.choice(
            [None, [], {}, -1, 1e400, "", "\ud800", [[[[]]]] * 50, "A" * 5000, True, {"a": [1]}]
        )
        raw = json.dumps(document).encode()
        await self.post(self.mangled(raw) if self.rng.random() < 0.5 else raw, "application/json")

    async def form(self, name: str) -> None:
        """A form that is almost one."""
        part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        names = [b"prompt", b"image", b"number_of_images", b"x" * 300, b"model", b""]
        parts = [
            part % (self.rng.choice(names), self.rng.choice([b"", b'; filename="a"']), self.rng.randbytes(40))
            for _ in range(5)
        ]
        raw = b"".join(parts) + b"--b--\r\n"
        await self.post(self.mangled(raw), "multipart/form-data; boundary=b")

    async def answer(self, name: str) -> None:
        """A valid request; Google's answer is whole and odd, or broken. Whole ones with a picture are owed."""
        document: Any = {
            "candidates": [
                {
                    "content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PICTURE}}]},
                    "finishReason": "STOP",
                }
            ],
            "usageMetadata": {"totalTokenCount": 7},
            self.rng.choice(["a", "error", "promptFeedback", "modelVersion"]): self.rng.choice(
                [None, [], {}, "x" * 3000, 1e300, [[[]]]]
            ),
        }
        raw = json.dumps(document).encode()
        is_whole = self.rng.random() < 0.6
        await self.asked(name, raw if is_whole else self.mangled(raw), "/generate", {"prompt": name}, b"", is_whole)

    async def events(self, name: str) -> None:
        """The same for several pictures as events, and for Google's own format."""
        document: Any = {
            "candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PICTURE}}]}}]
        }
        raw = json.dumps(document).encode()
        if self.rng.random() < 0.5:
            await self.asked(
                name, raw, "/generate", {"prompt": name, "number_of_images": 2}, b"Accept: text/event-stream\r\n", True
            )
        else:
            contents = {"contents": [{"parts": [{"text": name}]}]}
            await self.asked(name, raw, NATIVE, contents, b"", True)

    async def asked(self, name: str, raw: bytes, path: str, body: object, headers: bytes, is_whole: bool) -> None:
        self.answers[name] = raw
        content = json.dumps(body).encode()
        head = b"POST %s HTTP/1.1\r\n%s%sContent-Length: %d\r\nConnection: close\r\n\r\n"
        received = await self.exchange(head % (path.encode(), HOST, headers, len(content)) + content, waits=True)
        if is_whole:
            self.paid.add(name)
            if PICTURE[100:2000].encode() in received:
                self.received.add(name)

    async def post(self, body: bytes, content_type: str) -> None:
        head = b"POST /generate HTTP/1.1\r\n%sContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        await self.exchange(head % (HOST, content_type.encode(), len(body)) + body, waits=self.rng.random() < 0.9)

    async def exchange(self, request: bytes, *, waits: bool) -> bytes:
        """Send it in a few segments, and read what comes; what is broken may be left waiting for more, and leaves."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        received = b""
        with suppress(ConnectionError, TimeoutError):
            cut = self.rng.randrange(len(request) + 1) if self.rng.random() < 0.3 else len(request)
            for segment in (request[:cut], request[cut:]):
                writer.write(segment)
                await writer.drain()
            async with asyncio.timeout(30 if waits else self.rng.choice([0, 0.05, 0.3])):
                while chunk := await reader.read(65536):
                    received += chunk
        writer.transport.abort()
        for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received):
            self.statuses[int(status)] = self.statuses.get(int(status), 0) + 1
        return received

    def mangled(self, data: bytes) -> bytes:
        out = bytearray(data)
        for _ in range(self.rng.randrange(1, 4)):
            at = self.rng.randrange(len(out) + 1)
            match self.rng.randrange(5):
                case 0:
                    out[at : at + 1] = self.rng.randbytes(1)
                case 1:
                    del out[at : at + self.rng.randrange(1, 9)]
                case 2:
                    out[at:at] = out[at : at + self.rng.randrange(1, 99)]
                case 3:
                    del out[at:]
                case 4:
                    out[at:at] = self.rng.choice(
                        [b"\r\n", b"\0", b'"', b"\\u0000", b"{" * 700, b"\xff\xfe", b"A" * 9000]
                    )
        return bytes(out)


@asynccontextmanager
async def google(answers: dict[str, bytes]) -> AsyncIterator[str]:
    """Google's API, that answers each prompt with what `answers` has for it; its base URL."""

    async def answer(request: Request) -> Response:
        sent = (await request.body()).decode()
        names = [name for name in re.findall(r"\d+-\d+", sent) if name in answers]
        return Response(answers[names[0]] if names else b"{}", media_type="application/json")

    listener = Listener(Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "POST"])]))
    await listener.start()
    try:
        yield f"http://127.0.0.1:{listener.port}/v1beta"
    finally:
        await listener.stop()


async def probe(port: int, until: float, seconds: list[float]) -> None:
    """Ask /health, over a new connection each time."""
    while time.monotonic() < until:
        started = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\n%sConnection: close\r\n\r\n" % HOST)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 ")
        seconds.append(time.perf_counter() - started)
        writer.close()
        await asyncio.sleep(0.05)


async def storm(fuzzers: list[Fuzzer], port: int, seconds: float) -> list[float]:
    """Let all of them go for so long; return how long each /health took meanwhile."""
    until = time.monotonic() + seconds
    healthy: list[float] = []
    await asyncio.gather(probe(port, until, healthy), *(fuzzer.run(until) for fuzzer in fuzzers))
    return healthy


async def test_whatever_is_thrown_at_it(tmp_path: Path) -> None:
    """No 500, no stall, no growth, and every picture that was paid for reaches who asked for it."""
    seed = int(os.environ.get("FUZZ_SEED") or time.time())
    print(f"FUZZ_SEED={seed}")
    answers: dict[str, bytes] = {}
    async with google(answers) as base_url:
        service = Service(
            tmp_path, workers=1, rate_limit_per_minute=10**6, gemini_api_key="k", gemini_base_url=base_url, retries=0
        )
        started = await asyncio.to_thread(service.run, "start.sh")
        assert started.returncode == 0, started.stderr
        try:
            fuzzers = [Fuzzer(n, service.port, answers, random.Random(seed + n)) for n in range(FUZZERS)]
            await storm(fuzzers, service.port, SECONDS / 4)
            before = worker_memory_bytes(service)
            healthy = await storm(fuzzers, service.port, SECONDS)
            after = worker_memory_bytes(service)
        finally:
            await asyncio.to_thread(service.run, "stop.sh")
        log = service.log()

    statuses = {status for fuzzer in fuzzers for status in fuzzer.statuses}
    assert statuses <= STATUSES, [line for line in log if line.get("level") == "error"][:5]
    assert not [line for line in log if "exception" in line]
    lost = {name for fuzzer in fuzzers for name in fuzzer.paid - fuzzer.received}
    assert not lost
    assert sum(len(fuzzer.paid) for fuzzer in fuzzers) > 100
    assert sorted(healthy)[len(healthy) * 9 // 10] < 0.3
    assert max(healthy) < 2
    assert after - before < 40 << 20
