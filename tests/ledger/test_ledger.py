"""The ledger: each of its decisions, on both engines."""

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from banana.ledger.ledger import Entry, Ledger, State
from banana.ledger.redis import RedisLedger
from banana.ledger.redis_spend import RedisSpend
from banana.ledger.spend import SpendLedger
from banana.ledger.sqlite import SQLiteLedger
from banana.ledger.sqlite_spend import SQLiteSpend
from tests.ledger.conftest import Clock
from tests.ledger.entries import ENTRY, LATER, TASK


@pytest.mark.parametrize("state", State)
def test_what_is_begun_or_sent_is_active(state: State) -> None:
    """Nothing else."""
    assert state.is_active is (state in ("begun", "sent"))


@pytest.mark.parametrize(
    ("engine", "interface"),
    [(SQLiteLedger, Ledger), (RedisLedger, Ledger), (SQLiteSpend, SpendLedger), (RedisSpend, SpendLedger)],
)
def test_every_engine_has_the_whole_interface(engine: type, interface: type) -> None:
    """With the same parameters, so that one can take the other's place."""
    methods = inspect.getmembers(interface, inspect.isfunction)
    for name, method in methods:
        if not name.startswith("_"):
            assert inspect.signature(getattr(engine, name)).parameters == inspect.signature(method).parameters, name
    assert len(methods) > 8


def state_of(ledger: Ledger, entry: Entry) -> State | None:
    found = ledger.get([entry.id])
    return found[0].state if found else None


def test_an_entry_is_read_as_it_was_written(ledger: Ledger) -> None:
    """By its id, and by its caller's key; another caller's key is another."""
    assert ledger.begin(ENTRY) is ENTRY

    assert ledger.get([ENTRY.id, "unknown"]) == [ENTRY]
    assert ledger.find("ann", "k") == ENTRY
    assert ledger.find("bob", "k") is None


def test_the_first_holds_the_key(ledger: Ledger) -> None:
    """Whoever comes later is given the first one's entry."""
    ledger.begin(ENTRY)

    assert ledger.begin(replace(ENTRY, id="c" * 32, fingerprint="other")) == ENTRY


def test_a_key_without_value_is_nobodys(ledger: Ledger) -> None:
    """Tasks without a key do not hold each other up."""
    ledger.begin(TASK)

    assert ledger.begin(replace(TASK, id="c" * 32)).id == "c" * 32


def test_a_task_with_the_key_makes_the_entry_a_task(ledger: Ledger) -> None:
    """It can be polled from then on."""
    ledger.begin(ENTRY)

    assert ledger.begin(replace(ENTRY, id="c" * 32, is_task=True)) == replace(ENTRY, is_task=True)


def test_another_request_makes_no_task_of_it(ledger: Ledger) -> None:
    """Nor does a repeat of what was deleted."""
    ledger.begin(ENTRY)
    other = ledger.begin(replace(ENTRY, id="c" * 32, is_task=True, fingerprint="other"))
    task = replace(TASK, key="l")
    ledger.begin(task)
    ledger.settle(task.id, "w1", State.COMPLETED, b"[1]", LATER)
    ledger.delete(task.id, "ann")
    deleted = ledger.begin(replace(task, id="d" * 32))

    assert (other.id, other.is_task) == (ENTRY.id, False)
    assert (deleted.id, deleted.is_task) == (task.id, False)


def test_an_expired_entry_makes_room(ledger: Ledger) -> None:
    """When it has ended; what is active does not expire."""
    ledger.begin(replace(ENTRY, expires_at=1))
    again = replace(ENTRY, id="c" * 32)
    assert ledger.begin(again).id == ENTRY.id
    ledger.settle(ENTRY.id, "w1", State.COMPLETED, b"[]", 1)

    assert ledger.begin(again) is again


def test_only_the_owner_may_send(ledger: Ledger) -> None:
    """Not another, not after it was cancelled; twice is no harm."""
    ledger.begin(TASK)

    assert not ledger.mark_sent(TASK.id, "w2")
    assert ledger.mark_sent(TASK.id, "w1")
    assert ledger.mark_sent(TASK.id, "w1")
    ledger.cancel(TASK.id, "ann", b"", LATER)
    assert not ledger.mark_sent(TASK.id, "w1")


