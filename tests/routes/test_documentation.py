"""The OpenAPI document against the service, by schemathesis."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services import Service, stand_in_process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose Google answers at once."""
    with stand_in_process(latency_seconds=0) as google:
        service = Service(
            tmp_path_factory.mktemp("documented"), workers=2, rate_limit_per_minute=100_000, gemini_api_key="k",
            gemini_base_url=google,
        )  # fmt: skip
        assert service.run("start.sh").returncode == 0
        yield service
        service.run("stop.sh")


def test_nothing_undocumented_is_answered(quick: Service, tmp_path: Path) -> None:
    """Generated requests, good and bad, to every route: no 500, no status and no shape that the document does not tell."""
    command = [
        Path(sys.executable).with_name("schemathesis"), "run", f"{quick.address}/openapi.json", "--max-examples=5",
        "--checks=all", "--exclude-checks=positive_data_acceptance", "--phases=examples,coverage,fuzzing", "--request-timeout=20", "--seed=1", "--suppress-health-check=all",
    ]  # fmt: skip
    # Not every string that the schema allows is base64 of a picture: that alone is left out.
    ran = subprocess.run(
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False
    )

    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


def test_every_example_works_as_it_stands(quick: Service) -> None:
    """What "Try it out" of /docs sends when nothing is changed is answered with a documented success."""
    document = httpx.get(f"{quick.address}/openapi.json").json()
    for path, method, operation, content_type in _examples(document):
        response = _sent(quick, path, method, operation, content_type)

        assert response.is_success, (method, path, content_type, response.text)
        assert str(response.status_code) in operation["responses"]


def _examples(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Every operation and type of its body, but those that need the id of something made before."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "{id}" not in path and "{name}" not in path:
                for content_type in operation.get("requestBody", {"content": [""]})["content"]:
                    yield path, method, operation, content_type


def _sent(
    service: Service, path: str, method: str, operation: dict[str, Any], content_type: str, **values: str
) -> httpx.Response:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            value = values.get(parameter["name"]) or parameter["example"]
            path = path.replace(f"{{{parameter['name']}}}", value)
    body = operation.get("requestBody", {"content": {}})["content"].get(content_type, {})
    if "json" in content_type:
        return httpx.request(method, service.address + path, json=body["example"], timeout=20, trust_env=False)
    form = body.get("schema", {"properties": {}})["properties"]
    fields = {name: _shown(field) for name, field in form.items()}
    sent = [(name, (None, str(one))) for name, value in fields.items() for one in _each(value) if one is not None]
    return httpx.request(method, service.address + path, files=sent or None, timeout=20, trust_env=False)


def _shown(field: dict[str, Any]) -> Any:
    """What /docs fills a field of a form with; without any of these it would be a word of its own."""
    if "enum" in field and "example" not in field and "default" not in field:
        return field["enum"][0]
    return field["example"] if "example" in field else field.get("default")


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    ("made_by", "body", "read_by", "methods"),
    [
        ("/v1/images/generations/async", {}, "/v1/images/tasks/{id}", ["get", "delete"]),
        ("/v1/responses", {"background": True}, "/v1/responses/{id}", ["get", "delete"]),
        ("/v1/responses", {"background": True}, "/v1/responses/{id}/cancel", ["post"]),
    ],
)
def test_what_was_made_is_read_by_its_id(
    quick: Service, made_by: str, body: dict[str, Any], read_by: str, methods: list[str]
) -> None:
    """An id is nobody's to guess, so it has no example: it says where it comes from, and works with the id of an example."""
    paths = httpx.get(f"{quick.address}/openapi.json").json()["paths"]
    example = paths[made_by]["post"]["requestBody"]["content"]["application/json"]["example"]
    made = httpx.post(quick.address + made_by, json=example | body, trust_env=False).json()
    for method in methods:
        operation = paths[read_by][method]
        response = _sent(quick, read_by, method, operation, "", id=made["id"])

        assert "description" in operation["parameters"][0]
        assert response.is_success, response.text


def test_what_people_come_for_is_first(quick: Service) -> None:
    """Every group has a sentence, and every operation one group, a summary and a place among them."""
    document = httpx.get(f"{quick.address}/openapi.json").json()
    groups = [tag["name"] for tag in document["tags"]]

    assert groups == ["images", "OpenAI", "Google", "tasks", "models", "key", "operations"]
    assert all(tag["description"] for tag in document["tags"])
    for methods in document["paths"].values():
        for operation in methods.values():
            assert len(operation["tags"]) == 1
            assert operation["tags"][0] in groups
            assert operation["summary"]
