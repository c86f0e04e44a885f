"""When a call is repeated, and when never: the money table. No I/O but the pause itself."""

import asyncio
import random

from banana import errors


class Repeats:
    """Decides, for one call, whether it is repeated after a failure, and when.

    Repeated are: a connection that failed before the request was sent, and 503; 429 when Google's own delay fits the
    deadline and the quota is not the day's; 500, 502 and 504 once. Nothing else: whatever may have been paid for is
    never sent again. Source: reference of Google's error codes, and the bills of those who did otherwise
    (https://github.com/Comfy-Org/ComfyUI/issues/16204).
    """

    def __init__(self, most: int, backoff_seconds: float, deadline: float) -> None:
        self.attempt = 1
        self._most = most
        self._backoff_seconds = backoff_seconds
        self._deadline = deadline
        self._faults = 0

    async def pause_after(self, failure: errors.BananaError) -> None:
        """Wait until the call may be repeated; raise `failure` when it may not."""
        pause_seconds = self._pause_seconds(failure)
        left_seconds = self._deadline - asyncio.get_running_loop().time()
        if pause_seconds is None or self.attempt > self._most or pause_seconds >= left_seconds:
            raise failure
        self.attempt += 1
        await asyncio.sleep(pause_seconds)

    def _pause_seconds(self, failure: errors.BananaError) -> float | None:
        backoff_seconds: float = self._backoff_seconds * 2 ** (self.attempt - 1) * random.uniform(0.5, 1)
        match failure:
            case errors.NotConnected():
                return backoff_seconds
            case errors.UpstreamOverloaded():
                return max(backoff_seconds, failure.delay_seconds or 0)
            case errors.UpstreamQuota(retry_after_seconds=float(delay_seconds), per_day=False):
                return delay_seconds + random.uniform(0.05, 0.2)
            case errors.UpstreamFault():
                self._faults += 1
                return backoff_seconds if self._faults == 1 else None
        return None