@pytest.mark.parametrize("is_task", [False, True])
def test_settling_keeps_the_key_or_frees_it(ledger: Ledger, is_task: bool) -> None:
    """What was never billed may be tried again; what is no task is forgotten soon then, also one that became a task late."""
    ledger.begin(ENTRY)
    ledger.begin(replace(ENTRY, id="c" * 32, is_task=is_task))

    assert ledger.settle(ENTRY.id, "w1", State.FAILED, b"[1]", LATER, released_at=LATER - 1)
    (settled,) = ledger.get([ENTRY.id])
    assert (settled.state, settled.result, settled.key) == (State.FAILED, b"[1]", None)
    assert settled.expires_at == (LATER if is_task else LATER - 1)
    assert ledger.find("ann", "k") is None


def test_settling_without_a_release_keeps_the_key(ledger: Ledger) -> None:
    """For as long as the result."""
    ledger.begin(ENTRY)
    ledger.settle(ENTRY.id, "w1", State.FAILED, b"[1]", LATER)

    found = ledger.find("ann", "k")
    assert found is not None
    assert found.expires_at == LATER


def test_what_was_presumed_is_settled_again_by_its_owner(ledger: Ledger) -> None:
    """It lived after all; nobody else settles what has ended."""
    ledger.begin(ENTRY)
    assert not ledger.presume(ENTRY.id, "w1", State.FAILED, b"[0]", LATER), "it was not sent"
    ledger.mark_sent(ENTRY.id, "w1")

    assert ledger.presume(ENTRY.id, "w1", State.FAILED, b"[0]", LATER)
    assert not ledger.settle(ENTRY.id, "w2", State.COMPLETED, b"[2]", LATER)
    assert ledger.settle(ENTRY.id, "w1", State.COMPLETED, b"[1]", LATER)
    assert not ledger.settle(ENTRY.id, "w1", State.COMPLETED, b"[3]", LATER)
    assert ledger.get([ENTRY.id])[0].result == b"[1]"


def test_only_what_was_not_sent_is_discarded(ledger: Ledger) -> None:
    """And by its owner."""
    ledger.begin(ENTRY)
    ledger.discard(ENTRY.id, "w2")
    assert state_of(ledger, ENTRY) is State.BEGUN
    ledger.mark_sent(ENTRY.id, "w1")
    ledger.discard(ENTRY.id, "w1")
    assert state_of(ledger, ENTRY) is State.SENT
    ledger.begin(TASK)
    ledger.discard(TASK.id, "w1")
    assert state_of(ledger, TASK) is None


@pytest.mark.parametrize("sent", [True, False])
def test_a_cancelled_task_gives_its_key_back_unless_it_was_sent(ledger: Ledger, sent: bool) -> None:
    """What was sent may have been billed."""
    task = replace(TASK, key="k")
    ledger.begin(task)
    if sent:
        ledger.mark_sent(task.id, "w1")

    assert ledger.cancel(task.id, "bob", b"", LATER) is None
    cancelled = ledger.cancel(task.id, "ann", b"[unknown]", LATER)

    assert cancelled is not None
    assert state_of(ledger, task) is State.CANCELLED
    assert (ledger.find("ann", "k") is not None) is sent
    assert ledger.cancel(task.id, "ann", b"", LATER) is None


def test_a_deleted_task_is_gone_but_its_key_is_used(ledger: Ledger) -> None:
    """A request without a key cannot be repeated: it leaves nothing."""
    for task in (TASK, replace(TASK, id="c" * 32, key="k")):
        ledger.begin(task)
        assert ledger.delete(task.id, "ann") is None, "it is active"
        ledger.settle(task.id, "w1", State.COMPLETED, b"[1]", LATER)
        assert ledger.delete(task.id, "bob") is None
        assert ledger.delete(task.id, "ann") is not None

    assert ledger.get([TASK.id]) == []
    found = ledger.find("ann", "k")
    assert found is not None
    assert (found.is_task, found.result) == (False, b"")


