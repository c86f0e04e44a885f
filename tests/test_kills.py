"""Kills under keyed load: whatever died, no key is paid twice, and what is finished is replayed."""

import collections
import http.client
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.counting_google import Google
from tests.patience import until
from tests.services import Service

pytestmark = pytest.mark.slow
KEYS = 40
# Before the key, which the ledger does hold.
PROMPT = "a picture for"
SEED = int(os.environ.get("KILLS_SEED", "12"))
# Of a picture, and the most it may cost with the prompts here.
COST_USD, LIMIT_USD = 0.137116, 0.19


@pytest.fixture
def google() -> Iterator[Google]:
    server = Google(SEED)
    yield server
    server.stop()


FORMS: dict[str, Callable[[str], dict[str, Any]]] = {
    "/generate": lambda prompt: {"prompt": prompt},
    "/v1/chat/completions": lambda prompt: {"messages": [{"role": "user", "content": prompt}]},
    "/v1/responses": lambda prompt: {"input": prompt, "store": True},
}


def path_of(key: str) -> str:
    """One API format after the other."""
    return list(FORMS)[int(key.rpartition("-")[2]) % len(FORMS)]


def ask(
    service: Service, method: str, path: str, key: str = "", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Send one request, for as long as the service is away too."""
    body = json.dumps(FORMS[path](f"{PROMPT} {key}")).encode() if key else None
    given = ({"Idempotency-Key": key} if key else {}) | (headers or {})
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=40)) as connection:
        connection.request(method, path, body, given)
        response = connection.getresponse()
        return response.status, response.read()


def first_answer(service: Service, key: str) -> bytes | None:
    """Ask once; None when the connection died."""
    with suppress(OSError, http.client.HTTPException):
        status, body = ask(service, "POST", path_of(key), key)
        return body if status == 200 else None
    return None


def settled(service: Service, key: str) -> tuple[int, bytes]:
    """Repeat until it is known what became of a key."""
    for _ in range(60):
        with suppress(OSError, http.client.HTTPException):
            status, body = ask(service, "POST", path_of(key), key)
            if status in (200, 424, 502):
                return status, body
        time.sleep(0.5)
    raise AssertionError(f"{key} was never settled")


def usage_when_settled(service: Service) -> float:
    """What the caller has spent of its budget, when nothing is reserved any more."""
    for _ in range(120):
        data = json.loads(ask(service, "GET", "/v1/key")[1])["data"]
        if data["limit_remaining"] == round(data["limit"] - data["usage"], 6):
            return float(data["usage"])
        time.sleep(0.5)
    raise AssertionError("something stays reserved")


def test_no_key_is_paid_twice_whatever_is_killed(tmp_path: Path, google: Google) -> None:
    """Workers and then everything, with SIGKILL at random moments; every key is repeated until settled."""
    chance = random.Random(SEED)
    service = Service(
        tmp_path / "service", gemini_api_key="k", gemini_base_url=google.base_url, rate_limit_per_minute=10**6,
        workers=4, request_timeout_seconds=30, retries=0, budgets="*=1000/day",
    )  # fmt: skip
    assert service.run("start.sh").returncode == 0
    keys = [f"key-{number}" for number in range(KEYS)]
    with ThreadPoolExecutor(8) as callers:
        first = [callers.submit(first_answer, service, key) for key in keys]
        for _ in range(4):
            time.sleep(chance.uniform(0.1, 0.6))
            if alive := service.workers():
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(alive), signal.SIGKILL)
        time.sleep(chance.uniform(0.1, 0.6))
        for pid in service.processes():  # parent and workers, as when the power goes
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        answers = [future.result() for future in first]
    assert service.run("start.sh").returncode == 0
    try:
        with ThreadPoolExecutor(8) as callers:
            results = list(callers.map(lambda key: settled(service, key), keys))
            again = list(callers.map(lambda key: settled(service, key), keys))
        usage = usage_when_settled(service)
    finally:
        service.run("stop.sh")

    assert {key: count for key, count in google.calls.items() if count > 1} == {}, f"seed {SEED}"
    assert [result[1] for result in again] == [result[1] for result in results]
    for key, answered, (status, body) in zip(keys, answers, results, strict=True):
        if answered is not None:
            assert (status, body) == (200, answered), f"{key} was answered, and not replayed"
        assert status == 200 or json.loads(body)["error"]["code"] == "outcome_unknown", body
    assert sum(status == 200 for status, _ in results) > KEYS / 3, "the kills left nothing to replay"
    assert len(google.calls) * COST_USD <= usage <= KEYS * LIMIT_USD, (
        "each call that arrived is charged, and each key once"
    )


def test_tasks_survive_a_kill_and_a_stop(tmp_path: Path, google: Google) -> None:
    """Begun and killed: each is carried out or told unknown within 15 s of the next start; none is paid twice."""
    service = Service(
        tmp_path / "service", gemini_api_key="k", gemini_base_url=google.base_url, rate_limit_per_minute=10**6,
        workers=1, max_connections=2, retries=0,
    )  # fmt: skip
    assert service.run("start.sh").returncode == 0
    asynchronous = {"Prefer": "respond-async"}

    def begun(numbers: range) -> list[str]:
        return [json.loads(ask(service, "POST", "/generate", f"task-{n}", asynchronous)[1])["id"] for n in numbers]

    tasks = begun(range(4))
    for task in tasks:
        ask(service, "GET", f"/v1/images/tasks/{task}?wait=30")
    google.latency_seconds = 60
    tasks += begun(range(4, 12))
    until(lambda: len(google.calls) == 6)  # two are at Google, and the others wait
    for pid in service.processes():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not service.processes())  # else start.sh may still find it running
    google.latency_seconds = 0
    assert service.run("start.sh").returncode == 0
    began = time.monotonic()
    try:
        found = [json.loads(ask(service, "GET", f"/v1/images/tasks/{task}?wait=30")[1]) for task in tasks]
        seconds = time.monotonic() - began
    finally:
        stopped = service.run("stop.sh")

    statuses = collections.Counter(task["status"] for task in found)
    assert set(statuses) <= {"completed", "failed"}, statuses
    assert statuses["completed"] >= len(tasks) - 2, "what was not sent is carried out"
    assert all(task["error"]["code"] == "outcome_unknown" for task in found if task["status"] == "failed")
    assert {key: count for key, count in google.calls.items() if count > 1} == {}
    assert seconds < 60, "a machine twice as slow; here some 12 s"
    assert stopped.returncode == 0


def test_a_restart_and_a_stop_finish_tasks(tmp_path: Path, google: Google) -> None:
    """What runs is carried out by the worker that has it; afterwards it is there."""
    service = Service(
        tmp_path / "service",
        gemini_api_key="k",
        gemini_base_url=google.base_url,
        rate_limit_per_minute=10**6,
        workers=2,
    )
    assert service.run("start.sh").returncode == 0
    asynchronous = {"Prefer": "respond-async"}
    tasks = [json.loads(ask(service, "POST", "/generate", f"first-{n}", asynchronous)[1])["id"] for n in range(6)]
    restarted = service.run("restart.sh")
    tasks += [json.loads(ask(service, "POST", "/generate", f"later-{n}", asynchronous)[1])["id"] for n in range(6)]
    stopped = service.run("stop.sh")
    assert service.run("start.sh").returncode == 0
    found = [json.loads(ask(service, "GET", f"/v1/images/tasks/{task}")[1]) for task in tasks]
    service.run("stop.sh")

    assert (restarted.returncode, stopped.returncode) == (0, 0)
    assert {task["status"] for task in found} == {"completed"}
    assert set(google.calls.values()) == {1}
    kept = [service.folder / ".state" / name for name in ("ledger.db", "results")]
    kept += (service.folder / ".state/results").rglob("*")
    assert {path.name: oct(path.stat().st_mode) for path in kept if path.stat().st_mode & 0o077} == {}
    assert not re.search(PROMPT.encode(), (service.folder / ".state/ledger.db").read_bytes()), "no prompt in the ledger"
