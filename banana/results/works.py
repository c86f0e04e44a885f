"""What this worker carries out for a key or a task: to its end, whether its caller stays or not."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import structlog
from msgspec import structs

from banana import errors, metrics
from banana.admission.budgets import Budgets, Spending
from banana.errors import UpstreamResponse
from banana.exchange import Exchange, nothing_before_sending
from banana.google.wire import Image, Words
from banana.images import Outcome
from banana.intervals import INTERVALS, Intervals
from banana.ledger.ledger import Entry, State
from banana.ledger.spend import reservation_id_of
from banana.ledger.thread import LedgerThread
from banana.payload.memory import Buffers
from banana.payload.pieces import Pieces
from banana.results.documents import decisive_error, document_of, kept
from banana.results.files import Files
from banana.results.history import keep_signature

# A response waits this long for the ledger, and for its image to be stored until this long before the deadline; then it is
# sent, and both go on in the background.
BOOKKEEPING_SECONDS = 0.3
STORE_SPARE_SECONDS = 0.5
# At the end of a worker, how often it looks what runs, and how long it waits for a ledger.
DRAIN_LOOK_SECONDS = 0.05
SETTLE_SECONDS = 5
# An error that cost nothing is kept for those who wait for it in other workers.
RELEASED_SECONDS = 60

# Of the fields of a request, those that a work has.
_LOGGED = (
    *("duration_ms", "dialect", "caller", "user", "model", "prompt", "images_asked", "images_returned", "attempts"),
    *("upstream_ms", "tokens", "cost_usd", "unknown_cost_usd", "kept_id"),
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A request as it is carried out.

    Attributes:
        route: names how; the same in every worker and version.
        content: makes it the same as another, see `fingerprint_of`.
        order: returns what `route` needs to carry it out in another worker.
        calls: to Google, that it takes.
        limit: returns what they may cost at the most, in USD; None where that is not known.
        has_links: whether its result, as a task's, holds links instead of pictures.
        dialect: the API format, as the log has it.
        outcomes: carries it out; yields what each call became, and None in silences.

    """

    route: str
    content: object
    order: Callable[[], Pieces]
    calls: int
    limit: Callable[[], Decimal | None]
    has_links: bool
    dialect: str
    outcomes: Callable[[Exchange], AsyncGenerator[Outcome | None, None]]


