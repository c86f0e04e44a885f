"""Room for calls: a fixed number run, a bounded line waits in order of arrival, the rest are refused at once."""

import asyncio
from types import TracebackType

from banana import errors, metrics


class Slots:
    """An asynchronous context manager that holds one slot; raises Overloaded when the line is full.

    Nothing else queues in this service: the HTTP client behind it always finds a free connection.
    """

    def __init__(self, size: int, max_waiting: int) -> None:
        self.size = size
        self.max_waiting = max_waiting
        self.waiting = 0
        self._semaphore = asyncio.Semaphore(size)

    def check(self) -> None:
        """Return when there is room for one more call, running or waiting. Raises Overloaded."""
        if self._semaphore.locked() and self.waiting >= self.max_waiting:
            raise errors.Overloaded(
                f"All {self.size} connections are busy and {self.waiting} calls are waiting. Nothing was sent to Google.",
                retry_after_seconds=errors.RETRY_AFTER_SECONDS,
            )

    async def __aenter__(self) -> None:
        if not self._semaphore.locked():
            await self._semaphore.acquire()
            metrics.upstream_in_flight.inc()
            return
        self.check()
        self.waiting += 1
        metrics.waiting.inc()
        try:
            await self._semaphore.acquire()
        finally:
            self.waiting -= 1
            metrics.waiting.dec()
        metrics.upstream_in_flight.inc()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        metrics.upstream_in_flight.dec()
        self._semaphore.release()
