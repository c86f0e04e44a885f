"""The OpenAPI document against the service, by schemathesis."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )

    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


def test_the_document_has_an_example_of_every_request(quick: Service) -> None:
    """Whoever opens /docs can try each route as it stands."""
    document = httpx.get(f"{quick.address}/openapi.json").json()

    for path, methods in document["paths"].items():
        for body in (method["requestBody"]["content"] for method in methods.values() if "requestBody" in method):
            assert "example" in json.dumps(body), path
