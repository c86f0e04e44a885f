"""The ledger in Redis: what it keeps, by whose clock, and what machines share; its decisions are in test_ledger."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from banana.ledger.ledger import State
from banana.ledger.redis import RedisLedger
from tests.ledger.conftest import Clock
from tests.ledger.entries import ENTRY, TASK
from tests.redis_server import RedisServer
from tests.services import needs

pytestmark = needs("redis-server")


def test_what_is_recorded_is_there_after_a_kill(tmp_path: Path) -> None:
    """With an append-only file; the script as well, which Redis forgets, and whoever is connected goes on."""
    redis = RedisServer(tmp_path)
    ledger = RedisLedger(redis.url)
    ledger.begin(ENTRY)
    ledger.mark_sent(ENTRY.id, "w1")
    redis.kill()
    redis.start()
    try:
        held = ledger.begin(replace(ENTRY, id="c" * 32))
    finally:
        redis.kill()

    assert (held.id, held.state) == (ENTRY.id, State.SENT)


@pytest.mark.parametrize("seconds_ahead", [-86_400, 86_400])
def test_a_machine_with_a_wrong_clock_forgets_nothing_of_others(redis: RedisServer, seconds_ahead: int) -> None:
    """What expires does so by Redis' clock; how long from now is all that a machine says."""
    redis.empty()
    right = RedisLedger(redis.url)
    for entry in (ENTRY, TASK):
        right.begin(replace(entry, expires_at=time.time() + 60))
        right.settle(entry.id, "w1", State.COMPLETED, b"[]", time.time() + 60)
    with pytest.MonkeyPatch.context() as patched:
        now = time.time()
        patched.setattr("time.time", lambda: now + seconds_ahead)
        wrong = RedisLedger(redis.url)
        wrong.sweep()
        assert wrong.begin(replace(ENTRY, id="c" * 32)).id == ENTRY.id
        wrong.begin(replace(TASK, id="d" * 32, expires_at=time.time() + 60))
        wrong.settle("d" * 32, "w1", State.COMPLETED, b"[]", time.time() + 60)
        wrong.close()
    right.sweep()

    (its,) = right.get(["d" * 32])
    assert 50 < its.expires_at - time.time() < 70
    right.close()


def test_what_has_expired_is_forgotten_in_any_number(redis: RedisServer, clock: Clock) -> None:
    """More than one run of the script takes; nothing of it is left behind."""
    redis.empty()
    ledger = RedisLedger(redis.url, clock)
    for number in range(1100):
        task = replace(TASK, id=f"{number:032x}", key=f"k{number}", expires_at=clock.now + 1)
        ledger.begin(task)
        ledger.settle(task.id, "w1", State.COMPLETED, b"[]", clock.now + 1)
    clock.now += 2
    ledger.sweep()

    assert ledger.count_tasks() == {}
    assert ledger.tasks("ann", 10, None) == []
    assert ledger.find("ann", "k7") is None
    # The version, the last number of an entry, and the sessions.
    assert redis.keys() <= {"numbers", "version", "session"}
    ledger.close()


def test_machines_share_the_first_ones_secret(redis: RedisServer) -> None:
    """Until Redis is emptied: then it is whoever comes first again."""
    redis.empty()
    one, other = RedisLedger(redis.url), RedisLedger(redis.url)
    assert (one.secret("first"), other.secret("second")) == ("first", "first")
    redis.empty()

    assert other.secret("first") == "first"
    one.close()
    other.close()
