"""Requests that are carried out once: those with an Idempotency-Key, and tasks. The same request finds what it became.

Whoever comes first claims the entry and carries it out; whoever comes later joins, in any worker, or is given what is kept.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog
from msgspec import structs

from banana import errors, metrics
from banana.exchange import Exchange, send_by_of
from banana.google.wire import Image, Words
from banana.images import Outcome, Outcomes
from banana.intervals import INTERVALS, Intervals
from banana.ledger.ledger import Entry, State
from banana.ledger.thread import LedgerThread
from banana.payload.beside import beside
from banana.payload.memory import Buffers
from banana.results import documents
from banana.results.files import EXTENSIONS, Files
from banana.results.fingerprints import are_of_one_request, fingerprint_of
from banana.results.history import KeptHistory, Said
from banana.results.links import Links
from banana.results.watch import Watch
from banana.results.works import (
    BOOKKEEPING_SECONDS,
    RELEASED_SECONDS,
    STORE_SPARE_SECONDS,
    Job,
    Work,
    Works,
    results_of,
    size_of_content,
)

ID_BYTES = 16
# How soon a poll notices that its worker is to end.
DRAINING_SECONDS = 1
# When to try again a request that is still being carried out, in seconds.
RETRY_AFTER_SECONDS = 3
# On a response that cost nothing, because it was paid for before.
REPLAY_HEADERS = {"Idempotent-Replayed": "true", "X-Cost-USD": "0.000000"}

Result = TypeVar("Result")
# Counts a request against a rate limit, given whether it is a new one. Raises RateLimited.
Admission = Callable[[bool], Awaitable[None]]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Submission:
    """One HTTP request for a job.

    Attributes:
        job: what is to be carried out.
        exchange: of the request.
        key: its Idempotency-Key, if any.
        is_task: whether it is to be a task.
        admit: counts it against a rate limit.
        entry: which holds for it, once it is claimed.
        work: on the entry, where this worker carries it out.
        is_replay: whether an earlier request holds the entry.
        has_left: whether its caller left while the entry was claimed.
        is_followed: whether its caller waits for a task to end: its deadline is the request's then.

    """

    job: Job
    exchange: Exchange
    key: str | None
    is_task: bool
    admit: Admission
    entry: Entry | None = None
    work: Work | None = None
    is_replay: bool = False
    has_left: bool = False
    is_followed: bool = False

    @property
    def is_active(self) -> bool:
        """Whether the entry has not ended."""
        return self.entry is None or self.entry.state.is_active


class NothingKept:
    """Stands for `KeptRequests` where KEEP_RESULTS_SECONDS is 0: what needs to be kept is refused by name."""

    keeps = False

    async def is_known(self, caller: str, key: str) -> bool:
        """Raise InvalidRequest."""
        raise _not_kept("Idempotency-Key")

    def check_kept(self, field: str) -> None:
        """Raise InvalidRequest."""
        raise _not_kept(field)

    async def submit(self, submission: Submission) -> None:
        """Raise InvalidRequest."""
        path = submission.exchange.path
        raise _not_kept(path if path.endswith("/async") else "Prefer: respond-async")

    async def outcomes(self, submission: Submission, *, with_content: bool) -> AsyncGenerator[Outcome | None, None]:
        """Yield nothing: nothing is submitted."""
        nothing: list[Outcome] = []
        for outcome in nothing:
            yield outcome

    async def keep_unclaimed(
        self, outcomes: AsyncGenerator[Outcome | None, None], exchange: Exchange
    ) -> AsyncGenerator[Outcome | None, None]:
        """Yield `outcomes`."""
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome

    def keep_ended(
        self, outcomes: AsyncGenerator[Outcome | None, None], exchange: Exchange, route: str, calls: int
    ) -> AsyncGenerator[Outcome | None, None]:
        """Return `outcomes`."""
        return outcomes

    def store_input(self, entry_id: str, previous: str, said: Said) -> None:
        """Do nothing."""

    async def response(self, entry_id: str, caller: str, route: str) -> Entry:
        """Raise NotFound."""
        raise _no_task(entry_id)

    def linked(self, outcome: Outcome, base_url: str) -> Outcome:
        """Return the outcome: it has no link."""
        return outcome

    async def task(self, entry_id: str, caller: str, wait_seconds: float = 0) -> Entry:
        """Raise NotFound."""
        raise _no_task(entry_id)

    async def tasks(self, caller: str, limit: int, after: str | None) -> Sequence[Entry]:
        """Return nothing."""
        return []

    async def outcomes_of(self, entry: Entry, base_url: str, *, as_links: bool) -> Outcomes:
        """Raise NotFound."""
        raise _no_task(entry.id)

    async def delete_task(self, entry_id: str, caller: str, *, only_active: bool = False) -> None:
        """Raise NotFound."""
        raise _no_task(entry_id)

    async def cancel_task(self, entry_id: str, caller: str) -> Entry:
        """Raise NotFound."""
        raise _no_task(entry_id)


class KeptRequests:
    """Claims, joins, replays, and the tasks of a caller.

    Attributes:
        keeps: whether anything is kept.

    Args:
        ledger: of all workers.
        files: where pictures are kept.
        links: to them.
        buffers: where what is held in memory is counted.
        works: what this worker carries out.
        history: stores what responses begin with.
        task_timeout_seconds: from a task's beginning to its deadline.
        is_draining: whether this worker is to end: polls do not hold it up.
        is_stopping: whether the service is: no task is begun.

    """

    keeps = True

    def __init__(
        self,
        ledger: LedgerThread,
        files: Files,
        links: Links,
        buffers: Buffers,
        works: Works,
        history: KeptHistory,
        task_timeout_seconds: float,
        is_draining: Callable[[], bool],
        is_stopping: Callable[[], bool],
        intervals: Intervals = INTERVALS,
    ) -> None:
        self._silence_seconds = intervals.silence
        self._is_draining = is_draining
        self._is_stopping = is_stopping
        self._ledger = ledger
        self._files = files
        self._links = links
        self._buffers = buffers
        self._works = works
        self._history = history
        self._watch = Watch(ledger)
        self._task_timeout_seconds = task_timeout_seconds
        self._claims: dict[str, asyncio.Task[None]] = {}
        self._recording: set[asyncio.Task[Any]] = set()
        self._inputs: dict[str, asyncio.Task[None]] = {}

    def check_kept(self, field: str) -> None:
        """Return when something can be kept, because of a request's `field`. Raises InvalidRequest."""

    @property
    def is_claiming(self) -> bool:
        """Whether this worker claims anything."""
        return bool(self._claims)

    async def drain(self) -> None:
        """Return when every claim has become a work, or nothing."""
        while self._claims or self._recording:
            await asyncio.wait([*self._claims.values(), *self._recording])

    def is_at(self, entry_id: str) -> bool:
        """Return whether this worker claims or carries out the entry."""
        return entry_id in self._works or entry_id in self._claims

    async def is_known(self, caller: str, key: str) -> bool:
        """Return whether there is an entry for a caller's key. Raises LedgerUnavailable."""
        return await self._ledger.look(lambda ledger: ledger.find(caller, key)) is not None

    async def submit(self, submission: Submission) -> None:
        """Claim the entry of a request; whoever leaves meanwhile has begun it all the same.

        Raises IdempotencyMismatch, LedgerUnavailable, and what `admit` raises.
        """
        entry_id = secrets.token_hex(ID_BYTES)
        # The body stays in memory for as long as the claim and its work, whoever leaves.
        holder = Exchange(deadline=submission.exchange.deadline)
        self._buffers.hand_over(submission.exchange, holder)
        claim = asyncio.create_task(self._claim(submission, entry_id, holder))
        self._claims[entry_id] = claim
        claim.add_done_callback(lambda _: self._claimed(entry_id, holder, submission))
        try:
            await asyncio.shield(claim)
        except asyncio.CancelledError:
            submission.has_left = True
            claim.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    def _claimed(self, entry_id: str, holder: Exchange, submission: Submission) -> None:
        del self._claims[entry_id]
        if submission.has_left:
            self._buffers.release(holder)
        else:
            self._buffers.hand_over(holder, submission.exchange)

    async def outcomes(self, submission: Submission, *, with_content: bool) -> AsyncGenerator[Outcome | None, None]:
        """Yield what each call of a submitted request became, and None in silences.

        Raises InProgress at the request's deadline while an earlier one is still being carried out, and Expired.
        """
        while True:
            source = self._followed(submission) if submission.work else self._found(submission, with_content)
            try:
                async for outcome in source:
                    yield outcome
                return
            except _Forgotten:  # by a worker that died before it sent anything
                await self.submit(submission)
            finally:
                await source.aclose()

    async def keep_unclaimed(
        self, outcomes: AsyncGenerator[Outcome | None, None], exchange: Exchange
    ) -> AsyncGenerator[Outcome | None, None]:
        """Yield `outcomes`, whose images are kept, of a request that nothing else is kept of."""
        exchange.kept_id = secrets.token_hex(ID_BYTES)
        async with aclosing(outcomes):
            async for outcome in outcomes:
                until = exchange.deadline - STORE_SPARE_SECONDS
                yield outcome and await self._works.keep(outcome, exchange.kept_id, until)

    async def keep_ended(
        self, outcomes: AsyncGenerator[Outcome | None, None], exchange: Exchange, route: str, calls: int
    ) -> AsyncGenerator[Outcome | None, None]:
        """Yield `outcomes` of a request that is recorded when it has ended, to be found by its id.

        Before that nothing is written down of it: it ends with its caller, and needs no ledger.
        """
        exchange.kept_id, exchange.kept_since = secrets.token_hex(ID_BYTES), time.time()
        holder = Exchange(deadline=exchange.deadline)
        storing: list[asyncio.Task[Outcome]] = []
        try:
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    if outcome is not None and not isinstance(outcome.result, errors.BananaError):
                        self._buffers.hold(holder, size_of_content(outcome))
                        storing.append(asyncio.create_task(self._works.keep(outcome, exchange.kept_id)))
                    yield outcome
        finally:
            recording = self._beside(self._record_ended(storing, exchange, route, calls), holder)
        # The next request may refer to it; a disk or a ledger that hangs must not delay the response.
        left_seconds = exchange.deadline - STORE_SPARE_SECONDS - asyncio.get_running_loop().time()
        await asyncio.wait([recording], timeout=max(0, min(BOOKKEEPING_SECONDS, left_seconds)))

    def store_input(self, entry_id: str, previous: str, said: Said) -> None:
        """Begin to store what a response begins with; its images are held until that has ended."""
        holder = Exchange(deadline=0)
        pictures = (part.picture for turn in said.turns for part in turn.parts if part.picture)
        self._buffers.hold(holder, sum(picture.size_bytes for picture in pictures))
        storing = self._beside(self._history.store_input(entry_id, previous, said), holder)
        self._inputs[entry_id] = storing
        storing.add_done_callback(lambda _: self._inputs.pop(entry_id, None))

    def _beside(self, work: Coroutine[Any, Any, Result], holder: Exchange) -> "asyncio.Task[Result]":
        """Begin a piece of work that outlives its request, and what is held in memory for it."""
        task = asyncio.create_task(work)
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)
        task.add_done_callback(lambda _: self._buffers.release(holder))
        return task

    async def response(self, entry_id: str, caller: str, route: str) -> Entry:
        """Return what is recorded of a caller's request by its id, of this route. Raises NotFound and LedgerUnavailable.

        One with an Idempotency-Key is a task from now on, so that it can be deleted.
        """
        found = await self._ledger.look(lambda ledger: ledger.get([entry_id]))
        entry = next((entry for entry in found if entry.caller == caller and entry.route == route), None)
        if entry is None:
            raise _no_task(entry_id)
        if not entry.is_task and entry.key is not None:
            as_task = replace(entry, is_task=True)
            entry = await self._ledger.record(lambda ledger: ledger.begin(as_task))
        return _of_caller([entry], entry_id, caller)

    async def _record_ended(
        self, storing: "list[asyncio.Task[Outcome]]", exchange: Exchange, route: str, calls: int
    ) -> None:
        ended = await asyncio.gather(*storing)
        entry_id = exchange.kept_id or ""
        if entry_id in self._inputs:
            await asyncio.wait([self._inputs[entry_id]])
        if not ended:  # what it began with could never be deleted
            with suppress(OSError):
                await self._files.remove(entry_id)
            return
        assert exchange.caller is not None
        now = time.time()
        entry = Entry(
            id=entry_id,
            caller=exchange.caller,
            key=None,
            route=route,
            fingerprint="",  # nobody asks for it by a key
            calls=calls,
            has_links=False,
            is_task=True,
            owner=self._works.owner,
            request_id=exchange.request_id,
            keep_seconds=self._files.keep_seconds,
            created_at=exchange.kept_since or now,
            expires_at=now + self._files.keep_seconds,
            state=State.COMPLETED,
            result=documents.document_of(ended),
        )
        with suppress(errors.LedgerUnavailable):  # it is logged; the caller has its image
            await self._ledger.record(lambda ledger: ledger.begin(entry))

    def linked(self, outcome: Outcome, base_url: str) -> Outcome:
        """Return the outcome with a link below `base_url` to its image, where that is kept.

        Raises LedgerUnavailable when there can be no link, and the image itself was not read.
        """
        if not outcome.file.endswith(tuple(EXTENSIONS.values())):
            return outcome
        expires_at = outcome.created_at + int(self._files.keep_seconds)
        try:
            return structs.replace(outcome, url=self._links.url(base_url, outcome.file, expires_at))
        except OSError as error:
            if size_of_content(outcome):
                return outcome
            raise errors.LedgerUnavailable from error

    async def task(self, entry_id: str, caller: str, wait_seconds: float = 0) -> Entry:
        """Return a caller's task; when it has ended, or after `wait_seconds`. Raises NotFound and LedgerUnavailable."""
        entry = _of_caller(await self._ledger.look(lambda ledger: ledger.get([entry_id])), entry_id, caller)
        until = time.monotonic() + wait_seconds
        while entry.state.is_active and (left_seconds := until - time.monotonic()) > 0 and not self._is_draining():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_seconds, DRAINING_SECONDS)):
                    ended = await self._watch.until_ended(entry_id)
                    return _of_caller([ended] if ended else [], entry_id, caller)
        return entry

    async def tasks(self, caller: str, limit: int, after: str | None) -> Sequence[Entry]:
        """Return a caller's tasks, newest first. Raises NotFound and LedgerUnavailable."""
        found = await self._ledger.look(lambda ledger: ledger.tasks(caller, limit, after))
        if found is None:
            raise _no_task(after or "")
        return found

    async def outcomes_of(self, entry: Entry, base_url: str, *, as_links: bool) -> Outcomes:
        """Return what a task that has ended became, as far as it is there. Raises its error when all of it are errors."""
        with_content = not as_links
        outcomes = await documents.outcomes_of(entry, self._files, with_content=with_content, without_what_is_gone=True)
        return Outcomes(
            [self.linked(outcome, base_url) for outcome in results_of(outcomes)], entry.id, int(entry.created_at)
        )

    async def delete_task(self, entry_id: str, caller: str, *, only_active: bool = False) -> None:
        """Cancel a caller's task, or delete it with its pictures; to its end, also when the caller leaves.

        With `only_active` one that has ended stays. Raises NotFound, PreconditionFailed and LedgerUnavailable.
        """
        await asyncio.shield(asyncio.create_task(self._delete(entry_id, caller, only_active=only_active)))

    async def cancel_task(self, entry_id: str, caller: str) -> Entry:
        """Cancel a caller's task, when it has not ended; return it. Raises NotFound and LedgerUnavailable."""
        await asyncio.shield(asyncio.create_task(self._cancel(entry_id, caller)))
        return await self.task(entry_id, caller)

    async def _cancel(self, entry_id: str, caller: str) -> bool:
        unknown = documents.document_of([Outcome(0, errors.OutcomeUnknown())])
        expires_at = time.time() + self._files.keep_seconds
        if not await self._ledger.record(lambda ledger: ledger.cancel(entry_id, caller, unknown, expires_at)):
            return False
        self._works.cancel(entry_id)
        with suppress(OSError):
            await self._files.remove(entry_id)
        return True

    async def _delete(self, entry_id: str, caller: str, *, only_active: bool) -> None:
        if entry_id in self._inputs:  # what is still being written would be there again
            await asyncio.wait([self._inputs[entry_id]])
        if await self._cancel(entry_id, caller):
            return
        _of_caller(await self._ledger.look(lambda ledger: ledger.get([entry_id])), entry_id, caller)
        if only_active:
            raise errors.PreconditionFailed(
                "The task has already ended and was not deleted. To delete it, leave out If-Match."
            )
        try:
            # Before its entry: what cannot be removed can be deleted again.
            await self._files.remove(entry_id)
        except OSError as error:
            log.error("not_deleted", kept_id=entry_id, error=str(error))
            raise errors.LedgerUnavailable from error
        await self._ledger.record(lambda ledger: ledger.delete(entry_id, caller))

    async def _claim(self, submission: Submission, entry_id: str, holder: Exchange) -> None:
        exchange, job = submission.exchange, submission.job
        assert exchange.caller is not None
        now = time.time()
        new = Entry(
            id=entry_id,
            caller=exchange.caller,
            key=submission.key,
            route=job.route,
            fingerprint=await beside(exchange.bytes_in, fingerprint_of, job.route, job.content),
            calls=job.calls,
            has_links=job.has_links,
            is_task=submission.is_task,
            owner=self._works.owner,
            request_id=exchange.request_id,
            keep_seconds=self._files.keep_seconds,
            created_at=now,
            expires_at=now + self._files.keep_seconds,
        )
        holding = await self._ledger.record(lambda ledger: ledger.begin(new))
        submission.is_replay = holding.id != new.id
        if not are_of_one_request(new.fingerprint, holding.fingerprint):
            raise errors.IdempotencyMismatch(
                "This Idempotency-Key was already used for a different request. Use a new key for each new request."
            )
        submission.entry = holding
        exchange.kept_id, exchange.kept_since, exchange.replayed = holding.id, holding.created_at, submission.is_replay
        if submission.is_replay:
            await submission.admit(False)
            submission.work = self._works.get(holding.id)
            if submission.work is not None and holding.is_task:
                submission.work.entry = replace(submission.work.entry, is_task=True)
            exchange.response_headers |= REPLAY_HEADERS
            metrics.replays.labels("joined" if holding.state.is_active else "replayed").inc()
        else:
            for name in REPLAY_HEADERS:
                exchange.response_headers.pop(name, None)
            submission.work = await self._begun(submission, new, holder)

    async def _begun(self, submission: Submission, entry: Entry, holder: Exchange) -> Work:
        """Begin to carry out an entry; when that is not to be, those who have joined it meanwhile are told why."""
        try:
            if submission.is_task and self._is_stopping():
                raise errors.Overloaded(
                    "This service is stopping and begins no more tasks. Nothing was sent to Google. Repeat the request.",
                    retry_after_seconds=errors.RETRY_AFTER_SECONDS,
                )
            await submission.admit(True)
            if submission.is_task:
                await self._write_order(submission.job, entry)
        except BaseException as error:
            with suppress(errors.LedgerUnavailable):
                await self._withdraw(entry, error)
            raise
        exchange = self._exchange_for(submission)
        self._buffers.hand_over(holder, exchange)
        return self._works.start(submission.job, entry, exchange)

    async def _withdraw(self, entry: Entry, why: BaseException) -> None:
        """Forget an entry that is not carried out; one that others may have joined says why for a while."""
        if entry.key is None or not isinstance(why, errors.BananaError):
            await self._ledger.record(lambda ledger: ledger.discard(entry.id, entry.owner))
            return
        document = documents.document_of([Outcome(0, why)])
        until = time.time() + RELEASED_SECONDS
        await self._ledger.record(
            lambda ledger: ledger.settle(entry.id, entry.owner, State.FAILED, document, until, released_at=until)
        )

    async def _write_order(self, job: Job, entry: Entry) -> None:
        try:
            await self._files.write_order(entry.id, map(bytes, job.order()))
        except OSError as error:
            log.error("order_not_written", error=str(error))
            raise errors.LedgerUnavailable from error

    def _exchange_for(self, submission: Submission) -> Exchange:
        """Return the exchange of a work, which may outlive that of the request that began it."""
        exchange = submission.exchange
        deadline, send_by = exchange.deadline, exchange.send_by
        if submission.is_task and not submission.is_followed:
            deadline = asyncio.get_running_loop().time() + self._task_timeout_seconds
            send_by = send_by_of(deadline, self._task_timeout_seconds)
        return Exchange(
            deadline=deadline,
            send_by=send_by,
            request_id=exchange.request_id,
            trace_id=exchange.trace_id,
            method=exchange.method,
            path=exchange.path,
            dialect=exchange.dialect,
            caller=exchange.caller,
            caller_label=exchange.caller_label,
        )

    async def _followed(self, submission: Submission) -> AsyncGenerator[Outcome | None, None]:
        """Yield the outcomes of a work in this worker as they come."""
        work, exchange = submission.work, submission.exchange
        assert work is not None
        source = work.follow()
        try:
            while True:
                # A new one ends at this request's deadline by itself, and says how.
                async with asyncio.timeout_at(exchange.deadline if submission.is_replay else None):
                    outcome = await anext(source)
                yield outcome
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _in_progress() from None
        finally:
            await source.aclose()
            exchange.copy_counts(work.exchange, as_replay=submission.is_replay)

    async def _found(self, submission: Submission, with_content: bool) -> AsyncGenerator[Outcome | None, None]:
        """Yield the outcomes of an entry that another worker carries out, or that has ended."""
        entry, exchange = submission.entry, submission.exchange
        assert entry is not None
        if entry.state.is_active:
            waiting = asyncio.create_task(self._watch.until_ended(entry.id))
            try:
                async for _ in _silences(waiting, exchange.deadline, self._silence_seconds):
                    yield None
                found = waiting.result()
            finally:
                waiting.cancel()
            if found is None:
                raise _Forgotten
            entry = found
        outcomes = await documents.outcomes_of(entry, self._files, with_content=with_content)
        exchange.images_requested = entry.calls
        exchange.images_returned = sum(
            not isinstance(outcome.result, errors.BananaError | Words) for outcome in outcomes
        )
        exchange.answered_model = next((model for outcome in outcomes if (model := model_of(outcome))), "")
        for outcome in outcomes:
            self._buffers.hold(exchange, size_of_content(outcome))
            yield outcome


