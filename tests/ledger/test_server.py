"""The Redis that machines share: bad roads to it, what it keeps, and its versions."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from banana.ledger import server
from banana.ledger.ledger import LedgerError, State
from banana.ledger.redis import RedisLedger
from banana.ledger.server import LedgerServer, batches
from banana.ledger.spend import Spent, Window, day_of
from tests.bad_road import BadRoad
from tests.ledger.entries import ENTRY, LATER, TASK
from tests.redis_server import RedisServer
from tests.services import free_port, needs

pytestmark = needs("redis-server")


@pytest.fixture
def empty_redis(redis: RedisServer) -> RedisServer:
    redis.empty()
    return redis


@pytest.fixture
def road(empty_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadRoad]:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.3)
    road = BadRoad(empty_redis.port)
    yield road
    road.close()


def test_a_change_that_arrives_late_is_not_made(road: BadRoad) -> None:
    """Its sender gave it up, and has taken back since what may have come of it."""
    ledger = RedisLedger(f"redis://127.0.0.1:{road.port}")
    ledger.beat("w1")
    held = road.held
    road.hold()
    with pytest.raises(LedgerError):
        ledger.spend.reserve("r", "w1", "ann", 5, 10, Window.DAY)
    road.stop_holding_new()
    ledger.spend.settle("r", 0)
    road.release(held)

    assert ledger.spend.spent("ann") == Spent()
    ledger.close()


def test_a_change_whose_reply_was_lost_is_made_once(road: BadRoad) -> None:
    """It is sent again; sums are added once, and who cancelled is told that it did."""
    ledger = RedisLedger(f"redis://127.0.0.1:{road.port}")
    today = day_of(LATER - 3600)

    def loses_the_reply() -> RedisLedger:
        road.lost_replies = 1
        return ledger

    ledger.begin(TASK)
    loses_the_reply().spend.add([("ann", today, 3)])
    loses_the_reply().spend.reserve("r", "w1", "ann", 5, 10, Window.DAY)
    assert loses_the_reply().spend.take_room("room", "w1", "key", 5, 5) == 0
    held = loses_the_reply().begin(ENTRY)
    assert loses_the_reply().mark_sent(ENTRY.id, "w1")
    cancelled = loses_the_reply().cancel(TASK.id, "ann", b"[]", LATER)

    assert (ledger.spend.spent("ann").ever, ledger.spend.spent("ann").reserved_day) == (3, 5)
    assert held is ENTRY
    assert cancelled is not None
    assert ledger.get([TASK.id])[0].state is State.CANCELLED
    assert road.lost_replies == 0
    ledger.close()


def test_a_connection_that_was_closed_costs_nothing(empty_redis: RedisServer) -> None:
    """Idle ones are, by balancers and restarts: the next change opens another."""
    ledger = RedisLedger(empty_redis.url)
    ledger.begin(ENTRY)
    empty_redis.close_connections()

    assert ledger.mark_sent(ENTRY.id, "w1")
    ledger.close()


def test_a_server_without_memory_changes_nothing_by_halves(empty_redis: RedisServer) -> None:
    """The change is refused whole, and possible again when there is room."""
    ledger = RedisLedger(empty_redis.url)
    empty_redis.configure("maxmemory", "1")
    try:
        with pytest.raises(LedgerError, match=r"OutOfMemory|OOM"):
            ledger.begin(ENTRY)
    finally:
        empty_redis.configure("maxmemory", "0")

    assert ledger.find("ann", "k") is None
    assert ledger.begin(ENTRY) is ENTRY
    ledger.close()


def test_a_server_that_is_not_there_is_an_error_and_may_come(redis: RedisServer) -> None:
    """At once, not after long; the start does not fail for it."""
    ledger = RedisLedger(f"redis://u:hunter2@127.0.0.1:{free_port()}")
    ledger.check()

    with pytest.raises(LedgerError) as refusal:
        ledger.begin(ENTRY)
    assert "hunter2" not in str(refusal.value)
    assert ledger.warnings() == []


def test_what_can_never_be_used_stops_the_start(empty_redis: RedisServer) -> None:
    """A newer version's ledger, another kind of data, and an address that is none; each says what it is."""
    ledger = RedisLedger(empty_redis.url)
    ledger.check()
    with Redis(port=empty_redis.port) as client:
        client.set("{banana}:version", 99)
        with pytest.raises(LedgerError, match=r"version 99.*newer"):
            ledger.check()
        client.delete("{banana}:version")
        client.hset("{banana}:version", "what", "ever")
        with pytest.raises(LedgerError, match="STORE_URL cannot be used"):
            ledger.check()
    with pytest.raises(LedgerError, match="no address"):
        RedisLedger("redis://host:port")
    ledger.close()


def test_it_is_said_when_redis_may_forget(empty_redis: RedisServer, tmp_path: Path) -> None:
    """It writes no file, or makes room when it is full; one that keeps everything is fine."""
    forgetful = LedgerServer(empty_redis.url)
    assert [warning.rpartition("Set ")[2] for warning in forgetful.warnings()] == ["appendonly yes."]
    durable = RedisServer(tmp_path)
    try:
        assert LedgerServer(durable.url).warnings() == []
        durable.configure("maxmemory", "100mb")
        durable.configure("maxmemory-policy", "allkeys-lru")
        (warning,) = LedgerServer(durable.url).warnings()
        assert "noeviction" in warning
    finally:
        durable.kill()


def test_more_than_one_run_is_given_goes_in_several() -> None:
    """None is lost between them."""
    assert list(batches([])) == []
    assert [len(some) for some in batches(range(1201))] == [500, 500, 201]


def test_many_are_asked_for_at_once(empty_redis: RedisServer) -> None:
    """More than Lua passes on in one call."""
    ledger = RedisLedger(empty_redis.url)
    ledger.begin(ENTRY)
    ledger.begin(replace(TASK, id="c" * 32))
    ledger.spend.add([(f"caller-{number}", 20_000, 1) for number in range(9000)])

    assert len(ledger.get([f"{number:032x}" for number in range(20_000)] + [ENTRY.id])) == 1
    assert ledger.spend.spent("caller-8999").ever == 1
    ledger.close()
