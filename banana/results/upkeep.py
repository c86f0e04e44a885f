"""What goes on beside the requests: showing that this worker lives, taking up what others left behind, sweeping."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog

from banana import errors, metrics
from banana.exchange import Exchange, send_by_of
from banana.images import Outcome
from banana.intervals import INTERVALS, Intervals
from banana.ledger.leases import Leases
from banana.ledger.ledger import Entry, State
from banana.ledger.thread import LedgerThread
from banana.results.documents import document_of, recovered_outcomes
from banana.results.files import Files
from banana.results.links import Links
from banana.results.requests import KeptRequests
from banana.results.works import Job, Works, conclusion_of, outcome_is_unknown

log = structlog.get_logger(__name__)


class SweepOnly:
    """Stands for `Upkeep` where nothing is kept: what was kept before is removed."""

    def __init__(self, files: Files) -> None:
        self._files = files

    @property
    def degraded(self) -> list[str]:
        """What works with less than it should: nothing."""
        return []

    async def run(self) -> None:
        """Remove everything once."""
        with suppress(OSError):
            await self._files.sweep()

    async def drain(self) -> None:
        """Return: there is nothing to be finished."""

    def close(self) -> None:
        """End the threads."""
        self._files.close()


class Upkeep:
    """Runs beside the requests.

    Args:
        ledger: of all workers.
        leases: who of them lives.
        files: where pictures are kept.
        links: to them.
        works: what this worker carries out.
        requests: what it claims.
        jobs: read the order of a task for each route. Raises BananaError when it cannot be carried out any more.
        task_timeout_seconds: from a task's beginning to its deadline.
        label_of: returns the label of a caller in metrics.

    """

    def __init__(
        self,
        ledger: LedgerThread,
        leases: Leases,
        files: Files,
        links: Links,
        works: Works,
        requests: KeptRequests,
        jobs: dict[str, Callable[[bytes], Job]],
        task_timeout_seconds: float,
        label_of: Callable[[str], str],
        intervals: Intervals = INTERVALS,
    ) -> None:
        self._intervals = intervals
        self._ledger = ledger
        self._files = files
        self._links = links
        self._works = works
        self._requests = requests
        self._jobs = jobs
        self._task_timeout_seconds = task_timeout_seconds
        self._sweep_fails = False
        self._leases = leases
        self._label_of = label_of
        self._not_readable: set[str] = set()

    @property
    def degraded(self) -> list[str]:
        """What works with less than it should, beside the ledger."""
        return ["results"] if self._works.files_fail else []

    async def drain(self) -> None:
        """Return when this worker has carried out what it began."""
        await self._requests.drain()
        await self._works.drain()

    def close(self) -> None:
        """End the threads."""
        self._files.close()

    async def run(self) -> None:
        """Look after everything until cancelled; what takes long in one part holds up no other."""
        await asyncio.gather(
            _repeated(self.look, self._intervals.task_look), _repeated(self.sweep, self._intervals.sweep)
        )

    async def look(self) -> None:
        """Take up what is left behind. Raises LedgerUnavailable."""
        metrics.keeping_degraded.labels("ledger").set(self._ledger.fails)
        metrics.keeping_degraded.labels("results").set(self._works.files_fail)
        own = await self._ledger.look(lambda ledger: ledger.active(self._works.owner))
        for entry in await self._left_behind(own):
            try:
                await self._take_over(entry)
                self._not_readable.discard(entry.id)
            except OSError as error:  # another look may find its files better
                if entry.id not in self._not_readable:
                    log.error("not_taken_over", kept_id=entry.id, error=str(error))
                self._not_readable.add(entry.id)
        await self._cancel_cancelled({entry.id for entry in own})

    async def sweep(self) -> None:
        """Share the secret of links, remove what has expired or makes room, and count what there is."""
        with suppress(OSError):
            await self._links.share(self._ledger)
        await self._sweep_orders(await self._sweep_files())
        await self._ledger.look(lambda ledger: ledger.sweep())
        tasks = await self._ledger.look(lambda ledger: ledger.count_tasks())
        for state in State:
            metrics.tasks.labels(state).set(tasks.get(state, 0))

    async def _sweep_files(self) -> set[str]:
        """Return the ids of the tasks whose orders are there, where this worker swept."""
        try:
            left = await self._files.sweep()
            if self._works.files_fail:
                await self._files.check()
                self._works.files_fail = False
            self._sweep_fails = False
        except OSError as error:
            if not self._sweep_fails and not self._works.files_fail:
                log.warning("not_swept", error=str(error))
            self._sweep_fails = True
            return set()
        if left is None:
            return set()
        metrics.kept_bytes.set(left.size_bytes)
        metrics.kept_files.set(left.files)
        return left.settled_orders

    async def _sweep_orders(self, orders: set[str]) -> None:
        """Remove those `orders` whose tasks have ended. Raises LedgerUnavailable."""
        with suppress(OSError):
            found = await self._ledger.look(lambda ledger: ledger.get(orders)) if orders else []
            for entry_id in orders - {entry.id for entry in found if entry.state.is_active}:
                await self._files.remove_order(entry_id)

    async def _left_behind(self, own: Sequence[Entry]) -> list[Entry]:
        """Return the entries whose owner has died, or is this worker, which is not at them. Raises LedgerUnavailable.

        Of others only the owners are looked at, however much they carry out.
        """
        others = await self._ledger.look(lambda ledger: ledger.owners()) - {self._works.owner}
        forgotten = {entry.id: entry for entry in own if not self._requests.is_at(entry.id)}
        lapsed = await self._leases.lapsed({owner: owner for owner in others} | dict.fromkeys(forgotten))
        left = [forgotten[name] for name in lapsed if name in forgotten]
        for owner in lapsed & others:
            left += await self._ledger.look(lambda ledger, owner=owner: ledger.active(owner))  # type: ignore[misc]
        return left

    async def _take_over(self, entry: Entry) -> None:
        """Carry out what was not sent and is a task; settle what was sent; forget the rest."""
        if entry.state is State.SENT:
            await self._presume(entry)
        elif not entry.is_task:
            await self._ledger.record(lambda ledger: ledger.discard(entry.id, entry.owner))
        else:
            await self._take_up(entry)
        log.warning("taken_over", kept_id=entry.id, state=entry.state, owner=entry.owner)

    async def _presume(self, entry: Entry) -> None:
        """Settle what was sent by what lies in its files; the rest is unknown."""
        outcomes = await recovered_outcomes(entry, self._files)
        state, _ = conclusion_of(outcomes)
        document = document_of(outcomes)
        expires_at = time.time() + self._files.keep_seconds
        settled = await self._ledger.record(
            lambda ledger: ledger.presume(entry.id, entry.owner, state, document, expires_at)
        )
        if settled and any(map(outcome_is_unknown, outcomes)):
            metrics.unknown_outcomes.inc()
            log.error("outcome_unknown", kept_id=entry.id, request_id=entry.request_id)

    async def _take_up(self, entry: Entry) -> None:
        """Carry out a task that was not sent; it fails when its order is gone, or none. Raises OSError."""
        try:
            job = self._jobs[entry.route](await self._files.read_order(entry.id))
        except Exception as error:  # whatever a file that is half there raises
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise
            log.error("order_not_read", kept_id=entry.id, error=str(error))
            await self._fail(entry)
            return
        left_seconds = entry.created_at + self._task_timeout_seconds - time.time()
        # A clock that was set meanwhile neither ends a task before it began nor lets it run for ever.
        left_seconds = min(max(left_seconds, 1), self._task_timeout_seconds)
        if await self._ledger.record(lambda ledger: ledger.take_up(entry.id, entry.owner, self._works.owner)):
            deadline = asyncio.get_running_loop().time() + left_seconds
            exchange = Exchange(
                deadline=deadline,
                send_by=send_by_of(deadline, self._task_timeout_seconds),
                request_id=entry.request_id,
                caller=entry.caller,
                caller_label=self._label_of(entry.caller),
                path=entry.route,
            )
            with structlog.contextvars.bound_contextvars(request_id=entry.request_id):
                self._works.start(job, entry, exchange)

    async def _fail(self, entry: Entry) -> None:
        error = errors.Overloaded(
            "The worker of this task died, and its request can no longer be read. Nothing was sent to Google or billed."
            " Create the task again."
        )
        document = document_of([Outcome(0, error)])
        expires_at = time.time() + self._files.keep_seconds
        await self._ledger.record(
            lambda ledger: ledger.settle(entry.id, entry.owner, State.FAILED, document, expires_at, expires_at)
        )

    async def _cancel_cancelled(self, active: set[str]) -> None:
        """End the works whose tasks were cancelled in another worker."""
        ids = [work.entry.id for work in self._works if work.entry.id not in active]
        if ids:
            for entry in await self._ledger.look(lambda ledger: ledger.get(ids)):
                if entry.state is State.CANCELLED:
                    self._works.cancel(entry.id)


async def _repeated(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Do `work` again and again, `seconds` apart, until cancelled, whatever it raises."""
    while True:
        try:
            await work()
        except errors.LedgerUnavailable:
            pass  # it is in the log and in /ready
        except Exception:
            log.exception("internal_error")
        await asyncio.sleep(seconds)
