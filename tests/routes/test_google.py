"""Google's own format, passed through as bytes; what its SDKs make of it: test_sdks."""

import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from banana.app import create_app
from banana.routes.google import METHODS, PREFIXES
from standin import faults
from standin.server import StandIn
from tests.conftest import client_of, served, settings_for
from tests.gemini import Gemini

pytestmark = pytest.mark.anyio
BODY = {"contents": [{"role": "user", "parts": [{"text": "a banana"}]}]}
PATH = "/v1beta/models/gemini-3-pro-image:generateContent"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prefix", PREFIXES)
async def test_bytes_pass_both_ways(stand_in: StandIn, prefix: str, method: str) -> None:
    """Whatever the prefix, the body goes to Google as it is and comes back as it is, large ones too."""
    body = b"\xff not JSON at all " * 10_000
    google = Gemini(httpx.Response(200, headers={"content-type": "application/odd"}, content=body))
    async with client_of(create_app(settings_for(stand_in), google.transport)) as client:
        response = await client.post(
            f"{prefix}/models/gemini-3-pro-image-preview{method}?alt=sse&key=mine", content=body
        )

    (request,) = google.requests
    assert (response.status_code, response.content, response.headers["content-type"]) == (200, body, "application/odd")
    assert request.content == body
    assert str(request.url) == f"{stand_in.base_url}/models/gemini-3-pro-image{method}?alt=sse"
    assert "mine" not in str(request.headers)


@pytest.mark.parametrize("fault", ["400", "404", "429-long", "429", "503", "403"])
async def test_googles_error_passes_as_it_is(client: httpx.AsyncClient, stand_in: StandIn, fault: str) -> None:
    """Status, type and body are Google's, details and all."""
    stand_in.plan.extend([fault] * 3)

    response = await client.post(PATH, json=BODY)

    error = response.json()["error"]
    assert response.status_code == error["code"] == int(fault[:3])
    assert "banana-service" not in response.text
    assert response.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(
    ("fault", "status", "name", "reason"),
    [("reset", 502, "INTERNAL", "UPSTREAM_ERROR"), ("hang", 504, "DEADLINE_EXCEEDED", "TIMEOUT")],
)
async def test_ours_come_in_googles_shape(stand_in: StandIn, fault: str, status: int, name: str, reason: str) -> None:
    """google.rpc.Status with the request id and our code as details."""
    stand_in.plan.append(fault)
    async with client_of(create_app(settings_for(stand_in, request_timeout_seconds=0.5))) as client:
        response = await client.post(PATH, json=BODY)

    error = response.json()["error"]
    assert (response.status_code, error["code"], error["status"]) == (status, status, name)
    assert error["details"][0]["requestId"] == response.headers["x-request-id"]
    assert error["details"][1]["reason"] == reason


@pytest.mark.parametrize("name", ["..", "a b", "%2e%2e%2fx", "é"])
async def test_a_model_that_is_none_is_404(client: httpx.AsyncClient, stand_in: StandIn, name: str) -> None:
    """A name cannot leave its place in the path."""
    response = await client.post(f"/v1beta/models/{name}:generateContent", json=BODY)

    assert (response.status_code, response.json()["error"]["status"]) == (404, "NOT_FOUND")
    assert not stand_in.calls


