"""Budgets: reserved before anything is sent, settled by what it cost."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from banana import errors
from banana.admission.budgets import Budget, Budgets, Spending
from banana.exchange import Exchange
from banana.intervals import Intervals
from banana.ledger.leases import Beat
from banana.ledger.ledger import LedgerError
from banana.ledger.spend import Window
from banana.ledger.sqlite import SQLiteLedger
from banana.ledger.sqlite_spend import SQLiteSpend
from banana.ledger.thread import LedgerThread

pytestmark = pytest.mark.anyio
ONE_A_DAY = {"ann": Budget(Decimal(1), Window.DAY)}


class Unsteady(SQLiteLedger):
    """A ledger that fails while it is told to."""

    fails = False

    @property
    def spend(self) -> SQLiteSpend:
        if self.fails:
            raise LedgerError("the disk is full")
        return self._spend

    @spend.setter
    def spend(self, spend: SQLiteSpend) -> None:
        self._spend = spend


@pytest.fixture
def ledger() -> Unsteady:
    return Unsteady(Path("ledger.db"))


@pytest.fixture
async def thread(ledger: Unsteady) -> AsyncIterator[LedgerThread]:
    thread = LedgerThread(ledger)
    yield thread
    await thread.close()


@pytest.fixture
def budgets(thread: LedgerThread) -> Budgets:
    return budgets_of(thread)


SHORT = Intervals(budget_look=0.01, lease=0.3, beat=0.02)


def budgets_of(thread: LedgerThread, budgets: dict[str, Budget] = ONE_A_DAY, owner: str = "w1") -> Budgets:
    return Budgets(budgets, thread, Beat(thread, owner), owner, SHORT)


def exchange(caller: str = "ann", limit: str | None = "0.3", calls: int | None = None) -> Exchange:
    return Exchange(
        deadline=1e9,
        caller=caller,
        model="m",
        images_requested=calls,
        call_limit=lambda: None if limit is None else Decimal(limit),
    )


async def spent(spending: Spending, known: Exchange, *costs: str | None) -> None:
    """Reserve, make a call for each of `costs` (None: its outcome is unknown), and settle."""
    await spending.reserve()
    for cost in costs:
        known.add_cost(None if cost is None else Decimal(cost), made_image=True)
    await spending.settle()


async def remaining(budgets: Budgets, caller: str = "ann") -> Decimal | None:
    return (await budgets.standing_of(caller)).remaining


async def test_what_was_reserved_is_settled_by_what_it_cost(budgets: Budgets) -> None:
    """Meanwhile all of it counts; settling twice counts once."""
    known = exchange(calls=3)
    spending = budgets.spending(known)
    await spending.reserve()
    assert await remaining(budgets) == Decimal("0.1")
    known.add_cost(Decimal("0.25"), made_image=True)
    await spending.settle()
    await spending.settle()

    assert await remaining(budgets) == Decimal("0.75")


async def test_what_does_not_fit_whole_is_refused(budgets: Budgets) -> None:
    """Of four at 0.3 USD, none; it is said what is left, and until when."""
    spending = budgets.spending(exchange(calls=4))

    with pytest.raises(
        errors.BudgetExceeded, match=r"up to 1\.200000 USD.*1 USD a day, 1\.000000 USD are left until \d{4}-"
    ):
        await spending.reserve()
    await spending.settle()
    assert await remaining(budgets) == 1


async def test_the_calls_of_a_request_are_one_reservation(budgets: Budgets) -> None:
    """All wait for the one decision, whoever of them is cancelled."""
    spending = budgets.spending(exchange(calls=3))
    calls = [asyncio.create_task(spending.reserve()) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.gather(*calls, return_exceptions=True)

    assert await remaining(budgets) == Decimal("0.1")
    await spending.settle()
    assert await remaining(budgets) == 1


async def test_what_was_never_learnt_is_charged_as_reserved(budgets: Budgets) -> None:
    """It may have been billed."""
    known = exchange(calls=2)
    await spent(budgets.spending(known), known, "0.1", None)

    assert await remaining(budgets) == Decimal("0.6")


async def test_nothing_is_settled_while_a_call_is_on_its_way(budgets: Budgets) -> None:
    """Its cost is not known yet."""
    known = exchange()
    spending = budgets.spending(known)
    await spending.reserve()
    known.open_calls = 1
    await spending.settle()
    assert await remaining(budgets) == Decimal("0.7")
    known.open_calls = 0
    await spending.settle()
    assert await remaining(budgets) == 1


async def test_a_month_says_when_it_ends(thread: LedgerThread) -> None:
    """On the first of the next."""
    budgets = budgets_of(thread, {"*": Budget(Decimal("0.1"), Window.MONTH)})

    with pytest.raises(errors.BudgetExceeded, match=r"USD a month.*until \d{4}-\d{2}-01 00:00 UTC"):
        await budgets.check(exchange("bob"), lambda: Decimal(1))
    await budgets.check(exchange("bob"), lambda: Decimal("0.1"))


async def test_everybody_else_has_a_budget_each(thread: LedgerThread) -> None:
    """What one spends is not another's."""
    budgets = budgets_of(thread, ONE_A_DAY | {"*": Budget(Decimal(2), Window.DAY)})
    known = exchange("bob")
    await spent(budgets.spending(known), known, "0.2")

    assert await remaining(budgets, "bob") == Decimal("1.8")
    assert await remaining(budgets, "cid") == 2
    assert await remaining(budgets) == 1


