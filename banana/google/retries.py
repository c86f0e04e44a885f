"""When a call is retried, and when never. No I/O but the pause itself."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from banana import errors


class RetryPolicy:
    """How often a call is retried, and after which pause.

    Retried are: a connection that failed before the request was sent, and 503; 429 that means contention, and 429 when
    Google's own delay fits the deadline and the quota is not the day's; 500, 502 and 504 once, and a response without an
    image once that is certainly free. Nothing else: a call that Google may have billed is never sent again. Source: Google's error codes, and the bills of those who did otherwise
    (https://github.com/Comfy-Org/ComfyUI/issues/16204).

    Args:
        retries: how often one call is retried, at most.
        backoff_seconds: pause before the first retry, doubled for each further one.
        sleep: how a pause is made, in seconds; tests hand in one that takes no time.

    """

    def __init__(
        self, retries: int, backoff_seconds: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.retries = retries
        self.backoff_seconds = backoff_seconds
        self.sleep = sleep

    def begin(self, deadline: float) -> "Retry":
        """Return the state of one call, which must end by `deadline`, in seconds of the event loop's clock."""
        return Retry(self, deadline)


class Retry:
    """One call's attempts; `attempt` counts from 1."""

    def __init__(self, policy: RetryPolicy, deadline: float) -> None:
        self.attempt = 1
        self._policy = policy
        self._deadline = deadline
        self._faults = 0

    async def pause_after(self, failure: errors.BananaError) -> None:
        """Wait until the call may be retried; raise `failure` when it may not."""
        pause_seconds = self._pause_seconds(failure)
        left_seconds = self._deadline - asyncio.get_running_loop().time()
        if pause_seconds is None or self.attempt > self._policy.retries or pause_seconds >= left_seconds:
            raise failure
        self.attempt += 1
        await self._policy.sleep(pause_seconds)

    def _pause_seconds(self, failure: errors.BananaError) -> float | None:
        doubled_seconds: float = self._policy.backoff_seconds * 2 ** (self.attempt - 1)
        backoff_seconds = doubled_seconds * random.uniform(0.5, 1)
        match failure:
            case errors.NotConnected():
                return backoff_seconds
            case errors.UpstreamOverloaded():
                return max(backoff_seconds, failure.delay_seconds or 0)
            case errors.UpstreamQuota(kind=errors.QuotaKind.CONTENTION):
                return backoff_seconds
            case errors.UpstreamQuota(retry_after_seconds=float(delay_seconds), per_day=False, may_wait=True):
                return delay_seconds + random.uniform(0.05, 0.2)
            case errors.UpstreamFault() | errors.NoImage(is_unbilled=True):
                self._faults += 1
                return backoff_seconds if self._faults == 1 else None
        return None