class _Forgotten(Exception):
    """The entry is not there any more: nothing was sent for it."""


def model_of(outcome: Outcome) -> str:
    """Return the model that answered a call; empty where that is not known."""
    return outcome.result.model if isinstance(outcome.result, Image | Words) else ""


async def _silences(
    waiting: "asyncio.Task[Entry | None]", deadline: float, silence_seconds: float
) -> AsyncGenerator[None, None]:
    """Yield in every silence until `waiting` is done. Raises InProgress at `deadline`."""
    loop = asyncio.get_running_loop()
    while True:
        left_seconds = deadline - loop.time()
        done, _ = await asyncio.wait([waiting], timeout=min(left_seconds, silence_seconds))
        if done:
            return
        if loop.time() >= deadline:
            raise _in_progress()
        yield


def _in_progress() -> errors.InProgress:
    return errors.InProgress(
        "A request with this Idempotency-Key is still running. Repeat this request later to get its result.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _not_kept(name: str) -> errors.InvalidRequest:
    problem = "is not supported: this service keeps no results (KEEP_RESULTS_SECONDS=0)"
    return errors.InvalidRequest.of_fields([(name, problem)])


def _no_task(entry_id: str) -> errors.NotFound:
    return errors.NotFound(f"Task {entry_id[:100]} was not found. It may have expired, or belong to another caller.")


def _of_caller(found: Sequence[Entry], entry_id: str, caller: str) -> Entry:
    for entry in found:
        has_expired = not entry.state.is_active and entry.expires_at <= time.time()
        if entry.caller == caller and entry.is_task and not has_expired:
            return entry
    raise _no_task(entry_id)
