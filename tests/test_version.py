"""The version of the service, one wherever it is named; and the version that /health answers, which is the interface's."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from banana import __version__
from banana.app import create_app
from standin.server import StandIn
from tests.conftest import client_of, settings_for

ROOT = Path(__file__).parent.parent


def found_in(name: str, pattern: str) -> list[str]:
    return re.findall(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_files_of_the_project_agree() -> None:
    """pyproject.toml, the image's label and the newest release in CHANGELOG.md are of the version that the code has."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == __version__
    assert found_in("Dockerfile", r'org\.opencontainers\.image\.version="([^"]*)"') == [__version__]
    assert found_in("CHANGELOG.md", r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$")[0] == __version__


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    """Above the newest release stands what is not released yet."""
    assert found_in("CHANGELOG.md", r"^## \[([^]]+)\]")[0] == "Unreleased"


@pytest.mark.anyio
async def test_the_running_service_agrees(stand_in: StandIn) -> None:
    """/openapi.json and the log's first line name the version of the code; /health goes on answering the interface's."""
    async with client_of(create_app(settings_for(stand_in))) as client:
        document = (await client.get("/openapi.json")).json()
        health = (await client.get("/health")).json()
    first = Path("logs/app.log").read_text(encoding="utf-8").splitlines()[0]

    assert document["info"]["version"] == __version__
    assert (json.loads(first)["event"], json.loads(first)["version"]) == ("started", __version__)
    assert health["version"] == "1.0.0" != __version__
