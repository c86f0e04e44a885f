"""How often: one rate limit a caller, over all routes that make images, counted exactly over all workers.

slowapi decides, over a storage that all workers share. That is before the body is read.
"""

import math
import os
import time
import warnings
from typing import Any

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import Storage
from limits.strategies import RateLimiter
from slowapi import Limiter
from starlette.requests import Request

from banana import errors, metrics
from banana.admission.failover import Decision, FailoverStorage
from banana.admission.storage import open_storage
from banana.admission.tokens import address_of
from banana.exchange import Exchange
from banana.http.middleware import exchange_of

WINDOW_SECONDS = 60
# Replays, polls and links a caller may make for each request that makes images.
REPLAY_FACTOR = 10
# Refused credentials of one address in a minute before they are answered 429; those that are right always pass, so that
# nobody is locked out by a neighbour behind the same address.
REFUSALS_PER_MINUTE = 60


class RateLimit:
    """At most `per_minute` requests a caller in any 60 seconds, over all `workers`.

    Raises StoreError when the store at `store_url` cannot be opened.
    """

    def __init__(self, store_url: str, per_minute: int, workers: int) -> None:
        self._limiter = _limiter_over(open_storage(store_url), workers)
        storage = self._limiter.storage
        assert isinstance(storage, FailoverStorage)
        self._storage = storage
        self._images = RateLimitItemPerMinute(per_minute)
        self._without_images = RateLimitItemPerMinute(per_minute * REPLAY_FACTOR)
        self._refusals = RateLimitItemPerMinute(REFUSALS_PER_MINUTE)

    @property
    def degraded(self) -> bool:
        """Whether the shared store failed, and each worker enforces its share by itself."""
        return self._storage.degraded

    async def admit(self, request: Request, exchange: Exchange) -> None:
        """Count the request for `exchange.caller`; the response will carry the X-RateLimit headers.

        Raises RateLimited.
        """
        decision = self._decide(self._images, exchange.caller, "images")
        exchange.response_headers |= {
            "X-RateLimit-Limit": str(decision.limit),
            "X-RateLimit-Remaining": str(decision.remaining),
            "X-RateLimit-Reset": str(math.ceil(decision.reset_at)),
        }
        _refuse_unless_allowed(decision)

    async def admit_replay(self, request: Request) -> None:
        """Count a request that makes nothing: a replay, a poll, a link. Raises RateLimited."""
        _refuse_unless_allowed(self._decide(self._without_images, exchange_of(request.scope).caller, "replays"))

    async def admit_arrival(self, request: Request) -> None:
        """Count a request whose body must be read before it is known what it is. Raises RateLimited."""
        _refuse_unless_allowed(self._decide(self._without_images, exchange_of(request.scope).caller, "arrivals"))

    async def count_refusal(self, request: Request) -> None:
        """Count a wrong or missing credential of the request's address. Raises RateLimited."""
        decision = self._decide(self._refusals, address_of(request), "refused")
        if not decision.allowed:
            raise errors.RateLimited(
                f"More than {decision.limit} requests without a valid access token came from this address in"
                f" {WINDOW_SECONDS} seconds.",
                retry_after_seconds=decision.reset_at - time.time(),
            )

    def close(self) -> None:
        """Stop checking a store that failed, and close it."""
        self._storage.close()

    def _decide(self, limit: RateLimitItem, caller: str | None, what: str) -> Decision:
        """Return slowapi's decision, which counts a request that it allows."""
        assert caller is not None
        self._limiter.hit(limit, caller, what)
        assert self._storage.decision is not None
        return self._storage.decision


def _limiter_over(primary: Storage, workers: int) -> RateLimiter:
    """Return slowapi's limiter over a `FailoverStorage`, which it makes itself, of what stands in its options.

    It is asked itself: slowapi's way around an endpoint, which needs a request of its own for each limit, takes 15 µs more.
    """
    options: dict[str, Any] = {"primary": primary, "workers": workers}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Config file")
        return Limiter(
            key_func=address_of,
            strategy="moving-window",
            storage_uri="failover://",
            storage_options=options,
            # Left out, slowapi would read our .env; it warns that this is no regular file.
            config_filename=os.devnull,
        ).limiter


def _refuse_unless_allowed(decision: Decision) -> None:
    if decision.allowed:
        return
    metrics.limited.inc()
    raise errors.RateLimited(
        f"Rate limit exceeded: {decision.limit} requests in {WINDOW_SECONDS} seconds. Nothing was sent to Google.",
        retry_after_seconds=decision.reset_at - time.time(),
    )
