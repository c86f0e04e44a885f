"""The OpenAPI document against the service, by schemathesis."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.services import Service

pytestmark = pytest.mark.slow


def test_nothing_undocumented_is_answered(demo: Service, tmp_path: Path) -> None:
    """Generated requests, good and bad, to every route: no 500, no status and no shape that the document does not tell."""
    command = [
        Path(sys.executable).with_name("schemathesis"), "run", f"{demo.address}/openapi.json", "--max-examples=5",
        "--checks=all", "--exclude-checks=positive_data_acceptance", "--phases=examples,coverage,fuzzing", "--request-timeout=20", "--seed=1", "--suppress-health-check=all",
    ]  # fmt: skip
    # Not every string that the schema allows is base64 of a picture: that alone is left out.
    ran = subprocess.run(
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )

    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


def test_the_document_has_an_example_of_every_request(demo: Service) -> None:
    """Whoever opens /docs can try each route as it stands."""
    document = httpx.get(f"{demo.address}/openapi.json").json()

    for path, methods in document["paths"].items():
        for body in (method["requestBody"]["content"] for method in methods.values() if "requestBody" in method):
            assert "example" in json.dumps(body), path
