"""Two services as two machines, on one Redis and one S3: one ledger, one budget, one picture; whatever fails."""

import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.bad_road import BadRoad
from tests.counting_google import Google
from tests.patience import until
from tests.redis_server import RedisServer
from tests.s3_server import BUCKET, S3Server
from tests.services import Service, needs

pytestmark = [pytest.mark.slow, needs("redis-server")]
# Of a picture.
COST_USD = 0.137116
SEED = int(os.environ.get("MACHINES_SEED", "15"))
# In which a killed machine's keys are to be settled, on a machine twice as slow as one that takes 20 s.
SETTLED_SECONDS = 40


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Machines:
    """Two services, what they share, and the roads to it."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.google = Google()
        self.redis = RedisServer(folder)
        self.s3 = S3Server()
        self.road_to_s3 = BadRoad(self.s3.port)
        self.both = [
            Service(
                folder / name, gemini_api_key="k", gemini_base_url=self.google.base_url, retries=0,
                store_url=self.redis.url, results_url=f"s3://{BUCKET}/kept", request_timeout_seconds=30,
                **{"workers": 2, "rate_limit_per_minute": 10**6} | settings, **self.s3.variables_through(self.road_to_s3.port),
            )
            for name in ("one", "other")
        ]  # fmt: skip

    @property
    def one(self) -> Service:
        return self.both[0]

    @property
    def other(self) -> Service:
        return self.both[1]

    def start(self) -> None:
        for service in self.both:
            started = service.run("start.sh")
            assert started.returncode == 0, started.stdout + started.stderr

    def stop(self) -> None:
        self.redis.go_on()
        for service in self.both:
            service.run("stop.sh")
        self.road_to_s3.close()
        self.redis.kill()
        self.s3.stop()
        self.google.stop()


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[Machines]:
    machines = Machines(folder, **settings)
    try:
        machines.start()
        yield machines
    finally:
        machines.stop()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """For tests that leave nothing behind but their own keys."""
    with running(tmp_path_factory.mktemp("machines")) as machines:
        yield machines


def ask(service: Service, method: str, path: str, body: object = None, **headers: str) -> Answer:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
        connection.request(method, path, json.dumps(body).encode() if body is not None else None, given)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def generate(service: Service, key: str, path: str = "/generate") -> Answer:
    """Ask for a picture; its prompt is the key, by which Google counts."""
    return ask(service, "POST", path, {"prompt": key}, Idempotency_Key=key)


def task_on(service: Service, key: str) -> str:
    begun = ask(service, "POST", "/v1/images/generations/async", {"prompt": key}, Idempotency_Key=key)
    assert begun.status == 202, begun.body
    return f"/v1/images/tasks/{begun.json['id']}"


def settled(service: Service, key: str, path: str = "/generate") -> Answer:
    """Repeat until it is known what became of a key."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            answer = generate(service, key, path)
            if answer.status in (200, 410, 424, 502):
                return answer
        time.sleep(0.2)
    raise AssertionError(f"{key} was never settled")


def kill(service: Service) -> None:
    """All of it at once, as when the power goes."""
    for pid in service.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def fetched(service: Service, link: str) -> Answer:
    """Follow a link, which names any host, through a service to S3."""
    path = "/results/" + link.partition("/results/")[2]
    redirect = ask(service, "GET", path)
    assert redirect.status == 302, redirect.body
    address = redirect.headers["location"].partition("//")[2]
    host, _, rest = address.partition("/")
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        connection.request("GET", f"/{rest}")
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())


def test_the_same_key_at_both_at_once_is_one_call(machines: Machines) -> None:
    """Whoever comes second waits for the first one's picture, byte for byte; a third is given it later."""
    keys = [f"both-{number}" for number in range(12)]
    with ThreadPoolExecutor(24) as callers:
        first = [callers.submit(generate, machines.one, key) for key in keys]
        second = [callers.submit(generate, machines.other, key) for key in keys]
        pairs = [(one.result(), other.result()) for one, other in zip(first, second, strict=True)]

    for key, (one, other) in zip(keys, pairs, strict=True):
        assert (one.status, other.status) == (200, 200), key
        assert one.body == other.body == generate(machines.other, key).body
        assert machines.google.calls[key] == 1
        assert sorted("idempotent-replayed" in answer.headers for answer in (one, other)) == [False, True]
    assert ask(machines.other, "POST", "/generate", {"prompt": "x"}, Idempotency_Key=keys[0]).status == 422


