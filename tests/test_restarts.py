"""Restarts, crashes and stops under load: nothing is lost but what a killed worker held."""

import collections
import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.services import Service, stand_in_process

pytestmark = pytest.mark.slow


@pytest.fixture
def google() -> Iterator[str]:
    """The stand-in as a process of its own, answering at once; its base URL."""
    with stand_in_process(latency_seconds=0) as base_url:
        yield base_url


def service_of(folder: Path, google: str, **settings: object) -> Service:
    service = Service(
        folder / "service", gemini_api_key="k", gemini_base_url=google, rate_limit_per_minute=10**6, **settings
    )
    started = service.run("start.sh")
    assert started.returncode == 0, started.stdout + started.stderr
    return service


def ask(service: Service, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)) as connection:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()


class Load:
    """Callers who ask again and again: half of them on connections they keep, half on new ones."""

    def __init__(self, port: int, callers: int = 8) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._port = port
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n % 2 == 0,)) for n in range(callers)]
        for thread in self._threads:
            thread.start()

    def _ask(self, keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._ended.is_set():
            try:
                connection.request("POST", "/generate", b'{"prompt":"x"}')
                response = connection.getresponse()
                whole = json.loads(response.read())
                self.outcomes[str(response.status) if "images" in whole else "error"] += 1
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.outcomes[repr(error)] += 1
                connection.close()
            if not keep:
                connection.close()
        connection.close()

    def end(self) -> dict[str, int]:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        return dict(self.outcomes)

    def reach(self, count: int) -> None:
        while self.outcomes.total() < count:
            time.sleep(0.02)


@pytest.mark.parametrize("workers", [4, 1])
def test_restarts_under_load_lose_nothing(tmp_path: Path, google: str, workers: int) -> None:
    """Three restarts while 5,000 requests pass, with four workers and with one: no request fails."""
    service = service_of(tmp_path, google, workers=workers)
    parent = service.pid()
    load = Load(service.port)
    try:
        for number in range(1, 4):
            load.reach(1000 * number)
            service.write_version(f"9.9.{number}")
            restarted = service.run("restart.sh")
            assert restarted.returncode == 0, restarted.stdout + restarted.stderr
            assert "Replacing" in restarted.stdout
        load.reach(5000)
    finally:
        outcomes = load.end()
    version = service.version()
    same_parent = service.pid() == parent
    service.run("stop.sh")

    assert set(outcomes) == {"200"}, outcomes
    assert version == "9.9.3"
    assert same_parent
    assert service.processes() == []


def test_broken_code_is_not_restarted_into(tmp_path: Path, google: str) -> None:
    """A restart whose code or settings are broken says so and leaves the service as it was."""
    service = service_of(tmp_path, google, workers=1)
    (service.folder / "banana/google/slots.py").write_text("this is no Python\n")

    restarted = service.run("restart.sh")
    status, _ = ask(service, "POST", "/generate", b'{"prompt":"x"}')
    service.run("stop.sh")

    assert restarted.returncode == 1
    assert "keeps running with its old code and settings" in restarted.stderr
    assert status == 200


def test_a_killed_worker_is_replaced(tmp_path: Path, google: str) -> None:
    """Kill -9 of one of two workers: the other serves on, and soon there are two again (after 1 s on an idle machine)."""
    service = service_of(tmp_path, google, workers=2)

    before = service.workers()
    service.kill_worker()
    status, _ = ask(service, "GET", "/health")
    service.run("stop.sh")

    assert len(before) == 2
    assert status == 200


def test_four_workers_let_exactly_the_rate_limit_through(tmp_path: Path, google: str) -> None:
    """200 requests at once at 60 a minute: 60 pass and 140 are told to wait, whichever worker they met."""
    service = service_of(tmp_path, google, workers=4)
    service.set(port=service.port, workers=4, gemini_api_key="k", gemini_base_url=google, rate_limit_per_minute=60)
    assert service.run("restart.sh").returncode == 0
    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(lambda _: ask(service, "POST", "/generate", b"{}")[0], range(200)))
    service.run("stop.sh")
    failed = [line for line in service.log() if line["event"] == "store_failed"]

    assert collections.Counter(statuses) == {422: 60, 429: 140}
    assert not failed
