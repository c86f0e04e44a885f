"""How workers begin, are replaced and end; that signals are heeded in every moment is tried by tests/test_stops.py."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from banana.server import workers
from banana.server.workers import Workers


class Pipe:
    """A worker that answers whether it serves."""

    def __init__(self, is_ready: bool) -> None:
        self._is_ready = is_ready

    def send(self, _: bytes) -> None:
        pass

    def poll(self, _: float) -> bool:
        return True

    def recv(self) -> bool:
        return self._is_ready


class Worker:
    """Stands for a process; writes down what happens to it."""

    story: list[str] = []
    is_ready = True
    on_start: Any = staticmethod(lambda _: None)

    def __init__(self, config: uvicorn.Config, sockets: list[Any]) -> None:
        self.pid = sum(line.startswith("start") for line in self.story) + 1
        self.exitcode = None
        self.process = self
        self.parent_conn = Pipe(self.is_ready)
        self._lives = True

    def is_alive(self) -> bool:
        return self._lives

    def start(self) -> None:
        self.story.append(f"start {self.pid}")
        self.on_start(self)

    def terminate(self) -> None:
        self.story.append(f"end {self.pid}")
        self._lives = False

    def kill(self) -> None:
        self.story.append(f"kill {self.pid}")
        self._lives = False

    def join(self, timeout: float | None = None) -> None:
        pass


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens; the signals of this process stay as they are."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(workers, "Process", Worker)
    monkeypatch.setattr("uvicorn.supervisors.multiprocess.Process", Worker)
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0)
    monkeypatch.setattr(Worker, "story", [])
    return Worker.story


def supervisor(count: int) -> Workers:
    settings = uvicorn.Config("main:app", workers=count, log_config=None)
    return Workers(settings, [], SimpleNamespace(value=0), lambda why: None)


def test_each_worker_that_began_before_a_signal_is_replaced_once(story: list[str]) -> None:
    """However many came: one that comes while they are replaced is for those that began before it."""
    parent = supervisor(3)
    parent.init_processes()
    parent.replace(signal.SIGHUP, None)
    parent.replace(signal.SIGHUP, None)
    parent.handle_signals()
    parent.handle_signals()

    assert story[3:] == ["start 4", "end 1", "start 5", "end 2", "start 6", "end 3"]


def test_a_worker_that_is_not_ready_replaces_none(monkeypatch: pytest.MonkeyPatch, story: list[str]) -> None:
    """The restart is given up, and the old ones serve on."""
    parent = supervisor(2)
    parent.config.timeout_worker_healthcheck = 0
    parent.init_processes()
    monkeypatch.setattr(Worker, "is_ready", False)
    parent.replace(signal.SIGHUP, None)
    parent.handle_signals()
    parent.handle_signals()

    assert story[2:] == ["start 3", "kill 3"]


def test_a_signal_to_stop_ends_a_replacement(monkeypatch: pytest.MonkeyPatch, story: list[str]) -> None:
    """Also while the new worker does not answer."""
    parent = supervisor(2)
    parent.init_processes()
    monkeypatch.setattr(Worker, "is_ready", False)
    monkeypatch.setattr(Worker, "on_start", staticmethod(lambda _: parent.stop(signal.SIGTERM, None)))
    parent.replace(signal.SIGHUP, None)
    parent.handle_signals()
    parent.handle_signals()
    parent.terminate_all()

    assert story[2:] == ["start 3", "kill 3", "end 1", "end 2"]


def test_a_worker_that_has_died_is_replaced(story: list[str]) -> None:
    """And one that lives is not."""
    parent = supervisor(2)
    parent.init_processes()
    parent.processes[0].kill()
    parent.keep_subprocess_alive()
    parent.keep_subprocess_alive()

    assert story[2:] == ["kill 1", "kill 1", "start 3"]
