"""How workers begin."""

import os
import signal
import socket

import pytest
import uvicorn

from banana.http import workers
from banana.http.workers import Workers


class Worker:
    """Stands for a process; writes down what happens to it."""

    story: list[str] = []

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        pass

    def start(self) -> None:
        self.story.append("start")

    def wait_until_ready(self, timeout: float) -> bool:
        self.story.append("wait")
        return False  # and nobody is held up for ever


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens; the signals of this process stay as they are."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(workers, "Process", Worker)
    monkeypatch.setattr(Worker, "story", [])
    return Worker.story


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(4, ["start"] * 4), (8, ["start"] * 4), (2, ["start", "start", "wait", "start", "start"]),
     (1, ["start", "wait", "start", "wait", "start", "wait", "start"])],
)  # fmt: skip
def test_as_many_begin_at_a_time_as_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, story: list[str], cores: int, expected: list[str]
) -> None:
    """Those behind them when they are ready."""
    monkeypatch.setattr(workers, "cores", lambda: cores)

    Workers(uvicorn.Config("main:application", workers=4, log_config=None), []).init_processes()

    assert story == expected


def test_a_signal_ends_the_waiting(monkeypatch: pytest.MonkeyPatch, story: list[str]) -> None:
    """It is looked at when all were started: that is at once."""
    monkeypatch.setattr(workers, "cores", lambda: 1)
    supervisor = Workers(uvicorn.Config("main:application", workers=3, log_config=None), [])
    supervisor.signal_queue.append(signal.SIGTERM)

    supervisor.init_processes()

    assert story == ["start"] * 3


def test_cores_are_those_that_this_process_may_use() -> None:
    """At least one, and no more than the machine has."""
    assert 1 <= workers.cores() <= (os.cpu_count() or 1)