def test_a_task_begun_here_is_read_there(machines: Machines) -> None:
    """Polled, waited for, listed, and its picture fetched by a link of either, which lead to S3."""
    place = task_on(machines.one, "task-here")
    ended = ask(machines.other, "GET", f"{place}?wait=30").json
    again = ask(machines.one, "GET", place).json
    listed = ask(machines.other, "GET", "/v1/images/tasks").json["data"]

    assert (ended["status"], again["status"]) == ("completed", "completed")
    assert ended["id"] in [task["id"] for task in listed]
    for reader, link in ((machines.one, ended), (machines.other, again)):
        picture = fetched(reader, link["result"]["data"][0]["url"])
        assert (picture.status, picture.headers["content-type"]) == (200, "image/png")


def test_a_task_begun_here_is_cancelled_there(machines: Machines) -> None:
    """Its call to Google ends."""
    machines.google.latency_seconds = 30
    try:
        place = task_on(machines.one, "task-cancelled")
        until(lambda: machines.google.calls["task-cancelled"] == 1)
        assert ask(machines.other, "DELETE", place).status == 204
        until(lambda: machines.google.left["task-cancelled"] == 1)
    finally:
        machines.google.latency_seconds = 0

    assert ask(machines.one, "GET", place).json["status"] == "cancelled"
    assert generate(machines.one, "other-key").status == 200


def test_a_response_goes_on_there(machines: Machines) -> None:
    """What a conversation refers to was made on the other machine."""
    body = {"input": "a boat", "store": True}
    first = ask(machines.one, "POST", "/v1/responses", body).json
    second = ask(machines.other, "POST", "/v1/responses", {"input": "at night", "previous_response_id": first["id"]})

    assert second.status == 200, second.body


def test_a_killed_machines_keys_are_settled_by_the_other(tmp_path: Path) -> None:
    """What was sent is unknown, what was not is carried out there; nothing is paid twice."""
    with running(tmp_path, workers=1, max_connections=4, max_waiting=100) as machines:
        machines.google.latency_seconds = 60
        tasks = [task_on(machines.one, f"killed-{number}") for number in range(12)]
        until(lambda: len(machines.google.calls) == 4)
        kill(machines.one)
        sent = set(machines.google.calls)
        machines.google.latency_seconds = 0

        def known() -> list[str]:
            statuses = [ask(machines.other, "GET", place).json["status"] for place in tasks]
            return [status for status in statuses if status != "processing"]

        began = time.monotonic()
        until(lambda: len(known()) == len(tasks), SETTLED_SECONDS)
        seconds = time.monotonic() - began
        keys = [f"killed-{number}" for number in range(12)]
        answers = {key: settled(machines.other, key, "/v1/images/generations") for key in keys}

    assert {known_codes(answers[key]) for key in sent} <= {"outcome_unknown", ""}
    assert all(answer.status == 200 for key, answer in answers.items() if key not in sent)
    assert set(machines.google.calls.values()) == {1}
    print(f"settled after {seconds:.1f} s")


def known_codes(answer: Answer) -> str:
    return "" if answer.status == 200 else str(answer.json["error"]["code"])


def test_rate_limit_and_budget_are_exact_over_both(tmp_path: Path) -> None:
    """As if it were one machine: not one request more, and not one picture, as long as Redis answers in time."""
    assert any(are_exact_over_both(tmp_path / str(attempt)) for attempt in range(5))


def are_exact_over_both(folder: Path) -> bool:
    """Check it; False where this machine was so busy that a worker counted by itself for want of an answer of Redis."""
    folder.mkdir()
    with running(folder, rate_limit_per_minute=40, budgets="*=1/day") as machines:

        def one_of_many(number: int) -> Answer:
            return ask(machines.both[number % 2], "POST", "/generate", {"prompt": f"n{number}"})

        with ThreadPoolExecutor(80) as callers:  # all of them within the minute
            answers = list(callers.map(one_of_many, range(80)))
        statuses = [answer.status for answer in answers]
        usage_when_settled(machines.one)
        one, other = usage(machines.one), usage(machines.other)
        if any("store_failed" in (service.folder / "logs" / "app.log").read_text() for service in machines.both):
            return False

    made = statuses.count(200)
    assert (statuses.count(429), made + statuses.count(402)) == (40, 40)
    assert made == sum(machines.google.calls.values())
    assert one == other
    assert one["usage"] == pytest.approx(made * COST_USD, abs=1e-6)
    # What is reserved for those in flight is not there for others: 5 fit at once.
    assert 5 <= made <= 6
    return True