class Work:
    """One entry while this worker carries it out."""

    def __init__(self, entry: Entry, exchange: Exchange, spending: Spending, silence_seconds: float) -> None:
        self._silence_seconds = silence_seconds
        self.entry = entry
        self.exchange = exchange
        self.spending = spending
        self.outcomes: list[Outcome] = []
        self.task: asyncio.Task[None] | None = None
        self.is_sent = False
        self.sending = asyncio.Lock()
        self.is_settling = False  # whether only recording it is left
        self.is_cancelled = False  # by its caller, and not because the worker ends
        self._has_ended = False
        self._changed = asyncio.Event()

    def add(self, outcome: Outcome) -> None:
        """Show one more outcome to those who follow."""
        self.outcomes.append(outcome)
        self._notify()

    def end(self) -> None:
        """Let those who follow know that there are no more."""
        self._has_ended = True
        self._notify()

    async def follow(self) -> AsyncGenerator[Outcome | None, None]:
        """Yield every outcome as it comes, and None in silences."""
        position = 0
        while True:
            while position < len(self.outcomes):
                yield self.outcomes[position]
                position += 1
            if self._has_ended:
                return
            try:
                async with asyncio.timeout(self._silence_seconds):
                    await self._changed.wait()
            except TimeoutError:
                yield None

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Works:
    """All of them.

    Args:
        ledger: where they are recorded.
        files: where pictures are kept.
        buffers: where what they hold in memory is counted.
        budgets: of their callers.
        owner: the name of this worker.

    Attributes:
        files_fail: whether the last picture could not be kept.

    """

    def __init__(
        self,
        ledger: LedgerThread,
        files: Files,
        buffers: Buffers,
        budgets: Budgets,
        owner: str,
        intervals: Intervals = INTERVALS,
    ) -> None:
        self.owner = owner
        self._intervals = intervals
        self._budgets = budgets
        self.files_fail = False
        self._ledger = ledger
        self._files = files
        self._buffers = buffers
        self._running: dict[str, Work] = {}
        self._writing: dict[str, set[asyncio.Task[Outcome]]] = {}

    @property
    def is_busy(self) -> bool:
        """Whether anything is being carried out."""
        return bool(self._running)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._running

    def __iter__(self) -> Any:
        return iter(list(self._running.values()))

    def get(self, entry_id: str) -> Work | None:
        """Return the work on an entry, while this worker is at it."""
        return self._running.get(entry_id)

    def start(self, job: Job, entry: Entry, exchange: Exchange) -> Work:
        """Carry out `job`, whose entry is this worker's; `exchange` is its own, not that of a request that may end before."""
        reservation_id = reservation_id_of(entry.id, self.owner)
        work = Work(entry, exchange, self._budgets.spending(exchange, reservation_id), self._intervals.silence)
        exchange.kept_id = entry.id
        exchange.dialect = job.dialect
        exchange.before_sending = lambda: self._mark_sent(work)
        self._running[entry.id] = work
        work.task = asyncio.create_task(self._carry_out(work, job))
        work.task.add_done_callback(lambda _: self._end(work))  # also of one that was cancelled before it began
        return work

    def cancel(self, entry_id: str) -> None:
        """Cancel the work on an entry, and its calls to Google."""
        work = self._running.get(entry_id)
        if work is not None and work.task is not None and not work.task.cancelling():  # once: it cleans up then
            work.is_cancelled = True
            work.task.cancel()

    async def drain(self) -> None:
        """Return when everything has ended, or only waits for a ledger that cannot be written.

        What is not recorded then is found by its files, when the ledger can be written and read again.
        """
        while unfinished := [work.task for work in self._running.values() if work.task and not work.is_settling]:
            await asyncio.wait(unfinished, timeout=DRAIN_LOOK_SECONDS)
        if tasks := [work.task for work in self._running.values() if work.task is not None]:
            await asyncio.wait(tasks, timeout=SETTLE_SECONDS)

    async def keep(self, outcome: Outcome, entry_id: str, until: float | None = None) -> Outcome:
        """Write an image to its file; return it as it came when that cannot be, or not `until` then.

        That is in seconds of the event loop's clock.
        """
        writing = asyncio.create_task(self._write(outcome, entry_id))
        self._writing.setdefault(entry_id, set()).add(writing)
        writing.add_done_callback(lambda _: self._written(entry_id, writing))
        try:
            # Its thread goes on when this ends: what it writes is known of until it is there.
            async with asyncio.timeout_at(until):
                written = await asyncio.shield(writing)
        except TimeoutError:
            self._log_failure(OSError("it takes too long"))
            return outcome
        except OSError as error:
            self._log_failure(error)
            return outcome
        if written.file:
            self.files_fail = False
        return written

    async def _write(self, outcome: Outcome, entry_id: str) -> Outcome:
        written = await kept(outcome, entry_id, self._files)
        if isinstance(written.result, Image) and written.result.signature:
            await keep_signature(written.result, self._files)
        return written

    def _written(self, entry_id: str, writing: "asyncio.Task[Outcome]") -> None:
        self._writing[entry_id].discard(writing)
        if not self._writing[entry_id]:
            del self._writing[entry_id]
        if not writing.cancelled():
            writing.exception()  # whoever waits for it has it, if anybody does

    async def _carry_out(self, work: Work, job: Job) -> None:
        with errors.released():
            await self._carried_out(work, job)

    async def _carried_out(self, work: Work, job: Job) -> None:
        ending: asyncio.TimerHandle | None = None
        try:
            stored: list[asyncio.Task[None]] = []
            async with aclosing(job.outcomes(work.exchange)) as outcomes:
                async for outcome in outcomes:
                    if outcome is not None:
                        stored += await self._shown(work, outcome)
            # A result that was paid for is not held back by what is written down of it.
            ending = asyncio.get_running_loop().call_later(BOOKKEEPING_SECONDS, work.end)
            await asyncio.gather(*stored)
            await work.spending.settle()
            await self._keep_late(work)
            work.is_settling = True
            await self._settle(work)
        except asyncio.CancelledError:
            if not work.is_cancelled:  # the worker ends: what is stored is found by the next one
                raise
            work.add(Outcome(len(work.outcomes), errors.OutcomeUnknown() if work.is_sent else _cancelled_unsent()))
            await self._remove_order(work)
            await self._remove(work.entry.id)  # also what was being written when it was cancelled
        except Exception:
            log.exception("internal_error")
            work.add(Outcome(len(work.outcomes), errors.OutcomeUnknown() if work.is_sent else errors.Internal()))
            await self._settle(work)
        finally:
            if ending is not None:
                ending.cancel()
            work.end()
            await work.spending.settle()

    def _end(self, work: Work) -> None:
        work.end()
        # A circle of references would keep its pictures for a while.
        work.exchange.before_sending = nothing_before_sending
        self._buffers.release(work.exchange)
        del self._running[work.entry.id]
        self._log_end(work, time.perf_counter() - work.exchange.started_at)

    async def _remove(self, entry_id: str) -> None:
        """Remove an entry's files, when nothing is written to them any more."""
        while self._writing.get(entry_id):
            await asyncio.wait(self._writing[entry_id])
        with suppress(OSError):
            await self._files.remove(entry_id)

    async def _mark_sent(self, work: Work) -> None:
        """Record that a call is made, before the first. Raises BudgetExceeded, LedgerUnavailable and InProgress."""
        async with work.sending:
            if work.is_sent:
                return
            await work.spending.reserve()
            if not await self._ledger.record(lambda ledger: ledger.mark_sent(work.entry.id, self.owner)):
                raise errors.InProgress(
                    "The request was cancelled, or another worker has taken it over. Repeat it to get its result."
                )
            work.is_sent = True
        await self._remove_order(work)

    async def _remove_order(self, work: Work) -> None:
        """Remove the order of a task: it is not needed when its call is made, nor when it is not to be made."""
        if work.entry.is_task:
            with suppress(OSError):
                await self._files.remove_order(work.entry.id)

    async def _shown(self, work: Work, outcome: Outcome) -> "list[asyncio.Task[None]]":
        """Store what one call became, and show it to those who follow; return what still stores it at their deadline."""
        storing = asyncio.create_task(self._kept(work, outcome))
        left_seconds = work.exchange.deadline - STORE_SPARE_SECONDS - asyncio.get_running_loop().time()
        try:
            done, _ = await asyncio.wait([storing], timeout=max(0, left_seconds))
        except asyncio.CancelledError:
            storing.cancel()
            raise
        position = len(work.outcomes)
        work.add(storing.result() if done else outcome)

        async def store_late() -> None:
            work.outcomes[position] = await storing

        return [] if done else [asyncio.create_task(store_late())]

    async def _kept(self, work: Work, outcome: Outcome) -> Outcome:
        """Keep what one call became; as it came when it cannot be kept now."""
        if isinstance(outcome.result, errors.BananaError):
            error = errors.OutcomeUnknown() if outcome.result.in_doubt else outcome.result
            error.request_id = work.entry.request_id
            return structs.replace(outcome, result=error)
        return await self.keep(outcome, work.entry.id)

    async def _keep_late(self, work: Work) -> None:
        """Keep what could not be kept at once: a task has nothing else. Those who follow the work do not wait for that."""
        until = time.monotonic() + self._files.keep_seconds
        for position, outcome in enumerate(work.outcomes):
            while self._is_to_be_kept(outcome) and time.monotonic() < until and await self._is_task(work):
                work.end()
                await asyncio.sleep(self._intervals.retry)
                outcome = work.outcomes[position] = await self.keep(outcome, work.entry.id)

    def _is_to_be_kept(self, outcome: Outcome) -> bool:
        has_file = isinstance(outcome.result, Image | UpstreamResponse)
        return has_file and not outcome.file and self._files.may_hold(_size_of_file(outcome))

    async def _is_task(self, work: Work) -> bool:
        """Return whether a work is a task's, or has become one by a request to another worker."""
        if not work.entry.is_task:
            with suppress(errors.LedgerUnavailable):
                found = await self._ledger.look(lambda ledger: ledger.get([work.entry.id]))
                work.entry = found[0] if found else work.entry
        return work.entry.is_task

    async def _settle(self, work: Work) -> None:
        """Record what a work became; those who follow it do not wait for a ledger that fails."""
        state, keeps_key = conclusion_of(work.outcomes)
        document = document_of(work.outcomes)
        if any(outcome_is_unknown(outcome) for outcome in work.outcomes):
            metrics.unknown_outcomes.inc()
        while True:
            now = time.time()
            expires_at, released_at = now + self._files.keep_seconds, None if keeps_key else now + RELEASED_SECONDS
            try:
                settled = await self._ledger.record(
                    lambda ledger, at=(expires_at, released_at): ledger.settle(  # type: ignore[misc]
                        work.entry.id, self.owner, state, document, *at
                    )
                )
            except errors.LedgerUnavailable:
                work.end()
                await asyncio.sleep(self._intervals.retry)
                continue
            if not settled and not await self._is_anothers(work, state, document, expires_at, keeps_key=keeps_key):
                continue
            if settled and not work.is_sent:
                await self._remove_order(work)
            return

    async def _is_anothers(
        self, work: Work, state: State, result: bytes, expires_at: float, *, keeps_key: bool
    ) -> bool:
        """Return whether somebody else has the say about an entry; one that is gone with its ledger is recorded again."""
        try:
            found = await self._ledger.look(lambda ledger: ledger.get([work.entry.id]))
            if not found:
                key = work.entry.key if keeps_key else None
                again = replace(work.entry, key=key, state=state, result=result, expires_at=expires_at)
                await self._ledger.record(lambda ledger: ledger.begin(again))
            elif found[0].state is State.CANCELLED:
                await self._remove(work.entry.id)
        except errors.LedgerUnavailable:
            work.end()
            await asyncio.sleep(self._intervals.retry)
            return False
        return True

    def _log_end(self, work: Work, seconds: float) -> None:
        fields = work.exchange.log_fields(seconds)
        codes = [outcome.result.code for outcome in work.outcomes if isinstance(outcome.result, errors.BananaError)]
        found = {name: fields[name] for name in _LOGGED if name in fields}
        exchange = work.exchange
        undelivered = exchange.undelivered_usd(caller_left=False)
        metrics.count_cost(exchange.caller_label, exchange.model or "", exchange.charged_usd, undelivered)
        if work.exchange.images_returned:
            # Whoever asked may have left: it is kept for when it comes back.
            label = metrics.model_label(work.exchange.model or "")
            metrics.images.labels(label, work.exchange.caller_label).inc(work.exchange.images_returned)
        more = ({"task": True} if work.entry.is_task else {}) | ({"codes": codes} if codes else {})
        log.info("carried_out", **found, **more)

    def _log_failure(self, error: OSError) -> None:
        if not self.files_fail:
            log.error(
                "not_kept",
                error=str(error),
                message="Images are sent to callers, but not kept, until this works again.",
            )
        self.files_fail = True