async def test_a_model_without_a_price_is_refused(budgets: Budgets) -> None:
    """By the name of the setting; a caller without a budget may use it."""
    with pytest.raises(errors.BudgetExceeded, match=r"price of m is not known.*PRICES"):
        await budgets.spending(exchange(limit=None)).reserve()
    with pytest.raises(errors.BudgetExceeded, match="PRICES"):
        await budgets.check(exchange(limit=None), lambda: None)
    await budgets.spending(exchange("bob", limit=None)).reserve()


async def test_what_others_spend_is_added_up(budgets: Budgets, ledger: Unsteady) -> None:
    """Without a budget nothing is written for a request; within a second all of it is."""
    known = exchange("bob")
    await spent(budgets.spending(known), known, "0.2", "0.1")
    assert ledger.spend.spent("bob").ever == 0

    standing = await budgets.standing_of("bob")
    assert (standing.budget, standing.remaining, standing.spent.day) == (None, None, 300_000_000)


async def test_what_cannot_be_recorded_is_recorded_later(budgets: Budgets, ledger: Unsteady) -> None:
    """The caller has its picture meanwhile; a new reservation is refused."""
    mine, others = exchange(), exchange("bob")
    spending = budgets.spending(mine)
    await spending.reserve()
    ledger.fails = True
    mine.add_cost(Decimal("0.2"), made_image=True)
    await spending.settle()
    await spent(budgets.spending(others), others, "0.1")
    with pytest.raises(errors.LedgerUnavailable):
        await budgets.spending(exchange()).reserve()
    await budgets.close()
    upkeep = asyncio.create_task(budgets.run())
    await asyncio.sleep(0.05)
    ledger.fails = False

    async with asyncio.timeout(10):
        while not ledger.spend.spent("bob").ever or ledger.spend.spent("ann").reserved_day:
            await asyncio.sleep(0.01)
    upkeep.cancel()
    await asyncio.gather(upkeep, return_exceptions=True)
    await budgets.close()
    assert (await budgets.standing_of("ann")).spent.day == 200_000_000
    assert (await budgets.standing_of("bob")).spent.day == 100_000_000


async def test_what_a_dead_worker_reserved_is_charged(thread: LedgerThread, ledger: Unsteady) -> None:
    """When its beat has stood still; a worker that lives is left alone."""
    ledger.spend.reserve("dead", "dead", "ann", 100_000_000, 10**9, Window.DAY)
    beat = Beat(thread, "w1", SHORT)
    spending = Budgets(ONE_A_DAY, thread, beat, "w1", SHORT).spending(exchange())
    await spending.reserve()
    other = budgets_of(LedgerThread(ledger), owner="w2")

    beats = asyncio.create_task(beat.run())
    async with asyncio.timeout(10):
        while ledger.spend.spent("ann").day == 0:
            await other.look()
            await asyncio.sleep(0.02)
    assert ledger.spend.spent("ann").day == 100_000_000
    for _ in range(3):
        beaten = ledger.beats()["w1"]
        while ledger.beats()["w1"] == beaten:
            await asyncio.sleep(0.01)
        await other.look()
    assert ledger.spend.spent("ann").reserved_day == 300_000_000, "it lives, and says so"
    beats.cancel()
    await spending.settle()
    assert ledger.spend.owners() == set()


async def test_what_is_settled_is_settled_whoever_is_cancelled(budgets: Budgets) -> None:
    """A caller leaves in the very moment: nothing stays reserved."""
    for steps in range(6):
        known = exchange()
        spending = budgets.spending(known)
        await spending.reserve()
        settling = asyncio.create_task(spending.settle())
        for _ in range(steps):
            await asyncio.sleep(0)
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
        await spending.settle()
    async with asyncio.timeout(20):
        while await remaining(budgets) != 1:
            await asyncio.sleep(0.01)