def usage(service: Service) -> Any:
    return ask(service, "GET", "/v1/key").json["data"]


def degraded(service: Service) -> set[str]:
    """What any of the workers says; each answers for itself."""
    return {name for _ in range(8) for name in ask(service, "GET", "/ready").json["degraded"]}


def test_a_redis_that_stops_costs_no_picture(tmp_path: Path) -> None:
    """What runs reaches its caller, and is replayed later; unkeyed requests go on, keyed ones are refused before they cost."""
    with running(tmp_path) as machines:
        assert generate(machines.one, "before").status == 200
        machines.google.latency_seconds = 3
        with ThreadPoolExecutor(4) as callers:
            running_ones = [callers.submit(generate, service, f"during-{service.port}") for service in machines.both]
            until(lambda: len(machines.google.calls) == 3)
            machines.redis.kill()
            answers = [answer.result() for answer in running_ones]
        machines.google.latency_seconds = 0
        keyed = generate(machines.one, "refused")
        unkeyed = ask(machines.one, "POST", "/generate", {"prompt": "unkeyed"})
        until(lambda: degraded(machines.one) == {"store", "ledger"})
        machines.redis.start()
        until(lambda: not degraded(machines.one) | degraded(machines.other))
        replays = [settled(machines.one, f"during-{service.port}") for service in machines.both]

    assert [answer.status for answer in answers] == [200, 200]
    assert (keyed.status, unkeyed.status) == (503, 200)
    assert [replay.body for replay in replays] == [answer.body for answer in answers]
    assert machines.google.calls == {"before": 1, "unkeyed": 1} | {f"during-{s.port}": 1 for s in machines.both}


def test_a_redis_that_is_silent_holds_nobody_up_for_long(tmp_path: Path) -> None:
    """Fifty keyed requests wait for it together, not one after the other; afterwards everything works again."""
    with running(tmp_path) as machines:
        assert generate(machines.one, "before").status == 200
        machines.redis.pause()
        began = time.monotonic()
        with ThreadPoolExecutor(52) as callers:
            keyed = [callers.submit(generate, machines.one, f"silent-{number}") for number in range(50)]
            unkeyed = callers.submit(ask, machines.one, "POST", "/generate", {"prompt": "unkeyed"})
            assert unkeyed.result().status == 200
            unkeyed_seconds = time.monotonic() - began
            statuses = {answer.result().status for answer in keyed}
        seconds = time.monotonic() - began
        machines.redis.go_on()
        until(lambda: not degraded(machines.one) | degraded(machines.other))
        later = settled(machines.other, "silent-0")

    assert statuses == {503}
    assert later.status == 200
    assert unkeyed_seconds < 15
    assert seconds < 30, seconds
    assert machines.google.calls == {"before": 1, "unkeyed": 1, "silent-0": 1}


def test_a_redis_that_comes_back_empty_loses_no_picture_in_hand(tmp_path: Path) -> None:
    """What runs is recorded anew; what had ended is forgotten, as docs/machines.md says."""
    with running(tmp_path) as machines:
        assert generate(machines.one, "before").status == 200
        machines.google.latency_seconds = 3
        with ThreadPoolExecutor(2) as callers:
            asked = callers.submit(generate, machines.one, "during")
            until(lambda: machines.google.calls["during"] == 1)
            machines.redis.empty()
            answer = asked.result()
        machines.google.latency_seconds = 0
        replay, forgotten = generate(machines.other, "during"), generate(machines.other, "before")

    assert (answer.status, replay.body) == (200, answer.body)
    assert forgotten.status == 200
    assert machines.google.calls == {"before": 2, "during": 1}