def _cancelled_unsent() -> errors.InProgress:
    return errors.InProgress(
        "The task with this Idempotency-Key was cancelled before anything was sent to Google. Repeat the request to run it."
    )


def conclusion_of(outcomes: list[Outcome]) -> tuple[State, bool]:
    """Return what a request became, and whether its key stays used: whenever it may have been billed."""
    found = [outcome.result for outcome in outcomes if isinstance(outcome.result, errors.BananaError)]
    if len(found) < len(outcomes):
        return State.COMPLETED, True
    # A response without an image that is certainly free is as good as none; a refusal stays one.
    keeps_key = (
        error.was_answered and not (error.is_unbilled and error.code == errors.NoImage.code) for error in found
    )
    return State.FAILED, any(keeps_key)


def outcome_is_unknown(outcome: Outcome) -> bool:
    """Return whether it was never learnt what became of a call."""
    return isinstance(outcome.result, errors.OutcomeUnknown)


def results_of(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the outcomes in the order of their calls. Raises the error that stands for all when all are errors."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.index)
    found = [outcome.result for outcome in ordered if isinstance(outcome.result, errors.BananaError)]
    if len(found) == len(ordered):
        raise decisive_error(found)
    return ordered


def _size_of_file(outcome: Outcome) -> int:
    """Return how large an outcome's file is, in bytes: an image is kept without its base64."""
    size_bytes = size_of_content(outcome)
    return size_bytes * 3 // 4 if isinstance(outcome.result, Image) else size_bytes


def size_of_content(outcome: Outcome) -> int:
    """Return how much of an outcome is in memory, in bytes."""
    match outcome.result:
        case Image(picture):
            return picture.size_bytes
        case UpstreamResponse(_, _, pieces):
            return sum(map(len, pieces))
        case Words(text):
            return len(text)
    return 0
