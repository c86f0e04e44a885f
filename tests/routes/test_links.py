"""Links as images, wherever an image is taken: this service's own, and those of hosts that are allowed."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from banana.app import create_app
from standin.server import StandIn
from tests.conftest import client_of, settings_for
from tests.pictures import png

pytestmark = pytest.mark.anyio


def bodies(link: str) -> dict[str, dict[str, Any]]:
    message = {
        "role": "user",
        "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": link}}],
    }
    item = {
        "role": "user",
        "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": link}],
    }
    return {
        "/generate": {"prompt": "x", "image_base64": link},
        "/v1/images/edits": {"prompt": "x", "image": [link]},
        "/v1/images": {"prompt": "x", "input_references": [{"type": "image_url", "image_url": {"url": link}}]},
        "/v1/chat/completions": {"messages": [message]},
        "/v1/responses": {"input": [item]},
    }


FIELDS = {
    "/generate": "image_base64", "/v1/images/edits": "image", "/v1/images": "input_references",
    "/v1/chat/completions": "image_url", "/v1/responses": "image_url",
}  # fmt: skip


def field_in(response: httpx.Response) -> str:
    error = response.json()["error"]
    return str(error["param"] if "param" in error else error["fields"][0]["field"])


async def link_of(client: httpx.AsyncClient) -> tuple[str, bytes]:
    """A link to an image of the service's, and the image."""
    made = await client.post("/generate", json={"prompt": "first", "response_format": "url"})
    link = made.json()["images"][0]
    return link, (await client.get(link)).content


def sent_picture(stand_in: StandIn) -> bytes:
    parts = [part for turn in stand_in.calls[-1].body["contents"] for part in turn["parts"]]
    return base64.b64decode(next(part["inlineData"]["data"] for part in parts if "inlineData" in part))


@asynccontextmanager
async def host_of_an_image() -> AsyncIterator[tuple[str, list[bytes]]]:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(png()) + png())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.png", heads


@pytest.mark.parametrize("path", FIELDS)
async def test_an_own_link_is_the_image(client: httpx.AsyncClient, stand_in: StandIn, path: str) -> None:
    """In every API format, whatever host it names; a forged one is refused."""
    link, picture = await link_of(client)
    response = await client.post(path, json=bodies(link)[path])
    elsewhere = await client.post(path, json=bodies(link.replace("127.0.0.1", "banana.example"))[path])
    forged = await client.post(path, json=bodies(link[:-4] + "0000")[path])

    assert (response.status_code, elsewhere.status_code, forged.status_code) == (200, 200, 403)
    assert len(stand_in.calls) == 3
    assert sent_picture(stand_in) == picture


async def test_a_link_in_a_form_is_the_image(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """As a text part, where a file could be."""
    link, picture = await link_of(client)
    form = {"prompt": (None, "x"), "image": (None, link)}

    for path, field in (("/v1/images/edits", "image"), ("/generate", "image_base64")):
        response = await client.post(path, files={"prompt": form["prompt"], field: (None, link)})
        assert response.status_code == 200, response.text
        assert sent_picture(stand_in) == picture


@pytest.mark.parametrize("path", FIELDS)
async def test_other_hosts_are_not_asked_by_default(client: httpx.AsyncClient, stand_in: StandIn, path: str) -> None:
    """The error names the setting, the field, and the host; nothing is sent to Google."""
    async with host_of_an_image() as (link, heads):
        response = await client.post(path, json=bodies(link)[path])

    assert response.status_code in (400, 422)
    assert "IMAGE_URL_HOSTS does not allow 127.0.0.1" in response.json()["error"]["message"]
    assert field_in(response) == FIELDS[path]
    assert heads == []
    assert stand_in.calls == []


@pytest.mark.parametrize("keep_results_seconds", [0, 1000])
async def test_an_allowed_hosts_image_is_downloaded(stand_in: StandIn, keep_results_seconds: int) -> None:
    """In every API format, whether results are kept or not; with a key and as a task too."""
    settings = settings_for(stand_in, image_url_hosts=("127.0.0.1",), keep_results_seconds=keep_results_seconds)
    async with client_of(create_app(settings)) as client, host_of_an_image() as (link, heads):
        for path in FIELDS:
            response = await client.post(path, json=bodies(link)[path], headers={"Authorization": "Bearer secret"})
            assert response.status_code == 200, response.text
            assert sent_picture(stand_in) == png()

    assert len(heads) == len(FIELDS)
    assert not any(b"secret" in head for head in heads)


async def test_a_task_downloads_its_image(stand_in: StandIn) -> None:
    """In the background; what cannot be had is the task's error, and nothing is sent."""
    settings = settings_for(stand_in, image_url_hosts=("127.0.0.1",))
    async with client_of(create_app(settings)) as client, host_of_an_image() as (link, _):
        ended = []
        for address in (link, "http://127.0.0.1:1/a.png"):
            begun = await client.post("/v1/images/edits/async", json={"prompt": "x", "image": address})
            ended.append((await client.get(f"{begun.json()['poll_url']}?wait=20")).json())

    assert [task["status"] for task in ended] == ["completed", "failed"]
    assert ended[1]["error"]["param"] == "image"
    assert len(stand_in.calls) == 1