def test_an_s3_that_is_away_costs_no_picture(tmp_path: Path) -> None:
    """Callers have theirs, as base64; a task waits for S3 with its picture in hand; what was asked for is never paid again."""
    with running(tmp_path) as machines:
        before = generate(machines.one, "before")
        machines.road_to_s3.cut()
        keyed = generate(machines.one, "away")
        linked = ask(machines.one, "POST", "/generate", {"prompt": "linked", "response_format": "url"})
        replay, gone = generate(machines.other, "before"), generate(machines.other, "away")
        refused = ask(machines.one, "POST", "/v1/images/generations/async", {"prompt": "refused"})
        machines.google.latency_seconds = 2
        machines.road_to_s3.mend()
        place = task_on(machines.one, "task")
        until(lambda: machines.google.calls["task"] == 1)
        machines.road_to_s3.cut()
        waiting = ask(machines.other, "GET", f"{place}?wait=6").json
        machines.road_to_s3.mend()
        ended = ask(machines.other, "GET", f"{place}?wait=40").json
        until(lambda: not degraded(machines.one) | degraded(machines.other))
        later = generate(machines.other, "before")

    assert (before.status, keyed.status, linked.status) == (200, 200, 200)
    assert keyed.json["images"][0].startswith("iVBOR")
    assert not linked.json["images"][0].startswith("http")
    assert (replay.status, gone.status, refused.status) == (503, 410, 503)
    assert (waiting["status"], ended["status"]) == ("processing", "completed")
    assert later.body == before.body
    assert machines.google.calls == {"before": 1, "away": 1, "linked": 1, "task": 1}


def test_an_s3_that_is_silent_holds_a_picture_up_no_longer_than_said(tmp_path: Path) -> None:
    """It reaches its caller after ten seconds, and not after minutes."""
    with running(tmp_path) as machines:
        held = machines.road_to_s3.held
        machines.road_to_s3.cut()
        machines.road_to_s3.mend()
        machines.road_to_s3.hold()
        began = time.monotonic()
        answer = generate(machines.one, "silent")
        seconds = time.monotonic() - began
        machines.road_to_s3.held.set()
        held.set()

    assert answer.status == 200
    assert answer.json["images"][0].startswith("iVBOR")
    assert seconds < 28, seconds
    assert machines.google.calls == {"silent": 1}


def test_no_key_is_paid_twice_whatever_fails(tmp_path: Path) -> None:
    """Workers and whole machines killed, Redis stopped and killed, S3 cut off, at random moments; every key is asked at both."""
    chance = random.Random(SEED)
    keys = [f"storm-{number}" for number in range(40)]
    with running(tmp_path, budgets="*=1000/day") as machines:
        is_over = threading.Event()

        def trouble() -> None:
            while not is_over.wait(chance.uniform(0.2, 0.8)):
                match chance.choice(["worker", "redis", "pause", "s3"]):
                    case "worker":
                        alive = chance.choice(machines.both).workers()
                        with suppress(ProcessLookupError, IndexError):
                            os.kill(chance.choice(alive), signal.SIGKILL)
                    case "redis":
                        machines.redis.kill()
                        machines.redis.start()
                    case "pause":
                        machines.redis.pause()
                        time.sleep(1)
                        machines.redis.go_on()
                    case "s3":
                        machines.road_to_s3.cut()
                        time.sleep(0.5)
                        machines.road_to_s3.mend()

        def first(number: int) -> Answer | None:
            with suppress(OSError, http.client.HTTPException):
                answer = generate(machines.both[number % 2], keys[number // 2])
                return answer if answer.status == 200 else None
            return None

        troubles = threading.Thread(target=trouble)
        troubles.start()
        with ThreadPoolExecutor(10) as callers:
            answers = list(callers.map(first, range(80)))
        is_over.set()
        troubles.join()
        kill(machines.one)
        with ThreadPoolExecutor(8) as callers:
            results = list(callers.map(lambda key: settled(machines.other, key), keys))
        spent = usage_when_settled(machines.other)
        started = machines.one.run("start.sh")
        again = [settled(machines.one, key) for key in keys]

    assert started.returncode == 0
    assert {key: count for key, count in machines.google.calls.items() if count > 1} == {}, f"seed {SEED}"
    assert [one.body for one in again] == [one.body for one in results]
    for number, answer in enumerate(answers):
        result = results[number // 2]
        if answer is not None:
            assert result.status == 410 or result.body == answer.body, keys[number // 2]
    assert sum(result.status == 200 for result in results) > len(keys) / 3
    assert len(machines.google.calls) * COST_USD <= spent <= len(keys) * 0.19


def usage_when_settled(service: Service) -> float:
    """What was spent, when nothing is reserved any more."""
    until(lambda: usage(service)["limit_remaining"] == round(usage(service)["limit"] - usage(service)["usage"], 6), 90)
    return float(usage(service)["usage"])
