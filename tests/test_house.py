"""The house: imports run down, foreign parts stay in their rooms and closed, settings are documented."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import config

ROOT = Path(__file__).parent.parent
# Each floor imports from the floors below it; a room with several modules also from itself.
FLOORS = [
    {"main"},
    {"banana.launcher"},
    {"banana.app"},
    {"banana.routes"},
    {"banana.results"},
    {"banana.images"},
    {"banana.google", "banana.admission"},
    {"banana.http"},
    {"banana.server"},
    {"banana.payload", "banana.ledger"},
    {"banana.exchange", "banana.errors", "banana.logs", "banana.metrics", "banana.database", "banana.tracing"},
    {"banana.money", "banana.intervals"},
]
MODULES = sorted([*ROOT.glob("banana/**/*.py"), ROOT / "main.py", ROOT / "config.py"])
# The whole project but its tests.
OURS = sorted([*MODULES, *(path for part in ("standin", "bench", "scripts") for path in ROOT.glob(f"{part}/*.py"))])
# uvicorn's protocol has no public way to let a retiring worker answer what already reached it.
PRIVATE_PARTS_OF_LIBRARIES = {"banana.server.protocol"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def room_of(name: str) -> tuple[int, str] | None:
    """The floor and the room of a module, None where it is not of the house."""
    for floor, rooms in enumerate(FLOORS):
        for room in rooms:
            if name == room or name.startswith(f"{room}."):
                return floor, room
    return None


def may_import(importer: str, imported: str) -> bool:
    own, other = room_of(importer), room_of(imported)
    if other is None:
        return True
    if own is None:  # banana itself, and config: they import nothing of the house
        return False
    return other[0] > own[0] or (other == own and other[1] != importer)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_down_only(path: Path) -> None:
    """No module imports from a floor above, nor from another room of its own floor."""
    for imported in imports_of(path):
        assert may_import(name_of(path), imported), f"{name_of(path)} imports {imported}"


def test_the_rule_of_floors_can_fail() -> None:
    """Up, sideways and into oneself are wrong; down and within a room are right."""
    wrong = [("banana.http.bodies", "banana.images"), ("banana.google.keys", "banana.admission.rate"),
             ("banana.errors", "banana.logs"), ("config", "banana.logs")]  # fmt: skip
    right = [("banana.images", "banana.google.client"), ("banana.google.client", "banana.google.keys"), ("main", "x")]

    assert not any(may_import(*pair) for pair in wrong)
    assert all(may_import(*pair) for pair in right)


def test_no_module_imports_itself_by_way_of_others() -> None:
    """There is no cycle, inside a room either."""
    names = {name_of(path) for path in MODULES}
    below = {name_of(path): imports_of(path) & names for path in MODULES}

    def reaches(name: str, goal: str, seen: set[str]) -> bool:
        fresh = below[name] - seen
        seen |= fresh
        return goal in fresh or any(reaches(other, goal, seen) for other in fresh)

    assert [name for name in names if reaches(name, name, set())] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_foreign_parts_stay_in_their_rooms(path: Path) -> None:
    """Only the two ends know HTTP's parser, only the launcher and app the settings, and nobody the stand-in."""
    name, top_level = name_of(path), {imported.split(".")[0] for imported in imports_of(path)}

    assert name in ("banana.google.connection", "banana.server.protocol") or "httptools" not in top_level
    assert name in ("banana.launcher", "banana.app") or "config" not in top_level
    assert "standin" not in top_level


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_environment_is_read_in_one_place(path: Path) -> None:
    """Nobody but config reads the environment; the launcher writes to it, for its workers, and reads nothing."""
    text = path.read_text(encoding="utf-8")

    assert not re.search(r"getenv|environ\.get|environ\[[^]]+\](?! = )|dotenv", text) or name_of(path) == "config"


def test_the_stand_in_imports_nothing_of_ours() -> None:
    """One misreading of Google's API cannot pass in both."""
    for path in ROOT.glob("standin/**/*.py"):
        assert not {name for name in imports_of(path) if name.split(".")[0] in ("banana", "config", "main")}


def foreign_private_attributes(tree: ast.Module) -> list[str]:
    """Every `x._y` whose `_y` this module does not define itself."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and is_self(node.value)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    private = [node for node in attributes if node.attr.startswith("_") and not node.attr.endswith("__")]
    return [f"{node.attr} in line {node.lineno}" for node in private if node.attr not in own]


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


@pytest.mark.parametrize("path", [*OURS, *sorted(ROOT.glob("tests/**/*.py"))], ids=name_of)
def test_libraries_are_used_by_their_public_interface(path: Path) -> None:
    """No module, and no test, uses a private attribute of what is not its own."""
    if name_of(path) not in PRIVATE_PARTS_OF_LIBRARIES:
        assert foreign_private_attributes(tree_of(path)) == []


def test_the_search_for_private_attributes_finds_them() -> None:
    """One of a library is found, written to as well; one's own is not."""
    text = "class A:\n    def __init__(self): self._own = 1\n    def f(self, x): x._foreign = self._own; self._base()"

    assert foreign_private_attributes(ast.parse(text)) == ["_foreign in line 3", "_base in line 3"]


def numbered_placeholders(tree: ast.Module) -> list[str]:
    """Every `?1` of SQL; those of this project stand nowhere else."""
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [found for text in texts for found in re.findall(r"\?\d", text)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_sql_has_no_numbered_placeholders(path: Path) -> None:
    """Python 3.12.0 to 3.12.3 warn of every value for a `?1`; `?` works everywhere."""
    assert numbered_placeholders(tree_of(path)) == []


def test_the_search_for_numbered_placeholders_finds_them() -> None:
    """One in a text is found, in an f-string as well; a plain one is not."""
    text = 'a = "x = ?1"\nb = f"{a} AND y = ?2"\nc = "z = ?"'

    assert numbered_placeholders(ast.parse(text)) == ["?1", "?2"]


def settings_in(text: str, pattern: str) -> list[str]:
    return re.findall(pattern, text, re.MULTILINE)


def test_every_setting_is_documented_everywhere_in_one_order() -> None:
    """.env.example and both halves of the README have the settings of config.py, in one order: that of a person who sets them."""
    english, chinese = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## 中文\n")
    example = settings_in((ROOT / ".env.example").read_text(encoding="utf-8"), r"^#?([A-Z][A-Z0-9_]+)=")

    assert sorted(example) == sorted(name.upper() for name in config.Settings.model_fields)
    for half in (english, chinese):
        assert settings_in(half, r"^\| `([A-Z][A-Z0-9_]+)` \|") == example


def test_the_example_holds_the_defaults() -> None:
    """A copy of .env.example changes nothing."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8")
    given = dict(line.lstrip("#").split("=", 1) for line in lines.splitlines() if re.match(r"#?[A-Z_]+=", line))

    defaults = config.Settings(_env_file=None, demo=True)  # type: ignore[call-arg]
    shown = config.Settings(_env_file=None, **{k.lower(): v for k, v in given.items() if v} | {"demo": True})  # type: ignore[arg-type,call-arg]

    assert shown == defaults
