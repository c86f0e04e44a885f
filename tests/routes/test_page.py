"""The page's files; the page in a browser: test_browser."""

import re

import httpx
import pytest

from banana import errors
from banana.routes.page import FOLDER, TYPES, router

pytestmark = pytest.mark.anyio
# Keys that are put together: `error_` and a code, `state_` and a state.
BY_PREFIX = {"error", "todo", "state", "trouble", "example"}
# The page takes care of these itself, or they are no picture's.
NOT_OF_PICTURES = {
    "unauthorized", "rate_limited", "idempotency_mismatch", "in_progress", "precondition_failed", "not_found",
    "method_not_allowed", "bad_signature",
}  # fmt: skip
PATHS = [route.path for route in router.routes]  # type: ignore[attr-defined]


def codes(kind: type[errors.BananaError] = errors.BananaError) -> set[str]:
    """The codes of an error and of all that are made from it."""
    return {kind.code}.union(*(codes(other) for other in kind.__subclasses__()))


def loaded_at_once(name: str = "index.html") -> set[str]:
    """The files that a visit needs, by what each names; not what is imported when it is wanted."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    named = set(re.findall(r'(?:src|href)="/page/([^"]+)"|from "\./([^"]+)"', text))
    names = {first or second for first, second in named}
    return {name}.union(*(loaded_at_once(other) for other in names if other.endswith(".js")), names)


async def test_the_page_is_small(client: httpx.AsyncClient) -> None:
    """A visit in one language loads less than 100 KB; everything, in both, is less than 60 KB as it is sent."""
    first = loaded_at_once() | {"words-en.js"}
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.suffix in TYPES}
    parts = [await client.get(path) for path in PATHS]

    assert len(first) >= 15
    assert sum(sizes[name] for name in first) < 100_000
    assert all(part.headers["content-encoding"] == "gzip" for part in parts)
    assert sum(int(part.headers["content-length"]) for part in parts) < 60_000


@pytest.mark.parametrize("path", PATHS)
async def test_every_file_is_closed_to_the_rest_of_the_web(client: httpx.AsyncClient, path: str) -> None:
    """A strict policy, no cookie, its true type; asked for again, it is 304."""
    part = await client.get(path)
    again = await client.get(path, headers={"If-None-Match": part.headers["etag"]})
    plain = await client.get(path, headers={"Accept-Encoding": "identity", "If-None-Match": part.headers["etag"]})

    assert part.status_code == 200
    assert "default-src 'none'" in part.headers["content-security-policy"]
    assert "unsafe" not in part.headers["content-security-policy"]
    assert part.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in part.headers
    assert (again.status_code, again.content) == (304, b"")
    assert (plain.status_code, plain.content) == (200, part.content)
    assert "content-encoding" not in plain.headers


async def test_what_the_files_name_is_there() -> None:
    """Every script and style that the page or a module names is served, and every module is named by something."""
    named = set()
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8")
        named |= set(re.findall(r'(?:src=|href=|href: )"(/page/[^"]+)"', text))
        named |= {f"/page/{name}" for name in re.findall(r'(?:from |import\()"\./([^"]+)"', text)}

    assert named == {path for path in PATHS if path.startswith("/page/")}


def words_of(language: str) -> dict[str, str]:
    text = (FOLDER / f"words-{language}.js").read_text(encoding="utf-8")
    return dict(re.findall(r'^  (\w+):\s+"(.*)",$', text, re.MULTILINE))


def test_both_languages_say_everything() -> None:
    """Each word that a file names is there in both, with the same places to fill in; and none that nothing names."""
    english, chinese = words_of("en"), words_of("zh")
    text = "\n".join(file.read_text(encoding="utf-8") for file in FOLDER.iterdir() if not file.name.startswith("words"))
    named = set(re.findall(r'\b(?:text|counted)\(\s*"(\w+)"|data-(?:text|label|placeholder)="(\w+)"', text))
    keys = {one or other for one, other in named}
    ones = {key for key in english if key.endswith("_one") and key[:-4] in english}

    assert set(chinese) - english.keys() == set()
    assert english.keys() - chinese.keys() <= ones
    assert keys - english.keys() == set()
    for key, words in chinese.items():
        assert sorted(re.findall(r"\{\d\}", words)) == sorted(re.findall(r"\{\d\}", english[key])), key
    for key in english.keys() - ones:
        assert key in keys or re.search(rf"\b{key}\b", text) or key.partition("_")[0] in BY_PREFIX, (
            f"nothing says {key}"
        )
    assert not re.search("[\u4e00-\u9fff]", text.replace("中文", ""))


def test_every_error_is_explained() -> None:
    """What happened and what to do, for each code that a picture can fail with."""
    words = words_of("en")
    explained = {key.removeprefix("error_") for key in words if key.startswith("error_")}

    assert explained == {key.removeprefix("todo_") for key in words if key.startswith("todo_")}
    assert codes() - explained <= NOT_OF_PICTURES
