"""How much a caller may spend: the most that a request may cost is reserved before it is sent, and settled by what it cost.

Reserved and settled is in the ledger, so that a budget holds over all workers, and after a kill. What callers without a
budget spend is added up in memory and recorded every second.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import structlog

from banana import errors, metrics
from banana.exchange import Exchange
from banana.intervals import INTERVALS, Intervals
from banana.ledger.leases import Beat, Leases
from banana.ledger.spend import Spent, Window, day_of
from banana.ledger.thread import LedgerThread
from banana.money import nanodollars, usd, written

# The budget of each caller that has none of its own.
EVERYBODY_ELSE = "*"
SWEEP_SECONDS = 60
_NOTHING = Decimal(0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a caller may spend, in USD, in each of the windows, which begin at midnight UTC."""

    limit: Decimal
    window: Window


@dataclass(frozen=True, slots=True)
class Standing:
    """A caller's budget, None where it has none, and what it has spent."""

    budget: Budget | None
    spent: Spent

    @property
    def remaining(self) -> Decimal | None:
        """What is left, in USD; None without a budget."""
        if self.budget is None:
            return None
        return max(Decimal(0), self.budget.limit - usd(self.spent.within(self.budget.window)))


class Spending:
    """What one request spends: `reserve` before anything is sent, `settle` when it has ended."""

    def __init__(self, budgets: "Budgets", exchange: Exchange, reservation_id: str | None) -> None:
        self._budgets = budgets
        self._exchange = exchange
        self._id = reservation_id
        self._reserving: asyncio.Task[None] | None = None
        self._settled = _NOTHING

    async def reserve(self) -> None:
        """Return when all calls of the request fit into its caller's budget. Raises BudgetExceeded and LedgerUnavailable."""
        if self._budgets.budget_of(self._exchange.caller) is None:
            return
        if self._reserving is None:
            self._id = self._id or secrets.token_hex(16)
            self._reserving = asyncio.create_task(self._budgets.reserve(self._id, self._exchange))
        # Each of the calls waits for the one decision; a call that is cancelled leaves it to the others.
        await asyncio.shield(self._reserving)

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to be charged, and nothing reserved."""
        return self._reserving is None and self._settled == self._exchange.charged_usd

    async def settle(self) -> None:
        """Charge what the calls that have ended cost; nothing happens while one is still on its way."""
        if self.is_settled or self._exchange.open_calls:
            return
        charged, self._settled = self._exchange.charged_usd - self._settled, self._exchange.charged_usd
        reserving, self._reserving = self._reserving, None
        if reserving is None:
            self._budgets.add(self._exchange, charged)
        else:
            # To its end, whoever is cancelled meanwhile.
            await asyncio.shield(asyncio.create_task(self._settle(reserving, charged)))

    async def _settle(self, reserving: "asyncio.Task[None]", charged: Decimal) -> None:
        await asyncio.wait([reserving])
        if reserving.exception() is None and self._id is not None:
            await self._budgets.settle(self._id, charged)


class Budgets:
    """The budgets of all callers.

    Args:
        budgets: by the caller's name; `*` is for each that has none of its own.
        ledger: where it is recorded.
        beat: of this worker.
        owner: the name of this worker.

    """

    def __init__(
        self,
        budgets: Mapping[str, Budget],
        ledger: LedgerThread,
        beat: Beat,
        owner: str,
        intervals: Intervals = INTERVALS,
    ) -> None:
        self._look_seconds = intervals.budget_look
        self._budgets = budgets
        self._ledger = ledger
        self._owner = owner
        self._leases = Leases(ledger, beat, intervals=intervals)
        self._reserved: set[str] = set()
        beat.beat_while(lambda: bool(self._reserved))
        # What is to be recorded: of callers without a budget, by caller and day; and settlements that could not be.
        self._added: dict[tuple[str, int], Decimal] = {}
        self._unsettled: list[tuple[str, int]] = []
        self._adding = asyncio.Lock()

    def budget_of(self, caller: str | None) -> Budget | None:
        """Return a caller's budget; None where it has none."""
        return self._budgets.get(caller or "", self._budgets.get(EVERYBODY_ELSE))

    def spending(self, exchange: Exchange, reservation_id: str | None = None) -> Spending:
        """Return what a request spends; `reservation_id` is the id of what is kept of it, where it has one."""
        return Spending(self, exchange, reservation_id)

    async def standing_of(self, caller: str) -> Standing:
        """Return a caller's budget and what it has spent. Raises LedgerUnavailable."""
        await self._record_added()
        spent = await self._ledger.look(lambda ledger: ledger.spend.spent(caller))
        return Standing(self.budget_of(caller), spent)

    async def check(self, exchange: Exchange, limit: Callable[[], Decimal | None]) -> None:
        """Return when what may cost `limit()` USD fits at the moment. Raises BudgetExceeded and LedgerUnavailable."""
        budget = self.budget_of(exchange.caller)
        if budget is not None:
            wanted = _known(limit(), exchange.model)
            standing = await self.standing_of(exchange.caller or "")
            if wanted > (standing.remaining or 0):
                raise _refusal(exchange, budget, standing, wanted)

    async def reserve(self, reservation_id: str, exchange: Exchange) -> None:
        """Reserve what all calls of a request may cost. Raises BudgetExceeded and LedgerUnavailable."""
        caller, budget = exchange.caller or "", self.budget_of(exchange.caller)
        assert budget is not None
        wanted = _known(exchange.call_limit(), exchange.model) * (exchange.images_requested or 1)
        amount, limit = nanodollars(wanted), nanodollars(budget.limit)
        self._reserved.add(reservation_id)
        try:
            fits = await self._ledger.record(
                lambda ledger: ledger.spend.reserve(reservation_id, self._owner, caller, amount, limit, budget.window)
            )
        except errors.LedgerUnavailable:
            self._unsettled.append((reservation_id, 0))  # whether it was recorded is not known
            raise
        if not fits:
            self._reserved.discard(reservation_id)
            raise _refusal(exchange, budget, await self.standing_of(caller), wanted)

    async def settle(self, reservation_id: str, charged: Decimal) -> None:
        """Give a reservation back, and charge what was spent; as soon as that can be recorded."""
        self._unsettled.append((reservation_id, nanodollars(charged)))
        # Tried again every second; should this worker die, it is charged as reserved.
        with suppress(errors.LedgerUnavailable):
            await self._record_settled()

    def add(self, exchange: Exchange, charged: Decimal) -> None:
        """Add what a caller without a budget spent."""
        place = (exchange.caller or "", day_of(time.time()))
        self._added[place] = self._added.get(place, _NOTHING) + charged

    async def run(self) -> None:
        """Record what is to be recorded, and settle for those who died, until cancelled."""
        looks = 0
        while True:
            try:
                await self.look()
                if looks % SWEEP_SECONDS == 0:
                    await self._ledger.look(lambda ledger: ledger.spend.sweep())
            except errors.LedgerUnavailable:
                pass  # it is in the log and in /ready
            except Exception:
                log.exception("internal_error")
            looks += 1
            await asyncio.sleep(self._look_seconds)

    async def look(self) -> None:
        """Do it once. Raises LedgerUnavailable."""
        await self._record_settled()
        await self._record_added()
        others = await self._ledger.look(lambda ledger: ledger.spend.owners()) - {self._owner}
        for owner in await self._leases.lapsed({owner: owner for owner in others}):
            charged = await self._ledger.record(lambda ledger, owner=owner: ledger.spend.lapse(owner))  # type: ignore[misc]
            if charged:
                log.warning("reservations_charged", owner=owner, reservations=charged)

    async def close(self) -> None:
        """Record what is to be recorded."""
        try:
            await self._record_settled()
            await self._record_added()
        except errors.LedgerUnavailable:
            log.error("spend_not_recorded", callers=len(self._added), reservations=len(self._unsettled))

    async def _record_settled(self) -> None:
        while self._unsettled:
            settled = self._unsettled.pop()
            try:
                await self._ledger.record(lambda ledger, settled=settled: ledger.spend.settle(*settled))  # type: ignore[misc]
            except BaseException:
                self._unsettled.insert(0, settled)  # behind the others, which it does not hold up
                raise
            self._reserved.discard(settled[0])

    async def _record_added(self) -> None:
        if self._added or self._adding.locked():
            # To its end, whoever is cancelled meanwhile: nothing is to be added twice, nor never.
            await asyncio.shield(asyncio.create_task(self._add_all()))

    async def _add_all(self) -> None:
        async with self._adding:
            added, self._added = self._added, {}
            rows = [(caller, day, nanodollars(amount)) for (caller, day), amount in added.items()]
            try:
                # To its end: given up and tried again it might be added twice.
                await self._ledger.record(lambda ledger: ledger.spend.add(rows), to_its_end=True)
            except errors.LedgerUnavailable:
                for place, amount in added.items():
                    self._added[place] = self._added.get(place, _NOTHING) + amount
                raise


def _known(limit_usd: Decimal | None, model: str | None) -> Decimal:
    """Return what a request may cost. Raises BudgetExceeded when nobody knows."""
    if limit_usd is None:
        raise errors.BudgetExceeded(
            f"The price of {model or 'this model'} is not known, so it cannot be used under a budget; whoever runs this service"
            " can set its price in PRICES. Nothing was sent to Google."
        )
    return limit_usd


def _end_of(window: Window) -> datetime:
    """Return when the running window ends."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if window is Window.DAY:
        return today + timedelta(days=1)
    return (today.replace(day=1) + timedelta(days=32)).replace(day=1)


def _refusal(exchange: Exchange, budget: Budget, standing: Standing, wanted: Decimal) -> errors.BudgetExceeded:
    metrics.budget_refusals.labels(exchange.caller_label).inc()
    remaining = standing.remaining or Decimal(0)
    return errors.BudgetExceeded(
        f"This request may cost up to {written(wanted)} USD; of the budget of {budget.limit} USD a {budget.window},"
        f" {written(remaining)} USD are left until {_end_of(budget.window):%Y-%m-%d} 00:00 UTC. Nothing was sent to Google."
    )
