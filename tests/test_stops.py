"""SIGTERM in every moment: what has begun is finished, nothing more is begun, and no process stays."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from tests.patience import until
from tests.services import Service, stand_in_process

pytestmark = pytest.mark.slow
# Of a request at the stand-in, and of a task.
LATENCY_SECONDS = 3


class Tasks:
    """Callers who begin tasks again and again, each on a connection that it keeps; when each was accepted."""

    def __init__(self, service: Service) -> None:
        self.accepted: list[float] = []
        self.refused = 0
        self._service = service
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        request = urllib.request.Request(
            f"{self._service.address}/v1/images/generations/async",
            json.dumps({"prompt": "a banana"}).encode(),
            {"Content-Type": "application/json"},
        )
        while not self._ended.wait(0.05):
            with suppress(OSError):
                try:
                    with urllib.request.urlopen(request, timeout=10):
                        self.accepted.append(time.monotonic())
                except urllib.error.HTTPError as error:
                    self.refused += error.code == 503

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.mark.parametrize("moment", ["running", "replacing", "replacing by restart.sh"])
def test_a_stop_finishes_what_runs_and_begins_nothing(tmp_path: Path, moment: str) -> None:
    """Also while workers are replaced: the replacing ends, a request in flight is answered, no task is begun any more."""
    with stand_in_process(LATENCY_SECONDS) as google:
        service = Service(
            tmp_path / "service", gemini_api_key="k", gemini_base_url=google, workers=3, rate_limit_per_minute=10**6
        )
        started = service.run("start.sh")
        assert started.returncode == 0, started.stdout + started.stderr
        parent, old = service.pid(), service.workers()
        answers: list[int] = []

        def ask() -> None:
            request = urllib.request.Request(f"{service.address}/generate", b'{"prompt":"a banana"}')
            with urllib.request.urlopen(request, timeout=60) as response:
                answers.append(len(json.load(response)["images"]))

        tasks = Tasks(service)
        until(lambda: tasks.accepted)
        asking = threading.Thread(target=ask)
        asking.start()
        restart = None
        if moment == "replacing":
            os.kill(parent, signal.SIGHUP)
        elif moment != "running":
            restart = threading.Thread(target=service.run, args=("restart.sh",))
            restart.start()
        if moment != "running":  # a new worker is there, and an old one finishes what it has
            until(lambda: set(service.workers()) - set(old))
        else:
            time.sleep(0.5)
        stopped_at = time.monotonic()
        os.kill(parent, signal.SIGTERM)
        until(lambda: not service.processes())
        tasks.end()
        asking.join()
        if restart:
            restart.join()

    late = [at - stopped_at for at in tasks.accepted if at > stopped_at + 0.5]  # the response was on its way
    assert not late, late
    assert answers == [1]


def test_signals_to_replace_are_one_round(tmp_path: Path) -> None:
    """Five at once: each worker is replaced once."""
    with stand_in_process(0) as google:
        service = Service(tmp_path / "service", gemini_api_key="k", gemini_base_url=google, workers=2)
        started = service.run("start.sh")
        assert started.returncode == 0, started.stdout + started.stderr
        old = set(service.workers())
        for _ in range(5):
            os.kill(service.pid(), signal.SIGHUP)
        until(lambda: len(set(service.workers()) - old) == 2 and not old & set(service.workers()))
        new = set(service.workers())
        until(lambda: sum(line["event"] == "started" for line in service.log()) >= 4)
        time.sleep(3)  # in which another round would have begun
        again = set(service.workers())
        service.run("stop.sh")

    assert again == new


@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.5])
def test_a_stop_while_it_starts_leaves_nothing(tmp_path: Path, seconds: float) -> None:
    """Whatever had begun by then."""
    service = Service(tmp_path / "service", workers=4)
    running = threading.Thread(target=service.run, args=("start.sh", "--demo"))
    running.start()
    pid_file = service.folder / ".state/banana.pid"
    until(lambda: pid_file.exists() and pid_file.read_text())
    time.sleep(seconds)
    os.kill(service.pid(), signal.SIGTERM)
    running.join(60)
    until(lambda: not service.processes())
