"""The README: both halves say the same, and what it prints is what one gets."""

import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import config
from banana import app, errors, metrics
from banana.exchange import Exchange
from banana.results import upkeep
from tests.patience import until
from tests.services import ROOT, Service, needs

README = (ROOT / "README.md").read_text(encoding="utf-8")
ENGLISH, CHINESE = README.split("\n## 中文\n")
BOTH_HALVES = pytest.mark.parametrize("half", [ENGLISH, CHINESE], ids=["english", "chinese"])


def shape_of(half: str) -> list[str]:
    """Headings by level, code blocks, table rows and list items: what must be equal in both."""
    return re.findall(r"^(###|```\w*|\||- )", half, re.MULTILINE)


def test_both_halves_have_the_same_parts() -> None:
    """Chinese and English have the same headings, tables and examples."""
    assert shape_of(ENGLISH) == shape_of(CHINESE)


@BOTH_HALVES
def test_every_error_is_told(half: str) -> None:
    """Both halves' tables hold every leaf of the error tree, with its status."""
    told = {(int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", half, re.MULTILINE)}

    def leaves(kind: type[errors.BananaError]) -> Iterator[tuple[int, str]]:
        yield kind.status, kind.code
        for child in kind.__subclasses__():
            yield from leaves(child)

    assert told == set(leaves(errors.BananaError))


def examples_of(half: str) -> list[tuple[str, str]]:
    """Every command of the console examples, in the order of the page, with what it prints."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", half, re.DOTALL))
    return re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)


def script_of(half: str) -> str:
    """The Python examples, one after the other, as one program."""
    return "\n".join(re.findall(r"```python\n(.*?)```", half, re.DOTALL))


def untracked(folder: Path) -> list[str]:
    """What git would call untracked there, if the project were checked out in that folder."""
    command = "git init --quiet . && git ls-files --others --exclude-standard"
    ran = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that is not started yet, in a folder of its own; it is stopped in the end."""
    made = Service(tmp_path / "service", workers=2)
    yield made
    made.run("stop.sh")
    assert made.processes() == []


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that is not the service's, with the project's .gitignore."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy2(ROOT / ".gitignore", folder)
    return folder


@needs("curl")
@needs("git")
@pytest.mark.slow
@BOTH_HALVES
def test_every_example_gives_what_is_printed(half: str, service: Service, elsewhere: Path) -> None:
    """Each command, run as printed in the order of the page, prints what the page prints, and leaves no file that git sees."""
    examples = examples_of(half)
    before = untracked(service.folder)
    assert [command for command, _ in examples[:2]] == ["./start.sh --demo", "./test_request.sh"]
    assert len(examples) >= 17
    run_examples(half, service, elsewhere)

    assert untracked(service.folder) == before
    assert untracked(elsewhere) == [".gitignore"]


def run_examples(half: str, service: Service, folder: Path) -> None:
    """Run each command as printed, in the order of the page: it succeeds and prints what the page prints."""
    for command, output in examples_of(half):
        if command.startswith("./"):
            ran = service.run(*command.removeprefix("./").split())
            assert set(output.splitlines()) <= set(ran.stdout.splitlines())
        else:
            here = command.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
            if command.startswith("grep "):  # in the log, where the line of a request comes after its response
                until(partial(prints, folder, here, output))
            ran = run_in(folder, here)
            assert ran.stdout.rstrip() == output.rstrip(), f"{here}\n{ran.stderr}"
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"


def run_in(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60)


def prints(folder: Path, command: str, output: str) -> bool:
    return run_in(folder, command).stdout.rstrip() == output.rstrip()


@pytest.mark.slow
@BOTH_HALVES
def test_the_python_examples_make_pictures(half: str, demo: Service, elsewhere: Path) -> None:
    """Run one after the other as one program, they end well, and each file that they write is a picture."""
    (elsewhere / "test_pictures").mkdir()
    script = script_of(half).replace("127.0.0.1:8000", f"127.0.0.1:{demo.port}")
    ran = subprocess.run([sys.executable, "-c", script], cwd=elsewhere, capture_output=True, text=True, timeout=120)

    assert ran.returncode == 0, ran.stderr
    for name in ("openai.jpg", "google.jpg"):
        Image.open(elsewhere / "test_pictures" / name).load()
    assert untracked(elsewhere) == [".gitignore"]


@BOTH_HALVES
def test_the_house_is_drawn_as_it_stands(half: str) -> None:
    """Every folder and every module of banana is in the drawing, each in its place, and nothing that is not there."""
    drawing = re.findall(r"```\nmain\.py .*?```", half, re.DOTALL)[0]
    rooms = re.findall(r"^  (\w+)/ (.*?)(?=^ {0,2}\w)", drawing, re.MULTILINE | re.DOTALL)
    # Modules of a room stand between dots; the first of them may follow a sentence.
    drawn = {
        f"{room}/{name}" for room, text in rooms for pair in re.findall(r"(\w+) · (?=(\w+))", text) for name in pair
    }
    drawn |= set(re.findall(r"^  (\w+)\.py ", drawing, re.MULTILINE))
    modules = (path.relative_to(ROOT / "banana").with_suffix("") for path in ROOT.glob("banana/**/*.py"))

    assert drawn == {str(module) for module in modules if module.name != "__init__"}


ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def test_the_architecture_names_what_is_there() -> None:
    """Both halves have the same steps, and every module in them exists."""
    english, chinese = ARCHITECTURE.split("\n## 中文\n")
    named = set(re.findall(r"(?<![/\w])(?:http|routes|results|google|admission|payload)/\w+", ARCHITECTURE))

    assert len(re.findall(r"^\*\*\d\.", english, re.MULTILINE)) == len(re.findall(r"^\*\*\d\.", chinese, re.MULTILINE))
    assert len(named) > 12
    assert {name for name in named if not (ROOT / "banana" / f"{name}.py").is_file()} == set()


def test_the_security_page_says_the_same_in_both_languages() -> None:
    """The same headings and rows, and every setting in it exists."""
    english, chinese = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("\n## 中文\n")
    names = [set(re.findall(r"`([A-Z_]{5,})`", half)) for half in (english, chinese)]

    assert shape_of(english) == shape_of(chinese)
    assert names[0] == names[1] <= {name.upper() for name in config.Settings.model_fields}


@pytest.mark.parametrize("page", ["clients", "costs", "machines", "deploy", "operate"])
def test_a_page_says_the_same_in_both_languages(page: str) -> None:
    """The same headings, rows and examples."""
    english, chinese = halves_of(page)

    assert shape_of(english) == shape_of(chinese)


def halves_of(page: str) -> list[str]:
    return (ROOT / f"docs/{page}.md").read_text(encoding="utf-8").split("\n## 中文\n")


@needs("curl")
@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1], ids=["english", "chinese"])
@pytest.mark.parametrize(("page", "count"), [("deploy", 3), ("operate", 5)])
def test_every_example_of_a_page_gives_what_is_printed(page: str, count: int, half: int, demo: Service) -> None:
    """As in the README."""
    assert len(examples_of(halves_of(page)[half])) == count
    # The demo has a ledger of its own.
    run_examples(halves_of(page)[half].replace("'.state/ledger.db'", "'.state/demo/ledger.db'"), demo, demo.folder)


