"""What a worker carries out to its end; the ledger and the disk failing meanwhile."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from banana import errors
from banana.admission.budgets import Budgets
from banana.exchange import Exchange
from banana.google.wire import Image
from banana.images import Outcome
from banana.intervals import Intervals
from banana.ledger.leases import Beat
from banana.ledger.ledger import Entry, LedgerError, State
from banana.ledger.sqlite import SQLiteLedger
from banana.ledger.thread import LedgerThread
from banana.payload.memory import Buffers
from banana.payload.pictures import read_picture
from banana.results.folder import FolderFiles
from banana.results.works import Job, Works, conclusion_of, results_of
from tests.ledger.entries import ENTRY, LATER, TASK
from tests.pictures import encoded, png

pytestmark = pytest.mark.anyio
FOLDER = Path("results")


class Unsteady(SQLiteLedger):
    """A ledger that can be told to fail."""

    fails = False

    def settle(self, *given: Any, **named: Any) -> bool:
        if self.fails:
            raise LedgerError("the disk is full")
        return super().settle(*given, **named)

    def mark_sent(self, entry_id: str, owner: str) -> bool:
        if self.fails:
            raise LedgerError("the disk is full")
        return super().mark_sent(entry_id, owner)


@dataclass
class Parts:
    ledger: Unsteady
    files: FolderFiles
    buffers: Buffers
    works: Works


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    ledger = Unsteady(Path("ledger.db"))
    thread, files, buffers = LedgerThread(ledger), FolderFiles(FOLDER, 60, 1 << 20), Buffers(1 << 20)
    budgets = Budgets({}, thread, Beat(thread, "w1"), "w1")
    yield Parts(ledger, files, buffers, Works(thread, files, buffers, budgets, "w1", Intervals(retry=0.01)))
    await thread.close()
    files.close()


def picture() -> Image:
    return Image(read_picture(encoded(png())), "image/png", {})


def job_of(*results: Image | errors.BananaError, gate: asyncio.Event | None = None) -> Job:
    async def outcomes(exchange: Exchange) -> AsyncGenerator[Outcome | None, None]:
        await exchange.before_sending()
        yield None
        for index, result in enumerate(results):
            if gate is not None:
                await gate.wait()
            yield Outcome(index, result)

    return Job("/x", {}, lambda: [b"{}"], len(results), lambda: None, has_links=False, dialect="x", outcomes=outcomes)


async def started(parts: Parts, job: Job, entry: Entry = ENTRY) -> list[Outcome]:
    """Begin an entry and carry it out; return what its followers see."""
    parts.ledger.begin(entry)
    work = parts.works.start(job, entry, Exchange(deadline=1e9))
    return [outcome async for outcome in work.follow() if outcome is not None]


def entry_in(parts: Parts, entry: Entry = ENTRY) -> Entry:
    (found,) = parts.ledger.get([entry.id])
    return found


async def test_it_is_recorded_kept_and_shown(parts: Parts) -> None:
    """In this order: whoever is shown the end finds it recorded. What it held in memory is given back."""
    outcomes = await started(parts, job_of(picture(), errors.Blocked("no")))

    assert entry_in(parts).state is State.COMPLETED
    assert [path.name for path in FOLDER.iterdir()] == [outcomes[0].file]
    await parts.works.drain()
    assert ENTRY.id not in parts.works
    assert parts.buffers.held_bytes == 0


async def test_it_is_recorded_as_sent_before_it_is(parts: Parts) -> None:
    """A ledger that does not record it ends the call, and it costs nothing."""
    parts.ledger.fails = True
    seen: list[Any] = []

    async def outcomes(exchange: Exchange) -> AsyncGenerator[Outcome | None, None]:
        try:
            await exchange.before_sending()
            seen.append("sent")
        except errors.BananaError as error:
            yield Outcome(0, error)

    parts.ledger.begin(ENTRY)
    work = parts.works.start(replace(job_of(), outcomes=outcomes), ENTRY, Exchange(deadline=1e9))
    (outcome,) = [outcome async for outcome in work.follow() if outcome]
    assert seen == []
    assert isinstance(outcome.result, errors.LedgerUnavailable)
    parts.ledger.fails = False
    await parts.works.drain()
    assert parts.ledger.find("ann", "k") is None, "its key is free"


async def test_several_calls_are_recorded_once(parts: Parts) -> None:
    """The first records it, the others wait for that."""
    count = 0
    real = parts.ledger.mark_sent

    def counted(entry_id: str, owner: str) -> bool:
        nonlocal count
        count += 1
        return real(entry_id, owner)

    parts.ledger.mark_sent = counted  # type: ignore[method-assign]

    async def outcomes(exchange: Exchange) -> AsyncGenerator[Outcome | None, None]:
        await asyncio.gather(*(exchange.before_sending() for _ in range(5)))
        yield Outcome(0, picture())

    parts.ledger.begin(ENTRY)
    parts.works.start(replace(job_of(), outcomes=outcomes), ENTRY, Exchange(deadline=1e9))
    await parts.works.drain()

    assert count == 1


async def test_followers_do_not_wait_for_a_ledger_that_fails(parts: Parts) -> None:
    """The result is theirs; it is recorded as soon as it can be."""
    gate = asyncio.Event()
    parts.ledger.begin(ENTRY)
    work = parts.works.start(job_of(picture(), gate=gate), ENTRY, Exchange(deadline=1e9))
    async with asyncio.timeout(20):
        while entry_in(parts).state is not State.SENT:
            await asyncio.sleep(0.01)
    parts.ledger.fails = True
    gate.set()
    assert len([outcome async for outcome in work.follow() if outcome]) == 1
    assert entry_in(parts).state is State.SENT
    parts.ledger.fails = False
    await parts.works.drain()

    assert entry_in(parts).state is State.COMPLETED


async def test_a_picture_that_cannot_be_kept_is_sent(parts: Parts) -> None:
    """Its entry says so: a repeat finds that it is gone."""
    FOLDER.write_text("no folder")

    (outcome,) = await started(parts, job_of(picture()))

    assert isinstance(outcome.result, Image)
    assert (outcome.file, entry_in(parts).state, parts.works.files_fail) == ("", State.COMPLETED, True)


async def test_a_task_waits_until_its_picture_can_be_kept(parts: Parts) -> None:
    """It has nothing else to show: until then it is processing; whoever follows it has it at once."""
    FOLDER.write_text("no folder")
    following = asyncio.create_task(started(parts, job_of(picture()), TASK))
    async with asyncio.timeout(20):
        while not parts.works.files_fail:
            await asyncio.sleep(0.01)
    (outcome,) = await following
    assert not outcome.file
    assert entry_in(parts, TASK).state is State.SENT
    FOLDER.unlink()
    await parts.works.drain()

    assert len(await parts.files.names_of(TASK.id)) == 1
    assert entry_in(parts, TASK).state is State.COMPLETED
    assert not parts.works.files_fail


async def test_a_cancelled_one_keeps_nothing(parts: Parts) -> None:
    """Its call is cancelled; what is written already, or being written, is removed; those who follow are told."""
    gate = asyncio.Event()
    ended = asyncio.Event()

    async def outcomes(exchange: Exchange) -> AsyncGenerator[Outcome | None, None]:
        await exchange.before_sending()
        try:
            yield Outcome(0, picture())
            await gate.wait()
        finally:
            ended.set()

    parts.ledger.begin(TASK)
    work = parts.works.start(replace(job_of(), outcomes=outcomes), TASK, Exchange(deadline=1e9))
    follower = work.follow()
    await anext(follower)
    parts.works.cancel(TASK.id)
    rest = [outcome async for outcome in follower if outcome]

    assert ended.is_set()
    await parts.works.drain()
    assert await parts.files.names_of(TASK.id) == []
    assert [type(outcome.result).__name__ for outcome in rest] == ["OutcomeUnknown"]
    await parts.works.drain()
    assert TASK.id not in parts.works


async def test_what_another_worker_took_up_is_left_to_it(parts: Parts) -> None:
    """Whoever was stopped for longer than its lease comes back: the other's pictures are not its to remove."""
    gate = asyncio.Event()
    parts.ledger.begin(TASK)
    parts.works.start(job_of(errors.Overloaded("late"), gate=gate), TASK, Exchange(deadline=1e9))
    parts.ledger.take_up(TASK.id, "w1", "w2")
    parts.ledger.mark_sent(TASK.id, "w2")
    await parts.files.write(f"{TASK.id}-0.png", [b"the other's"])
    await parts.files.write_order(TASK.id, [b"{}"])
    parts.ledger.settle(TASK.id, "w2", State.COMPLETED, b"[]", LATER)
    gate.set()
    await parts.works.drain()

    assert await parts.files.names_of(TASK.id) == [f"{TASK.id}-0.png"]
    assert await parts.files.read_order(TASK.id) == b"{}"
    assert entry_in(parts, TASK).result == b"[]"