async def test_an_error_inside_a_stream_is_an_event(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """What came before it arrives, and the SDK can read why it ended."""
    stand_in.plan.append(faults.says(b'data: {"candidates":[]}\r\n\r\n', "text/event-stream"))
    path = PATH.replace(":generate", ":streamGenerate") + "?alt=sse"
    whole = await client.post(path, json=BODY)

    async def parts() -> AsyncIterator[bytes]:
        yield b'data: {"candidates":[]}\r\n\r\n'
        raise httpx.RemoteProtocolError("cut")

    google = Gemini(httpx.Response(200, headers={"content-type": "text/event-stream"}, content=parts()))
    async with client_of(create_app(settings_for(stand_in), google.transport)) as cut_client:
        cut = await cut_client.post(path, json=BODY)

    assert whole.text == 'data: {"candidates":[]}\r\n\r\n'
    assert cut.text.startswith(whole.text)
    last = json.loads(cut.text.removeprefix(whole.text).removeprefix("data: "))
    assert last["error"]["details"][1]["reason"] == "UPSTREAM_INVALID"


async def test_a_packed_response_arrives_unpacked(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Google compressing although it was not asked to is the caller's JSON all the same."""

    async def packed(request: Request, picture: str) -> Response:
        return Response(gzip.compress(b'{"a":1}'), headers={"Content-Encoding": "gzip"})

    stand_in.plan.append(packed)
    response = await client.post(PATH, json=BODY)

    assert response.json() == {"a": 1}
    assert "content-encoding" not in response.headers


async def test_a_query_that_is_too_long_is_refused(client: httpx.AsyncClient) -> None:
    """It is named, in Google's shape, and nothing is sent."""
    response = await client.get("/v1beta/models", params={"x": "(" * 3_000})

    assert (response.status_code, response.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "query" in response.json()["error"]["message"]


async def test_a_content_type_that_cannot_be_a_header_is_replaced(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """A paid response arrives, whatever its type says."""
    stand_in.plan.append(faults.says(b"{}", "application/漢"))

    response = await client.post(PATH, json=BODY)

    assert (response.status_code, response.content) == (200, b"{}")
    assert response.headers["content-type"] == "application/octet-stream"


async def test_a_stream_that_breaks_inside_an_event_is_cut(stand_in: StandIn) -> None:
    """An event of ours would fuse with the half one: nothing more is sent, and the log has no traceback."""

    async def parts() -> AsyncIterator[bytes]:
        yield b'data: {"candidates":[]}\r\n\r\ndata: {"cand'
        raise httpx.RemoteProtocolError("cut")

    google = Gemini(httpx.Response(200, headers={"content-type": "text/event-stream"}, content=parts()))
    path = PATH.replace(":generate", ":streamGenerate") + "?alt=sse"
    async with served(create_app(settings_for(stand_in), google.transport)) as address, httpx.AsyncClient() as client:
        received, whole = b"", False
        with contextlib.suppress(httpx.RemoteProtocolError):
            async with client.stream("POST", address + path, json=BODY) as response:
                async for chunk in response.aiter_bytes():
                    received += chunk
                whole = True

    log = Path("logs/app.log").read_text(encoding="utf-8")
    assert not whole
    assert received == b'data: {"candidates":[]}\r\n\r\ndata: {"cand'
    assert '"response_cut"' in log
    assert "Traceback" not in log


async def test_a_callers_credentials_go_no_further(stand_in: StandIn) -> None:
    """With them Google would refuse the call, and it would look as if our key were wrong."""
    google = Gemini(httpx.Response(200, content=b"{}"))
    query = "key=a&access_token=b&Oauth_Token=c&%24userProject=d&api_key=e&alt=json"
    async with client_of(create_app(settings_for(stand_in), google.transport)) as client:
        await client.post(f"{PATH}?{query}", json=BODY)

    assert dict(google.requests[0].url.params) == {"alt": "json"}


@pytest.mark.parametrize("body", [b"", b"{} and more", b'{"a": NaN}', b"<html>"])
async def test_a_task_whose_response_is_no_json_is_a_document_all_the_same(
    client: httpx.AsyncClient, stand_in: StandIn, body: bytes
) -> None:
    """The response is in it as a string."""
    stand_in.plan.append(faults.says(body))
    headers = {"Prefer": "respond-async"}
    task = (await client.post("/v1beta/models/gemini-3-pro-image:generateContent", json=BODY, headers=headers)).json()
    polled = (await client.get(f"/v1/images/tasks/{task['id']}?wait=20")).json()

    assert (polled["status"], polled["result"]) == ("completed", body.decode())


@pytest.mark.parametrize(
    ("path", "headers", "sentence"),
    [
        ("/v1beta/files", {}, "inlineData"),
        ("/upload/v1beta/files", {}, "inlineData"),
        ("/v1beta/files/abc", {}, "inlineData"),
        ("/v1beta/interactions", {}, ":generateContent"),
        ("/v1beta/batches/1", {}, "Idempotency-Key"),
        ("/v1beta/cachedContents", {}, "each request"),
        ("/v1/files", {"x-goog-api-key": "k"}, "inlineData"),
        ("/v1beta/models/gemini-3-pro-image:batchGenerateContent", {}, ":generateContent"),
        ("/v1/publishers/google/models/veo-3:predictLongRunning", {}, ":predict"),
    ],
)
async def test_what_is_not_passed_on_says_so(
    client: httpx.AsyncClient, stand_in: StandIn, path: str, headers: dict[str, str], sentence: str
) -> None:
    """404 in Google's shape, with what to do instead."""
    for method in ("POST", "DELETE"):
        response = await client.request(method, path, headers=headers)
        error = response.json()["error"]

        assert (response.status_code, error["code"], error["status"]) == (404, 404, "NOT_FOUND")
        assert sentence in error["message"]
    assert not stand_in.calls


async def test_files_of_openai_are_none_of_googles(client: httpx.AsyncClient) -> None:
    """The path is OpenAI's too: without Google's credentials the error is not in Google's shape."""
    error = (await client.get("/v1/files", headers={"Authorization": "Bearer x"})).json()["error"]

    assert "status" not in error
