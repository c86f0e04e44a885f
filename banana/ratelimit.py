"""Who is counted, and what is allowed: one allowance a caller over all routes that make images.

slowapi decides, over a store that all workers share. The check comes before the body is read. When the store fails,
each worker allows its share by itself.
"""

import functools
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address
from starlette.requests import Request
from starlette.responses import Response

from banana import errors, store

WINDOW_SECONDS = 60
Handler = Callable[[Request], Awaitable[Response]]
Tell = Callable[[Request, errors.BananaError], Response]


class Allowance:
    """At most `per_minute` requests a caller in any 60 seconds, over all `workers`."""

    def __init__(self, store_url: str, per_minute: int, workers: int) -> None:
        assert "sqlite" in store.SQLiteStorage.STORAGE_SCHEME  # importing it registers it
        self._limiter = Limiter(
            key_func=get_remote_address,
            strategy="moving-window",
            storage_uri=store_url,
            in_memory_fallback=[f"{max(1, per_minute // workers)}/minute"],
            config_filename=str(Path(__file__).with_name("slowapi.env")),
        )
        self._shared = self._limiter.shared_limit(f"{per_minute}/minute", scope="images")

    def guard(self, handler: Handler, tell: Tell) -> Handler:
        """Return `handler` behind the allowance; its answers, errors too, carry X-RateLimit headers."""
        checked: Handler = self._shared(handler)

        @functools.wraps(handler)
        async def guarded(request: Request) -> Response:
            try:
                response = await checked(request)
            except RateLimitExceeded:
                response = tell(request, self._refusal(request))
            response.headers.update(self._headers(request))
            return response

        return guarded

    def _refusal(self, request: Request) -> errors.RateLimited:
        item, _ = request.state.view_rate_limit
        reset_at, _ = self._window(request)
        return errors.RateLimited(
            f"Over the allowance of {item.amount} requests in {WINDOW_SECONDS} seconds; the request was not carried out.",
            retry_after_seconds=reset_at - time.time(),
        )

    def _headers(self, request: Request) -> dict[str, str]:
        item, _ = request.state.view_rate_limit
        reset_at, remaining = self._window(request)
        return {
            "X-RateLimit-Limit": str(item.amount),
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": str(math.ceil(reset_at)),
        }

    def _window(self, request: Request) -> tuple[float, int]:
        """Return when the window's oldest request leaves it, in seconds of the epoch, and how many are left."""
        item, identifiers = request.state.view_rate_limit
        stats = self._limiter.limiter.get_window_stats(item, *identifiers)
        return stats.reset_time, stats.remaining
