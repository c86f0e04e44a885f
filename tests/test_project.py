"""What an open project has beside its code: the page for contributors says the same twice, and names what is there."""

import re
import tomllib

import pytest

from tests.services import ROOT

ENGLISH, CHINESE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## 中文\n")


def shape_of(half: str) -> list[str]:
    """Headings, code blocks, rows and list items, numbered ones too."""
    return re.findall(r"^(###| *```\w*|\||- |\d\. )", half, re.MULTILINE)


def code_of(half: str) -> list[str]:
    return re.findall(r"```\w+\n.*?```", half, re.DOTALL)


def test_the_page_for_contributors_says_the_same_in_both_languages() -> None:
    """The same headings, steps and rows, and the same code."""
    assert shape_of(ENGLISH) == shape_of(CHINESE)
    assert code_of(ENGLISH) == code_of(CHINESE)


@pytest.mark.parametrize("half", [ENGLISH, CHINESE], ids=["english", "chinese"])
def test_the_page_for_contributors_names_what_is_there(half: str) -> None:
    """Every file that it names exists, but the two of the example; so does every page that it links to."""
    files = set(re.findall(r"`(?:\./)?((?:[\w.]+/)*[\w.]+\.(?:py|sh|toml|yml|md|example))`", half))
    pages = set(re.findall(r"\]\((\w[^)#]*)", half))

    assert len(files) >= 12
    assert {name for name in files | pages if not (ROOT / name).is_file()} == {
        "banana/routes/postcards.py",
        "tests/routes/test_postcards.py",
    }


def test_the_workflow_tries_every_python_that_the_project_is_for() -> None:
    """From the oldest that pyproject.toml allows to the one of the image."""
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    images = set(re.findall(r"^FROM python:([\d.]+)-slim", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M))
    (tried,) = re.findall(r"python: \[(.*)\]", workflow)
    versions = re.findall(r"[\d.]+", tried)

    assert project["requires-python"] == f">={versions[0]}"
    assert images == {versions[-1]}
