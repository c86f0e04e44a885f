"""Whole services for tests: a copy of the project in a folder of its own, driven by its own scripts."""

import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.patience import lines_of, matching, until

ROOT = Path(__file__).parent.parent
REPLACED_SECONDS = 90
"""uvicorn replaces a killed worker at once, but for a kill in the moment of its health check: then when that is over, after 30 s."""
SYSTEMS_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
# The ports that were given out are held in UDP, where nobody wants them, so that no other process of tests is given them.
_held: list[socket.socket] = []


@contextmanager
def stand_in_process(latency_seconds: float) -> Iterator[str]:
    """The stand-in as a process of its own; yields its base URL."""
    command = [sys.executable, "-m", "standin", "--latency-seconds", str(latency_seconds), "--until-eof"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:  # it ends with its standard input
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def free_port() -> int:
    """A port that nobody listens on, nor will before it is used: the system gives it to no connection, and no test has it."""
    lowest_of_system = int(SYSTEMS_PORTS.read_text().split()[0]) if SYSTEMS_PORTS.exists() else 49_152
    ports = range(10_000, lowest_of_system if lowest_of_system > 20_000 else 60_000)
    while True:
        port = random.SystemRandom().choice(ports)
        held = socket.socket(type=socket.SOCK_DGRAM)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            held.bind(("127.0.0.1", port))
            _held.append(held)
            return port
        held.close()


def listens(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def project_files() -> list[str]:
    """The project's files, relative to its folder: what git knows and what is new; all but what is made, without git."""
    with suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "ls-files", "-co", "--exclude-standard"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    made = {
        ".git",
        "venv",
        ".venv",
        ".state",
        "test_pictures",
        "__pycache__",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".hypothesis",
    }
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [str(path) for path in paths if not made & set(path.parts) and str(path) not in (".env", "logs/app.log")]


@cache
def _environment() -> Path:
    """A virtual environment, made once: its packages are those of the one that runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="banana-venv-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(Path(sys.prefix).glob("lib/python*/site-packages"))
    next(folder.glob("lib/python*/site-packages")).joinpath("tests.pth").write_text(str(site))
    for name in ("requirements.txt", "requirements-all.txt"):
        shutil.copy2(ROOT / name, folder / f"installed-{name}")
    return folder


class Service:
    """The project, copied as git would clone it, with the virtual environment of the tests already in place."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.token = ""
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        for name in project_files():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self.set(port=self.port, **settings)
        self._link_environment()

    def _link_environment(self) -> None:
        """Give it a venv whose python is another name for the one that runs the tests."""
        shutil.copytree(_environment(), self.folder / "venv", symlinks=True)

    def set(self, **settings: object) -> None:
        """Write the settings to .env."""
        lines = [f"{name.upper()}={value}\n" for name, value in settings.items()]
        (self.folder / ".env").write_text("".join(lines), encoding="utf-8")

    def write_version(self, version: str) -> None:
        """Change the code: from its next start on, a worker is of this version."""
        (self.folder / "banana/__init__.py").write_text(f'__version__ = "{version}"\n')

    def version(self) -> str | None:
        """The version of the worker that answers; None where none does."""
        try:
            with urllib.request.urlopen(f"{self.address}/openapi.json", timeout=20) as response:
                version: str = json.load(response)["info"]["version"]
        except OSError:
            return None
        return version

    def run(
        self, script: str, *arguments: str, timeout: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts to its end."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.run(
            [f"./{script}", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=timeout,
            env=kept | environment, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pid(self) -> int:
        """The id of the parent process."""
        return int((self.folder / ".state/banana.pid").read_text().split()[0])

    def processes(self) -> list[int]:
        """Every process that runs this folder's Python."""
        mine = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(str(self.folder / "venv/bin/python").encode()):
                mine.append(int(entry.name))
        return mine

    def workers(self) -> list[int]:
        """The processes that serve."""
        found = []
        for pid in self.processes():
            with suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def kill_worker(self) -> None:
        """Kill one of the workers, and wait until another has taken its place."""
        killed, *others = self.workers()
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(set(self.workers()) - {killed}) > len(others), REPLACED_SECONDS)

    def log(self) -> list[dict[str, Any]]:
        """The log as far as it is written, every line parsed: all of it when the service has stopped, else see `logged`."""
        return lines_of(self.folder / "logs/app.log")

    def logged(self, is_meant: Callable[[dict[str, Any]], object], count: int = 1) -> list[dict[str, Any]]:
        """The lines of the log that are meant, when there are `count`: a line is written when its response has been sent."""
        return until(lambda: matching(is_meant, count, self.folder / "logs/app.log"))


def needs(command: str) -> pytest.MarkDecorator:
    """Skip where `command` is not installed, with that reason; in CI its absence is an error instead."""
    missing = shutil.which(command) is None
    if missing and os.environ.get("CI"):
        raise RuntimeError(f"{command} is not installed, and CI skips nothing")
    return pytest.mark.skipif(missing, reason=f"{command} is not installed")


def needs_answer(command: str, *arguments: str) -> pytest.MarkDecorator:
    """Skip where `command` is installed and does not work, as docker without its daemon; in CI that is an error instead."""
    if shutil.which(command) is None:
        return pytest.mark.skipif(True, reason=f"{command} is not installed")
    ran = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    if ran.returncode != 0 and os.environ.get("CI"):
        raise RuntimeError(f"{command} does not work, and CI skips nothing: {ran.stderr}")
    words = f"{command} {' '.join(arguments)} fails: {ran.stderr.strip().splitlines()[-1:]}"
    return pytest.mark.skipif(ran.returncode != 0, reason=words)
