"""The recipes of docs/clients.md: the code as printed, with the unmodified client, through an edit of its own result."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.services import ROOT, Service
from tests.test_clients import installed as python_installed
from tests.test_npm import installed as javascript_installed

pytestmark = pytest.mark.slow
# What the recipes end with: an image as base64, a data URI, bytes, or a list of files.
SHOWN = {
    "python": "\nprint(image[:3] if isinstance(image, bytes) else image.rpartition(',')[2][:4])",
    "js": ('\nconst made = typeof image === "undefined" ? files[0].base64 : image;\nconsole.log(made.slice(0, 4));'),
}
# Of an image that came back as input, as the demo counts it: 560, and the rest differs by some words.
IMAGE_TOKENS = 500


class Recipe(NamedTuple):
    """A block of code."""

    client: str
    language: str
    code: str


def recipes(half: str) -> list[Recipe]:
    """Every block of code of a half of the document, by the first thing it imports of others."""
    found = []
    for language, code in re.findall(r"```(python|js)\n(.*?)```", half, re.DOTALL):
        imported = re.search(r'^(?:from|import) (?!asyncio|base64)(\w+)|from "([^"]+)"', code, re.MULTILINE)
        assert imported
        found.append(Recipe(imported[1] or imported[2], language, code))
    return found


HALVES = (ROOT / "docs/clients.md").read_text(encoding="utf-8").split("\n## 中文\n")
RECIPES = recipes(HALVES[0])


def without_words(code: str) -> str:
    """Code without its strings and comments."""
    return re.sub(r"(#|//) .*", "", re.sub(r'"[^"]*"', '""', code))


def test_both_halves_have_the_same_recipes() -> None:
    """But for the words in them: what holds for one holds for the other."""
    english, chinese = ([(recipe.client, without_words(recipe.code)) for recipe in recipes(half)] for half in HALVES)

    assert english == chinese
    assert len(english) >= 10


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.client for recipe in RECIPES])
def test_a_recipe_edits_its_own_result(recipe: Recipe, demo: Service, tmp_path: Path) -> None:
    """Two calls, the second with the image of the first; it ends with an image."""
    code = recipe.code.replace("HOST:8000", f"127.0.0.1:{demo.port}") + SHOWN[recipe.language]
    if recipe.language == "python":
        command: list[str | Path] = [python_installed(), "-c", code]
    else:
        (tmp_path / "node_modules").symlink_to(javascript_installed())
        (tmp_path / "recipe.mjs").write_text(code, encoding="utf-8")
        command = [Path(sys.prefix) / "bin/node", "recipe.mjs"]
    before = len(calls(demo))
    # Nothing is asked of another host.
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "AI_SDK_LOG_WARNINGS": "false"}
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path, check=False
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert ran.stdout.strip().splitlines()[-1] in ("/9j/", r"b'\xff\xd8\xff'"), ran.stdout
    demo.logged(lambda line: line["event"] == "request" and line["path"] != "/health", before + 2)
    first, second = calls(demo)[before:]
    assert second["tokens"] >= first["tokens"] + IMAGE_TOKENS


def calls(service: Service) -> list[dict[str, Any]]:
    """The requests that were made of a service."""
    return [line for line in service.log() if line["event"] == "request" and line["path"] != "/health"]
