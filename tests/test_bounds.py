"""What a worker can hold at most, as docs/operate.md says it: a real worker is driven there, and /health answers all the while."""

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from standin import faults
from standin.server import StandIn
from tests.patience import eventually
from tests.services import Service

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
MIB = 1 << 20
HEAD = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@contextmanager
def worker(folder: Path, descriptors: int = 1024, **settings: object) -> Iterator[Service]:
    """A service with one worker and so many descriptors."""
    service = Service(folder, workers=1, rate_limit_per_minute=100_000, **settings)
    started = subprocess.run(
        ["bash", "-c", f"ulimit -n {descriptors} && ./start.sh"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield service
    finally:
        service.run("stop.sh", timeout=120)
        assert service.processes() == []


def worker_memory_bytes(service: Service) -> int:
    """What the worker holds now, as the system counts it."""
    (pid,) = (pid for pid in service.processes() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def assert_healthy(service: Service, probes: int = 10) -> None:
    """9 of 10 probes over new connections answer within 0.3 s, and none stalls."""
    seconds = []
    for _ in range(probes):
        started = time.perf_counter()
        with urllib.request.urlopen(f"{service.address}/health", timeout=5) as response:
            assert response.status == 200
        seconds.append(time.perf_counter() - started)
        time.sleep(0.02)
    assert sorted(seconds)[-2] < 0.3, seconds
    assert max(seconds) < 2, seconds


@contextmanager
def connections(service: Service, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """So many connections, each of which sends this and no more."""
    opened = []
    try:
        for _ in range(count):
            opened.append(connection := socket.create_connection(("127.0.0.1", service.port)))
            with suppress(OSError):  # it was closed to make room
                connection.sendall(sent)
        yield opened
    finally:
        for connection in opened:
            connection.close()


@pytest.mark.parametrize(
    "sent", [b"", HEAD + b"X-Long: " + b"a" * 60_000, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    ids=["silent", "half a head", "kept alive"],
)  # fmt: skip
async def test_connections_take_no_more_than_they_may(tmp_path: Path, stand_in: StandIn, sent: bytes) -> None:
    """More than there are descriptors: the worker holds 64 KB for each that it keeps, and a new one is always served."""
    with worker(tmp_path, gemini_api_key="k", gemini_base_url=stand_in.base_url) as service:
        before = worker_memory_bytes(service)
        with connections(service, 1100, sent):
            assert_healthy(service)
            assert worker_memory_bytes(service) - before < 1024 * 2 * 64 * 1024 + 20 * MIB
        assert_healthy(service)


async def test_bodies_take_no_more_than_they_may(tmp_path: Path, stand_in: StandIn) -> None:
    """Bodies that stop before their end fill MAX_BUFFERED_BYTES and no more; another is 503 at once; then they are ended."""
    settings: dict[str, Any] = {"max_buffered_bytes": 64 * MIB, "idle_seconds": 2, "gemini_base_url": stand_in.base_url}
    with worker(tmp_path, gemini_api_key="k", **settings) as service:
        before = worker_memory_bytes(service)
        for framing in (
            b"Content-Length: %d\r\n\r\n" % (20 * MIB),
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (20 * MIB),
        ):
            begun = HEAD + framing + b'{"prompt":"' + b"x" * (15 * MIB)
            with ThreadPoolExecutor(8) as pool, connections(service, 0, b"") as opened:
                opened += [socket.create_connection(("127.0.0.1", service.port)) for _ in range(8)]
                list(pool.map(send_all, opened, [begun] * 8))
                assert_healthy(service)
                statuses = list(pool.map(status_of, opened))
            assert statuses.count(503) >= 3
            assert statuses.count(504) >= 2
            assert statuses.count(503) + statuses.count(504) == 8
            assert worker_memory_bytes(service) - before < 64 * MIB * 2
        assert not stand_in.calls


async def test_responses_that_nobody_reads_are_given_up_and_their_memory_given_back(
    tmp_path: Path, stand_in: StandIn
) -> None:
    """Twelve callers ask for two pictures of 20 MB and do not read: it is over after IDLE_SECONDS, in the system as well."""
    picture = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgoA" + "A" * (20 * MIB)}}
    answer = faults.says({"candidates": [{"content": {"parts": [picture]}, "finishReason": "STOP"}]})
    stand_in.plan.extend([answer] * 24)
    body = b'{"prompt":"x","number_of_images":2}'
    settings: dict[str, Any] = {
        "max_buffered_bytes": 256 * MIB,
        "idle_seconds": 3,
        "gemini_base_url": stand_in.base_url,
    }
    with worker(tmp_path, gemini_api_key="k", **settings) as service:
        before = worker_memory_bytes(service)
        with connections(service, 12, HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body):
            await eventually(lambda: len(requests_of(service)) >= 12)
            assert_healthy(service)
        assert {line["status"] for line in requests_of(service)} <= {499, 503}
        # With the next look at what can be given back.
        await eventually(lambda: worker_memory_bytes(service) - before <= 60 * MIB)


def requests_of(service: Service) -> list[dict[str, Any]]:
    return [line for line in service.log() if line["event"] == "request" and line["path"] == "/generate"]


def send_all(connection: socket.socket, data: bytes) -> None:
    connection.settimeout(20)
    with suppress(OSError):  # it was refused on the way
        connection.sendall(data)


def status_of(connection: socket.socket) -> int:
    """The status of the response, however much of the request was read before it."""
    with suppress(OSError):
        return int(connection.recv(65536).split(b" ")[1])
    return 0