@pytest.mark.parametrize("entry", [ENTRY, TASK])
async def test_an_entry_whose_ledger_is_gone_is_recorded_again(parts: Parts, entry: Entry) -> None:
    """Somebody removed `.state`: what is paid for meanwhile is found all the same, and not paid again."""
    gate = asyncio.Event()
    parts.ledger.begin(entry)
    parts.works.start(job_of(picture(), gate=gate), entry, Exchange(deadline=1e9))
    while entry_in(parts, entry).state is not State.SENT:
        await asyncio.sleep(0.01)
    parts.ledger.close()
    for file in Path().glob("ledger.db*"):
        file.unlink()
    gate.set()
    await parts.works.drain()

    found = entry_in(parts, entry)
    assert (found.state, found.key) == (State.COMPLETED, entry.key)
    assert len(await parts.files.names_of(entry.id)) == 1


async def test_a_work_that_has_ended_is_held_by_nobody(parts: Parts) -> None:
    """Its pictures are megabytes: they do not wait for the garbage collector."""
    gc.disable()
    try:
        parts.ledger.begin(ENTRY)
        work = parts.works.start(job_of(picture()), ENTRY, Exchange(deadline=1e9))
        ended = weakref.ref(work)
        await parts.works.drain()
        del work
        await asyncio.sleep(0)
        assert ended() is None
    finally:
        gc.enable()