@pytest.mark.parametrize("page", ["deploy", "operate"])
def test_links_between_the_pages_lead_somewhere(page: str) -> None:
    """Every file that a link names is there, and so is every heading, as GitHub writes its anchor."""
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", text)

    assert len(targets) > 15
    for name, anchor in targets:
        file = ROOT / "docs" / (name or f"{page}.md")
        assert file.is_file(), name
        assert not anchor or anchor in anchors_of(file.read_text(encoding="utf-8")), f"{name}#{anchor}"


def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings; of those that are equal the second ends with -1."""
    names = [
        re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    ]
    return {name if names.index(name) == i else f"{name}-1" for i, name in enumerate(names)}


def named_by_alerts() -> set[str]:
    return set(re.findall(r"- alert: (\w+)", (ROOT / "ops/prometheus-rules.yml").read_text(encoding="utf-8")))


def named_by_metrics() -> set[str]:
    return set(re.findall(r'"(banana_\w+)"', inspect.getsource(metrics)))


def named_by_readiness() -> set[str]:
    """Reasons, and parts that work with less, where they are made."""
    reasons = re.findall(r'reasons\.append\("(.*)"\)', inspect.getsource(app))
    parts = re.findall(r'"(\w+)": \w+\.(?:degraded|fails)', inspect.getsource(app))
    return {*reasons, *parts, *re.findall(r'return \["(\w+)"\]', inspect.getsource(upkeep)), "metrics"}


def named_by_the_log() -> set[str]:
    """Fields of a request's line, and events that are a warning or worse."""
    fields = re.findall(r'"(\w+)": ', inspect.getsource(Exchange.log_fields))
    sources = [path.read_text(encoding="utf-8") for path in (*ROOT.glob("banana/**/*.py"), ROOT / "main.py")]
    events = re.findall(r'\blog\.(?:warning|error|exception)\(\s*"(\w+)"', "\n".join(sources))
    return {*fields, *events, "request", "upstream_attempt", "carried_out"}


