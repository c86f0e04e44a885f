"""The house: imports run down, foreign parts stay in their rooms, settings are told everywhere."""

import ast
import re
from pathlib import Path

import pytest

import config

ROOT = Path(__file__).parent.parent
# Each floor may import from the floors below it, and from its neighbours named here.
FLOORS = [
    {"main"},
    {"banana.app"},
    {"banana.routes"},
    {"banana.relay"},
    {"banana.upstream", "banana.ratelimit", "banana.answers", "banana.bodies", "banana.conversion"},
    {
        "banana.asgi",
        "banana.gemini",
        "banana.keys",
        "banana.slots",
        "banana.store",
        "banana.protocol",
        "banana.forms",
        "banana.repeats",
    },
    {"banana.pictures", "banana.callers", "banana.metrics"},
    {"banana.skeleton"},
    {"banana.errors", "banana.logs", "banana.memory"},
]
# main configures the log of the parent process; the routes are handed the types of what app wires.
MODULES = sorted([*ROOT.glob("banana/**/*.py"), ROOT / "main.py", ROOT / "config.py"])


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def floor_of(name: str) -> int | None:
    return next(
        (n for n, rooms in enumerate(FLOORS) if any(name == r or name.startswith(f"{r}.") for r in rooms)), None
    )


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_down_only(path: Path) -> None:
    """No module imports from its own floor or from one above."""
    own = floor_of(name_of(path))
    if own is None:
        assert name_of(path) in ("banana", "config")
        own = len(FLOORS)
    for imported in imports_of(path):
        floor = floor_of(imported)
        assert floor is None or floor > own, f"{name_of(path)} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_foreign_parts_stay_in_their_rooms(path: Path) -> None:
    """Only upstream knows the HTTP client, only main and app the settings, and nobody here the stand-in."""
    name, top_level = name_of(path), {imported.split(".")[0] for imported in imports_of(path)}

    assert name == "banana.upstream" or not top_level & {"httpx", "aiohttp", "httpx_aiohttp"}
    assert name in ("main", "banana.app") or "config" not in top_level
    assert "standin" not in top_level


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_environment_is_read_in_one_place(path: Path) -> None:
    """Nobody but config reads the environment; main writes to it, for its workers, and reads nothing."""
    text = path.read_text(encoding="utf-8")

    assert not re.search(r"getenv|environ\.get|environ\[[^]]+\](?! = )|dotenv", text) or name_of(path) == "config"


def test_the_stand_in_imports_nothing_of_ours() -> None:
    """One misreading of Google's API cannot pass in both."""
    for path in ROOT.glob("standin/**/*.py"):
        assert not {name for name in imports_of(path) if name.split(".")[0] in ("banana", "config", "main")}


def settings_in(text: str, pattern: str) -> list[str]:
    return re.findall(pattern, text, re.MULTILINE)


def test_every_setting_is_told_everywhere_in_one_order() -> None:
    """config.py, .env.example and both halves of the README name the same settings in the same order."""
    expected = [name.upper() for name in config.Settings.model_fields]
    english, chinese = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## 中文\n")

    assert settings_in((ROOT / ".env.example").read_text(encoding="utf-8"), r"^#?([A-Z][A-Z_]+)=") == expected
    for half in (english, chinese):
        assert settings_in(half, r"^\| `([A-Z][A-Z_]+)` \|") == expected


def test_the_example_holds_the_defaults() -> None:
    """A copy of .env.example changes nothing."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8")
    given = dict(line.lstrip("#").split("=", 1) for line in lines.splitlines() if re.match(r"#?[A-Z_]+=", line))

    defaults = config.Settings(_env_file=None, demo=True)  # type: ignore[call-arg]
    shown = config.Settings(_env_file=None, **{k.lower(): v for k, v in given.items() if v} | {"demo": True})  # type: ignore[arg-type,call-arg]

    assert shown == defaults