async def test_a_work_that_is_cancelled_before_its_first_step_ends(parts: Parts) -> None:
    """It leaves nothing behind that anybody would wait for."""
    parts.ledger.begin(TASK)
    work = parts.works.start(job_of(picture()), TASK, Exchange(deadline=1e9))
    parts.works.cancel(TASK.id)

    async with asyncio.timeout(20):
        await parts.works.drain()
        assert [outcome async for outcome in work.follow()] == []
    assert not parts.works.is_busy


async def test_what_is_cancelled_unsent_may_be_repeated(parts: Parts) -> None:
    """Nothing can have been billed, and those who follow are told so."""
    gate = asyncio.Event()

    async def outcomes(exchange: Exchange) -> AsyncGenerator[Outcome | None, None]:
        await gate.wait()
        yield None

    parts.ledger.begin(TASK)
    work = parts.works.start(replace(job_of(), outcomes=outcomes), TASK, Exchange(deadline=1e9))
    await asyncio.sleep(0)
    parts.works.cancel(TASK.id)
    (outcome,) = [outcome async for outcome in work.follow() if outcome is not None]

    assert isinstance(outcome.result, errors.InProgress)
    assert "cancelled before anything was sent" in outcome.result.message


async def test_a_picture_is_removed_that_was_being_written(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread goes on when the task is cancelled."""
    writing, gate = threading.Event(), threading.Event()
    write = parts.files.write

    async def slow_write(name: str, blocks: Iterable[bytes]) -> None:
        def slow_blocks() -> Iterator[bytes]:
            writing.set()
            gate.wait(20)
            yield from blocks

        await write(name, slow_blocks())

    monkeypatch.setattr(parts.files, "write", slow_write)
    parts.ledger.begin(TASK)
    parts.works.start(job_of(picture()), TASK, Exchange(deadline=1e9))
    await asyncio.to_thread(writing.wait, 20)
    parts.works.cancel(TASK.id)
    await asyncio.sleep(0)
    gate.set()
    await parts.works.drain()

    assert await parts.files.names_of(TASK.id) == []


async def test_a_picture_that_never_fits_is_not_waited_for(parts: Parts) -> None:
    """Its task ends; trying again would not help."""
    large = Image(read_picture(encoded(b"x" * (2 << 20))), "image/png", {})

    async with asyncio.timeout(20):
        await started(parts, job_of(large), TASK)
    assert entry_in(parts, TASK).state is State.COMPLETED


async def test_what_became_a_task_meanwhile_is_waited_for_as_one(parts: Parts) -> None:
    """By a request to another worker: its picture is nowhere else."""
    parts.ledger.begin(ENTRY)
    FOLDER.write_text("no folder")
    work = parts.works.start(job_of(picture()), ENTRY, Exchange(deadline=1e9))
    parts.ledger.begin(replace(ENTRY, id="c" * 32, is_task=True))
    (outcome,) = [outcome async for outcome in work.follow() if outcome is not None]
    assert isinstance(outcome.result, Image), "whoever follows has it at once"
    FOLDER.unlink()
    await parts.works.drain()

    assert work.entry.is_task
    assert len(await parts.files.names_of(ENTRY.id)) == 1


async def test_a_result_after_it_was_cancelled_is_removed(parts: Parts) -> None:
    """Another worker cancelled it a moment ago: nothing of it stays."""
    gate = asyncio.Event()
    parts.ledger.begin(TASK)
    parts.works.start(job_of(picture(), gate=gate), TASK, Exchange(deadline=1e9))
    await asyncio.sleep(0.05)
    parts.ledger.cancel(TASK.id, "ann", b"", 1e12)
    gate.set()
    await parts.works.drain()

    assert entry_in(parts, TASK).state is State.CANCELLED
    assert list(FOLDER.glob("*.png")) == []


async def test_a_defect_is_unknown(parts: Parts) -> None:
    """Something was sent, and nobody knows: it is settled, not left open."""

    async def outcomes(exchange: Exchange) -> AsyncGenerator[Outcome | None, None]:
        await exchange.before_sending()
        yield Outcome(1 // len(exchange.path), picture())

    parts.ledger.begin(ENTRY)
    parts.works.start(replace(job_of(), outcomes=outcomes), ENTRY, Exchange(deadline=1e9))
    await parts.works.drain()

    assert entry_in(parts).state is State.FAILED
    assert b"outcome_unknown" in entry_in(parts).result


@pytest.mark.parametrize(
    ("results", "state", "keeps_key"),
    [
        ([picture(), errors.UpstreamQuota("x")], State.COMPLETED, True),
        ([errors.Blocked("x"), errors.UpstreamQuota("x")], State.FAILED, True),
        ([errors.OutcomeUnknown()], State.FAILED, True),
        ([errors.UpstreamQuota("x"), errors.NotConnected("x"), errors.UpstreamFault("x")], State.FAILED, False),
        ([errors.DeadlineExceeded("x")], State.FAILED, False),
    ],
)
def test_a_key_stays_used_when_it_may_have_been_billed(
    results: list[Image | errors.BananaError], state: State, keeps_key: bool
) -> None:
    """And only then."""
    outcomes = [Outcome(index, result) for index, result in enumerate(results)]

    assert conclusion_of(outcomes) == (state, keeps_key)


def test_results_are_in_the_order_of_the_calls() -> None:
    """Or raise what stands for all errors."""
    assert [outcome.index for outcome in results_of([Outcome(1, picture()), Outcome(0, picture())])] == [0, 1]
    with pytest.raises(errors.OutcomeUnknown):
        results_of([Outcome(0, errors.Blocked("x")), Outcome(1, errors.OutcomeUnknown())])
