"""What all tests share: a clean environment, the stand-in on a real socket, and the shipped app in front of it."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import uvicorn
from fastapi import FastAPI

import config
from banana.app import create_app
from banana.intervals import Intervals
from banana.server.protocol import Connections, ServerProtocol
from standin.server import StandIn
from tests.redis_server import RedisServer
from tests.services import Service

KEY = "test-key-1"
# Where no application is built: plain tracebacks, because rich's never come to the end of a mock that stands in a frame.
structlog.configure(processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that ships."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def clean_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty folder, no settings and no proxies from outside; no log handlers and no shutdown left behind."""
    for name in list(os.environ):
        if name.lower() in config.Settings.model_fields or name.lower().endswith("_proxy") or name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    ServerProtocol.draining = False  # of the whole process: a server of an earlier test may have ended in it
    yield
    for handler in list(logging.getLogger().handlers):
        if type(handler).__module__ == "banana.logs":
            logging.getLogger().removeHandler(handler)
            handler.close()


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    """Google's API, on a real socket."""
    server = StandIn()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """One Redis for all tests of a process."""
    server = RedisServer()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """One S3 for all tests of a process."""
    from tests.s3_server import S3Server  # moto takes a second, and few tests need it

    server = S3Server()
    yield server
    server.stop()


def settings_for(stand_in: StandIn, **values: Any) -> config.Settings:
    """Settings of a service in front of `stand_in`, without pauses between repeats."""
    given: dict[str, Any] = {
        "gemini_api_key": (KEY,),
        "retry_backoff_seconds": 0,
        "request_timeout_seconds": 20,
        "workers": 1,
    }
    return config.read(gemini_base_url=stand_in.base_url, **given | values)


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that speaks ASGI to the app, without a socket; with a response, its log line is written."""

    async def turn_ended(_: httpx.Response) -> None:
        await asyncio.sleep(0)

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://127.0.0.1",
            timeout=30,
            event_hooks={"response": [turn_ended]},
        ) as client,
    ):
        yield client


@pytest.fixture
async def client(stand_in: StandIn) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shipped app in front of the stand-in."""
    async with client_of(create_app(settings_for(stand_in, rate_limit_per_minute=10_000))) as client:
        yield client


@pytest.fixture
async def impatient(stand_in: StandIn) -> AsyncIterator[httpx.AsyncClient]:
    """The same, of a service that takes a twentieth of a second for silence."""
    async with client_of(create_app(settings_for(stand_in), intervals=Intervals(silence=0.05))) as client:
        yield client


@asynccontextmanager
async def served(app: FastAPI, http: Any = None) -> AsyncIterator[str]:
    """The app behind a real uvicorn on a real socket, as main.py runs it; yields its address."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=0,
            http=http or Connections(),  # type: ignore[arg-type] # whatever makes a protocol
            ws="none",
            access_log=False,
            log_config=None,
            lifespan="on",
            proxy_headers=False,
        )
    )
    ServerProtocol.draining = False  # an earlier server of the same test may have ended
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
        assert not task.done()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object, its shape checked."""
    error: dict[str, Any] = response.json()["error"]
    assert list(error)[:3] == ["code", "message", "request_id"]
    assert error["request_id"] == response.headers["x-request-id"]
    assert error["message"]
    return error


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service started with ./start.sh --demo, for tests that only ask it."""
    service = Service(tmp_path_factory.mktemp("demo"), workers=2, rate_limit_per_minute=1000)
    started = service.run("start.sh", "--demo")
    assert started.returncode == 0, started.stdout + started.stderr
    yield service
    service.run("stop.sh")
    assert service.processes() == []
