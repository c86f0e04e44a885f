"""Who is counted, and what is allowed: one allowance a caller over all routes that make images.

slowapi decides, over a store that all workers share. The check comes before the body is read. When the store fails,
each worker allows its share by itself.
"""

import functools
import math
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from limits.errors import ConfigurationError
from redis.backoff import NoBackoff
from redis.retry import Retry
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from slowapi.wrappers import LimitGroup
from starlette.requests import Request
from starlette.responses import Response

from banana import errors, metrics, store
from banana.asgi import note
from banana.callers import Anyone, TokenHolders

WINDOW_SECONDS = 60
# All routes that make images draw on one allowance.
SCOPE = "images"
# slowapi asks the store inside the event loop: a Redis that hangs may hold it no longer than this, and not once more.
REDIS_SECONDS = 0.1

log = structlog.get_logger(__name__)
Handler = Callable[[Request], Awaitable[Response]]
Tell = Callable[[Request, errors.BananaError], Response]


class StoreError(Exception):
    """The store cannot be used at all; the message names the setting."""


class Allowance:
    """At most `per_minute` requests a caller in any 60 seconds, over all `workers`; `callers` tells who is who.

    Raises StoreError when the store cannot be opened.
    """

    def __init__(self, store_url: str, per_minute: int, workers: int, callers: Anyone | TokenHolders) -> None:
        assert "sqlite" in store.SQLiteStorage.STORAGE_SCHEME  # importing it registers it
        self._callers = callers
        try:
            self._limiter = Limiter(
                key_func=_caller_of,
                strategy="moving-window",
                storage_uri=store_url,
                storage_options=_options(store_url),
                in_memory_fallback_enabled=True,
                config_filename=str(Path(__file__).with_name("slowapi.env")),
            )
        except (OSError, sqlite3.Error, ConfigurationError, ValueError) as error:
            raise StoreError(f"STORE_URL: {store_url!r} cannot be used: {error}") from error
        # slowapi's own way to say this would count each route by itself.
        share = f"{max(1, per_minute // workers)}/minute"
        self._limiter._in_memory_fallback = [LimitGroup(share, _caller_of, SCOPE, False, None, None, None, 1, False)]
        self._shared = self._limiter.shared_limit(f"{per_minute}/minute", scope=SCOPE)
        self._was_degraded = False
        self._guarded = 0

    @property
    def degraded(self) -> bool:
        """Whether the store failed, and each worker allows its share by itself."""
        return self._limiter._storage_dead

    def guard(self, handler: Handler, tell: Tell) -> Handler:
        """Return `handler` behind the tokens and the allowance; its answers, errors too, carry X-RateLimit headers."""

        @functools.wraps(handler)
        async def counted(request: Request) -> Response:
            return await handler(request)

        # slowapi counts by name: two handlers of one name would each be counted twice.
        self._guarded += 1
        counted.__name__ = f"{handler.__name__}_{self._guarded}"
        checked: Handler = self._shared(counted)

        @functools.wraps(handler)
        async def guarded(request: Request) -> Response:
            try:
                request.state.caller = self._callers.name_of(request)
            except errors.Unauthorized as error:
                return tell(request, error)
            note(request.scope, caller=request.state.caller)
            try:
                response = await checked(request)
            except RateLimitExceeded:
                metrics.limited.inc()
                response = tell(request, self._refusal(request))
            self._report()
            response.headers.update(self._headers(request))
            return response

        return guarded

    def _refusal(self, request: Request) -> errors.RateLimited:
        item, _ = request.state.view_rate_limit
        reset_at, _ = self._window(request) or (time.time() + WINDOW_SECONDS, 0)
        return errors.RateLimited(
            f"Over the allowance of {item.amount} requests in {WINDOW_SECONDS} seconds; the request was not carried out.",
            retry_after_seconds=reset_at - time.time(),
        )

    def _report(self) -> None:
        """Log it once when the store fails, and once when it is back."""
        if self.degraded is not self._was_degraded:
            self._was_degraded = self.degraded
            if self.degraded:
                log.error("store_failed", message="Each worker allows its share of the allowance by itself.")
            else:
                log.warning("store_recovered")

    def _headers(self, request: Request) -> dict[str, str]:
        window = self._window(request)
        if window is None:
            return {}
        reset_at, remaining = window
        return {
            "X-RateLimit-Limit": str(request.state.view_rate_limit[0].amount),
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": str(math.ceil(reset_at)),
        }

    def _window(self, request: Request) -> tuple[float, int] | None:
        """Return when the window's oldest request leaves it, in seconds of the epoch, and how many are left."""
        item, identifiers = request.state.view_rate_limit
        try:
            stats = self._limiter.limiter.get_window_stats(item, *identifiers)
        except Exception:  # whatever a store raises: an answer that was paid for goes out, without these headers
            return None
        return stats.reset_time, stats.remaining


def _caller_of(request: Request) -> str:
    caller: str = request.state.caller
    return caller


def _options(store_url: str) -> dict[str, Any]:
    if not store_url.startswith(("redis", "valkey")):
        return {}
    no_retry = Retry(NoBackoff(), 0)
    return {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS, "retry": no_retry}
