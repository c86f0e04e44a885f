"""Long silence: server-sent events and whitespace keep a connection that a proxy would cut."""

import asyncio
import base64
import io
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from banana.app import create_app
from banana.http.responses import one_line
from banana.intervals import Intervals
from standin import faults
from standin.server import StandIn
from tests.conftest import client_of, error_of, served, settings_for
from tests.patience import eventually, soon
from tests.services import free_port, listens, needs

pytestmark = pytest.mark.anyio
SSE = {"Accept": "text/event-stream"}


def events_of(text: str) -> list[tuple[str, Any]]:
    lines = [line for line in text.strip().split("\n") if not line.startswith(":")]
    blocks = [block.split("\n") for block in "\n".join(lines).split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


async def after(seconds: float, fault: str) -> faults.Fault:
    async def act(request: Any, picture: str) -> Any:
        await asyncio.sleep(seconds)
        return await faults.FAULTS[fault](request, picture)

    return act


async def test_each_image_is_an_event_as_soon_as_it_is_there(stand_in: StandIn) -> None:
    """Over a real socket the first image arrives while the second is still being made; `done` closes the stream."""
    first_arrived = asyncio.Event()

    async def held(request: Any, picture: str) -> Any:
        await first_arrived.wait()
        return await faults.FAULTS["thought-only"](request, picture)

    stand_in.plan.extend([faults.parts(faults.image), held])
    arrived: list[str] = []
    async with served(create_app(settings_for(stand_in))) as address, httpx.AsyncClient() as client:
        body = {"prompt": "two", "number_of_images": 2}
        async with client.stream("POST", f"{address}/generate", json=body, headers=SSE) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            text = ""
            async for line in response.aiter_lines():
                text += line + "\n"
                if line.startswith("event: "):
                    arrived.append(line.removeprefix("event: "))
                    first_arrived.set()

    assert arrived == ["image", "image", "done"]
    events = events_of(text)
    assert {data["index"] for name, data in events if name == "image"} == {0, 1}
    assert Image.open(io.BytesIO(base64.b64decode(events[0][1]["image"]))).format == "JPEG"
    assert events[-1][1] == {"requested": 2, "returned": 2, "failed": []}


async def test_failures_are_events_too(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """A refused image is a `failed` event with its reason, and `done` counts it; where all are refused, it is no stream."""
    stand_in.plan.extend([None, "image-safety"])
    headers, two = SSE | {"X-Request-ID": "sse-1"}, {"prompt": "x", "number_of_images": 2}

    response = await client.post("/generate", json=two, headers=headers)
    stand_in.plan.append("image-safety")
    none = await client.post("/generate", json={"prompt": "x"}, headers=headers)

    events = dict(events_of(response.text))
    failed, done = events["failed"], events["done"]
    assert (none.status_code, none.json()["error"]["code"]) == (422, "blocked")
    assert (failed["error"]["code"], failed["error"]["reason"]) == ("blocked", "IMAGE_SAFETY")
    assert failed["error"]["request_id"] == "sse-1"
    assert done["returned"] == 1
    assert done["failed"][0]["index"] == failed["index"]


async def test_silence_is_broken_by_comments(stand_in: StandIn) -> None:
    """While nothing is there yet, comment lines are sent."""
    stand_in.latency_seconds = 1
    async with client_of(create_app(settings_for(stand_in), intervals=Intervals(silence=0.1))) as client:
        response = await client.post("/generate", json={"prompt": "x"}, headers=SSE)

    assert 3 <= response.text.count(": keep-alive\n") <= response.elapsed.total_seconds() / 0.1
    assert [name for name, _ in events_of(response.text)] == ["image", "done"]


async def test_a_bad_request_keeps_its_status(client: httpx.AsyncClient) -> None:
    """What is wrong before anything is sent is an ordinary error."""
    response = await client.post("/generate", json={"prompt": ""}, headers=SSE)

    assert (response.status_code, error_of(response)["code"]) == (422, "invalid_request")


@asynccontextmanager
async def patient(
    stand_in: StandIn, latency_seconds: float = 1, keepalive_seconds: float = 0.2
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that sends whitespace after a while."""
    stand_in.latency_seconds = latency_seconds
    async with client_of(create_app(settings_for(stand_in, keepalive_seconds=keepalive_seconds))) as client:
        yield client


async def test_whitespace_goes_before_a_late_answer(stand_in: StandIn) -> None:
    """After KEEPALIVE_SECONDS whitespace is sent, and the JSON after it is the answer."""
    async with patient(stand_in) as client:
        response = await client.post("/generate", json={"prompt": "x"})

    assert response.status_code == 200
    assert response.text[:2] == "  "
    assert list(response.json()) == ["images", "metadata"]
    assert response.headers["x-ratelimit-limit"] == "60"


async def test_an_early_answer_is_as_ever(stand_in: StandIn) -> None:
    """Before KEEPALIVE_SECONDS nothing is sent: success has its length, an error its status."""
    async with patient(stand_in, latency_seconds=0, keepalive_seconds=30) as client:
        success = await client.post("/generate", json={"prompt": "x"})
        stand_in.plan.append("image-safety")
        failure = await client.post("/generate", json={"prompt": "x"})

    assert success.headers["content-length"] == str(len(success.content))
    assert (failure.status_code, error_of(failure)["code"]) == (422, "blocked")


async def test_a_late_error_is_in_the_body(stand_in: StandIn) -> None:
    """Once whitespace is sent the status is 200; the body has the error's own shape."""
    stand_in.plan.append(await after(0.5, "image-safety"))
    async with patient(stand_in) as client:
        response = await client.post("/generate", json={"prompt": "x"})

    assert response.status_code == 200
    assert error_of(response)["code"] == "blocked"


async def test_a_picture_has_no_whitespace_before_it(stand_in: StandIn) -> None:
    """Who asks for the picture itself gets the picture itself, however late."""
    async with patient(stand_in) as client:
        response = await client.post("/generate", json={"prompt": "x"}, headers={"Accept": "image/*"})

    assert Image.open(io.BytesIO(response.content)).format == "JPEG"


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_caller_who_leaves_during_the_silence_ends_the_call(stand_in: StandIn, accept: str) -> None:
    """Signs of life were sent already: leaving still closes the calls to Google and frees the slots."""
    stand_in.plan.extend(["hang", "hang"])
    app = create_app(settings_for(stand_in, keepalive_seconds=0.05), intervals=Intervals(silence=0.05))
    async with served(app) as address, httpx.AsyncClient() as client:
        body = {"prompt": "x", "number_of_images": 2}
        async with client.stream("POST", f"{address}/generate", json=body, headers={"Accept": accept}) as response:
            assert response.status_code == 200
            while len(stand_in.calls) < 2:
                await asyncio.sleep(0.01)
        await soon(lambda: all(call.aborted for call in stand_in.calls), 0.5)

    assert [call.aborted for call in stand_in.calls] == [True, True]


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
  fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; proxy_read_timeout 1s; }} }}
}}
"""


@asynccontextmanager
async def nginx(upstream: str, folder: Path) -> AsyncIterator[str]:
    """An nginx as people put it in front, whose time-out of 60 s is shortened to 1 s."""
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    command = shutil.which("nginx") or "/usr/sbin/nginx"
    process = await asyncio.create_subprocess_exec(command, "-c", str(folder / "nginx.conf"), "-p", str(folder))
    try:
        await eventually(lambda: listens(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.slow
@needs("nginx")
async def test_nginx_in_front_cuts_silence_and_nothing_else(stand_in: StandIn, tmp_path: Path) -> None:
    """A picture that takes longer than nginx waits is lost in silence, and arrives with either sign of life."""
    stand_in.latency_seconds = 2.5
    outcomes = []
    for seconds, headers in ((0, {}), (0.3, {}), (0, SSE)):
        app = create_app(settings_for(stand_in, keepalive_seconds=seconds), intervals=Intervals(silence=0.3))
        async with served(app) as upstream, nginx(upstream, tmp_path) as front, httpx.AsyncClient() as client:
            outcomes.append(await client.post(f"{front}/generate", json={"prompt": "x"}, headers=headers, timeout=9))

    assert [outcome.status_code for outcome in outcomes] == [504, 200, 200]
    assert len(outcomes[1].json()["images"]) == 1
    assert [name for name, _ in events_of(outcomes[2].text)] == ["image", "done"]


def test_an_event_is_one_line_for_every_reader() -> None:
    """Python's readers end a line at more characters than JSON escapes."""
    document = {"text": "a\nb\r\x0b\x0c\x1c\x85\u2028\u2029é"}

    assert len(one_line(document).decode().splitlines()) == 1
    assert json.loads(one_line(document)) == document
