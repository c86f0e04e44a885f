"""The page's files; the page in a browser: test_browser."""

import re

import httpx
import pytest

from banana.routes.page import FOLDER, routes

pytestmark = pytest.mark.anyio
PATHS = [route.path for route in routes()]  # type: ignore[attr-defined]


async def test_the_page_is_small(client: httpx.AsyncClient) -> None:
    """Under 100 KB in all."""
    parts = [await client.get(path) for path in PATHS]

    assert len(parts) >= 7
    assert sum(len(part.content) for part in parts) < 100_000


@pytest.mark.parametrize("path", PATHS)
async def test_every_file_is_closed_to_the_rest_of_the_web(client: httpx.AsyncClient, path: str) -> None:
    """A strict policy, no cookie, its true type; asked for again, it is 304."""
    part = await client.get(path)
    again = await client.get(path, headers={"If-None-Match": part.headers["etag"]})

    assert part.status_code == 200
    assert "default-src 'none'" in part.headers["content-security-policy"]
    assert "unsafe" not in part.headers["content-security-policy"]
    assert part.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in part.headers
    assert (again.status_code, again.content) == (304, b"")


async def test_what_the_files_name_is_there(client: httpx.AsyncClient) -> None:
    """Every script and style that the page or a module names is served, and every module is named by something."""
    named = set()
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8")
        named |= set(re.findall(r'(?:src|href)="(/page/[^"]+)"', text))
        named |= {f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', text)}

    assert named == {path for path in PATHS if path.startswith("/page/")}