@pytest.mark.parametrize("half", [0, 1], ids=["english", "chinese"])
@pytest.mark.parametrize(
    ("names", "count"),
    [(named_by_alerts, 11), (named_by_metrics, 24), (named_by_readiness, 7), (named_by_the_log, 47)],
)
def test_the_page_for_operators_explains_everything_by_name(
    names: Callable[[], set[str]], count: int, half: int
) -> None:
    """Every alert, every series, every reason and part of /ready, every field and warning of the log."""
    assert len(names()) >= count
    assert {name for name in names() if f"`{name}`" not in halves_of("operate")[half]} == set()


@pytest.mark.parametrize("half", [0, 1], ids=["english", "chinese"])
def test_messages_that_operators_look_up_are_said_somewhere(half: int) -> None:
    """What the page quotes of messages stands in the code that prints them."""
    section = re.split(r"^### ", halves_of("operate")[half], flags=re.MULTILINE)
    (starts,) = (part for part in section if part.startswith(("It does not start", "无法启动")))
    (symptoms,) = (part for part in section if part.startswith(("By symptom", "按现象排查")))
    quoted = [
        text for row in re.findall(r"^\| (`.*?) \| ", starts, re.MULTILINE) for text in re.findall(r"`(.*?)`", row)
    ]
    quoted += [text for words in re.findall(r"“(.*?)”", symptoms) for text in words.split(" … ")]
    files = [*ROOT.glob("banana/**/*.py"), *ROOT.glob("*.py"), *ROOT.glob("*.sh"), *ROOT.glob("scripts/*")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)

    assert len(quoted) > 25
    assert [text for text in quoted if text not in code] == []


def test_the_clients_that_are_tried_at_every_run_are_those_of_the_checks() -> None:
    """Each library that docs/clients.md marks with a star is installed by the checks."""
    page = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
    starred = [line for line in page.splitlines() if line.endswith("| client * |")]
    packages = " ".join(
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("tests/npm/package.json", "tests/clients/requirements.in", "pyproject.toml")
    )

    assert len(starred) == 9
    for name in (
        "openai",
        "google-genai",
        "@google/genai",
        "litellm",
        "langchain-openai",
        "openai-agents",
        "@ai-sdk/google",
        "@ai-sdk/openai",
        "@openrouter/ai-sdk-provider",
    ):
        assert name in packages