def test_tasks_are_listed_newest_first(ledger: Ledger) -> None:
    """The caller's own, in pages."""
    ids = [f"{number:032x}" for number in range(5)]
    for number in ids:
        ledger.begin(replace(TASK, id=number))
    ledger.begin(ENTRY)
    ledger.begin(replace(TASK, id="e" * 32, caller="bob"))

    def page(limit: int, after: str | None) -> list[str] | None:
        found = ledger.tasks("ann", limit, after)
        return None if found is None else [entry.id for entry in found]

    assert page(3, None) == [ids[4], ids[3], ids[2]]
    assert page(3, ids[2]) == [ids[1], ids[0]]
    assert page(3, "e" * 32) is None
    assert ledger.count_tasks() == {State.BEGUN: 6}


def test_owners_show_that_they_live(ledger: Ledger) -> None:
    """A number that grows, also with what they begin; it is there from the first entry on, and gone with the last."""
    seen = []
    for show in (lambda: ledger.begin(ENTRY), lambda: ledger.begin(TASK), lambda: ledger.beat("w1")):
        show()
        assert set(ledger.beats()) == {"w1"}
        seen.append(ledger.beats()["w1"])
    assert seen == sorted(set(seen))
    for entry in (ENTRY, TASK):
        ledger.discard(entry.id, "w1")
    ledger.sweep()
    assert ledger.beats() == {}


def test_a_beat_that_was_forgotten_is_never_the_same_again(ledger: Ledger, clock: Clock) -> None:
    """Whoever looks now and then must not take a worker that begins and ends all the time for one that stands still."""
    seen = set()
    for _ in range(3):
        ledger.begin(ENTRY)
        seen.add(ledger.beats()["w1"])
        ledger.discard(ENTRY.id, "w1")
        ledger.sweep()
        clock.now += 1
    assert len(seen) == 3 or isinstance(ledger, SQLiteLedger), "SQLite has a clock of its own here"


def test_what_is_active_is_found_by_its_owner(ledger: Ledger) -> None:
    """Until it has ended, or is another's."""
    ledger.begin(ENTRY)
    ledger.begin(TASK)
    ledger.begin(replace(TASK, id="c" * 32, owner="w2"))
    assert ledger.owners() == {"w1", "w2"}
    assert sorted(entry.id for entry in ledger.active("w1")) == [ENTRY.id, TASK.id]
    ledger.settle(ENTRY.id, "w1", State.COMPLETED, b"[]", LATER)
    ledger.take_up(TASK.id, "w1", "w2")

    assert ledger.owners() == {"w2"}
    assert ledger.active("w1") == []
    assert len(ledger.active("w2")) == 2


def test_of_many_with_one_key_one_begins(opened: Callable[[], Ledger]) -> None:
    """Over as many machines as there are; the others are given its entry."""
    ledgers = [opened() for _ in range(8)]
    barrier = Barrier(8)

    def begin(number: int) -> list[str]:
        barrier.wait()
        return [
            ledgers[number].begin(replace(ENTRY, id=f"{number:016x}{key:016x}", key=f"k{key}")).id for key in range(20)
        ]

    with ThreadPoolExecutor(8) as threads:
        for ids in zip(*threads.map(begin, range(8)), strict=True):
            assert len(set(ids)) == 1


def test_only_what_was_not_sent_is_taken_up(ledger: Ledger) -> None:
    """By one worker, from the one that had it."""
    ledger.begin(TASK)

    assert not ledger.take_up(TASK.id, "w9", "w2")
    assert ledger.take_up(TASK.id, "w1", "w2")
    assert not ledger.take_up(TASK.id, "w1", "w3")
    assert not ledger.mark_sent(TASK.id, "w1")
    assert ledger.mark_sent(TASK.id, "w2")
    assert not ledger.take_up(TASK.id, "w2", "w3")


def test_sweeping_forgets_what_has_expired(ledger: Ledger) -> None:
    """And has ended."""
    for number, expires_at in enumerate((1, LATER)):
        entry = replace(TASK, id=f"{number:032x}")
        ledger.begin(entry)
        ledger.settle(entry.id, "w1", State.COMPLETED, b"[]", expires_at)
    ledger.begin(replace(ENTRY, expires_at=1))

    ledger.sweep()

    assert state_of(ledger, replace(TASK, id=f"{0:032x}")) is None
    assert state_of(ledger, replace(TASK, id=f"{1:032x}")) is State.COMPLETED
    assert state_of(ledger, ENTRY) is State.BEGUN
