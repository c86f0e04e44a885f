"""The application as a whole: the framework's own errors, request ids, defects."""

from pathlib import Path

import httpx
import pytest
from pydantic import BaseModel

import config
from banana.app import create_app
from standin.server import StandIn
from tests.conftest import client_of, error_of, settings_for

pytestmark = pytest.mark.anyio


async def test_an_unknown_route_is_404_in_our_shape(client: httpx.AsyncClient) -> None:
    """The framework's 404 has our shape."""
    response = await client.get("/nowhere")

    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


async def test_a_wrong_method_for_a_file_of_the_documentation_is_405(client: httpx.AsyncClient) -> None:
    """They are no routes of ours, and are served all the same."""
    response = await client.post("/static-offline-docs/swagger-ui.css")

    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


async def test_a_wrong_method_is_405_and_names_the_right_one(client: httpx.AsyncClient) -> None:
    """The framework's 405 has our shape and an Allow header."""
    response = await client.get("/generate")

    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(("given", "kept"), [("trace-42", True), ("a b", False), ("x" * 200, False), ("é", False)])
async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient, given: str, kept: bool) -> None:
    """The caller's request id comes back when it can stand in a log; else there is a new one."""
    response = await client.get("/health", headers=[(b"X-Request-ID", given.encode())])

    assert (response.headers["x-request-id"] == given) is kept
    assert response.headers["x-request-id"]


async def test_a_defect_is_500_without_a_traceback(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody expected is told in our shape, with the id that finds it in the log."""
    app = create_app(settings_for(stand_in))

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("secret detail")

    async with client_of(app) as client:
        response = await client.get("/broken")

    assert (response.status_code, error_of(response)["code"]) == (500, "internal")
    assert "secret detail" not in response.text
    with Path("logs/app.log").open(encoding="utf-8") as log:
        assert any("ZeroDivisionError" in line and error_of(response)["request_id"] in line for line in log)


async def test_demo_answers_say_so(stand_in: StandIn) -> None:
    """Every answer of the demo carries X-Demo."""
    async with client_of(create_app(settings_for(stand_in, demo=True))) as client:
        response = await client.get("/health")

    assert response.headers["x-demo"] == "true"


async def test_the_openapi_document_tells_the_request(client: httpx.AsyncClient) -> None:
    """/openapi.json describes what /generate takes."""
    document = (await client.get("/openapi.json")).json()

    schema = document["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {
        "prompt", "image_base64", "model", "number_of_images", "aspect_ratio", "image_size", "response_format",
        "service_tier", "thinking_level", "seed",
    }  # fmt: skip


async def test_a_slash_too_many_is_404_and_no_redirect(client: httpx.AsyncClient) -> None:
    """A redirect would go to whatever host the request names."""
    response = await client.post("/generate/", json={"prompt": "x"})

    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


async def test_the_first_line_of_the_log_has_no_password(stand_in: StandIn) -> None:
    """The upstream's address is logged without its user."""
    address = stand_in.base_url.replace("//", "//anna:s3cret@")
    async with client_of(create_app(config.read(gemini_base_url=address, gemini_api_key=("k",)))):
        pass

    assert "s3cret" not in Path("logs/app.log").read_text(encoding="utf-8")


async def test_the_document_is_made_when_it_is_asked_for(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """No schema of a body is made before that: it would be waited for at every start. The document is the same again."""
    with monkeypatch.context() as without_schemas:
        without_schemas.delattr(BaseModel, "model_json_schema")
        app = create_app(settings_for(stand_in))
    async with client_of(app) as client:
        first = (await client.get("/openapi.json")).json()
        again = (await client.get("/openapi.json")).json()

    content = first["paths"]["/generate"]["post"]["requestBody"]["content"]
    assert "prompt" in content["application/json"]["schema"]["properties"]
    assert "image" in content["multipart/form-data"]["schema"]["properties"]
    assert again == first
