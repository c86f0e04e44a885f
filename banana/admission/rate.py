"""How often: one rate limit a caller over all routes that make images, decided by slowapi before the body is read.

slowapi counts in a storage that all workers share, so that the limit is exact over all of them.
"""

import math
import os
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from starlette.requests import Request
from starlette.responses import Response

from banana import errors, metrics
from banana.admission.failover import Decision, FailoverStorage
from banana.admission.storage import open_storage
from banana.admission.tokens import address_of
from banana.http.middleware import exchange_of

WINDOW_SECONDS = 60
# Replays, polls and links a caller may make for each request that makes images.
REPLAY_FACTOR = 10
# Requests without a valid access token from one address; those that have one always pass, so that nobody is locked out by a
# neighbour behind the same address.
REFUSALS_PER_MINUTE = 60

Limited = Callable[[Request], Awaitable[Response]]


class RateLimit:
    """At most `per_minute` requests a caller in any 60 seconds, over all `workers`.

    Raises StoreError when the store at `store_url` cannot be opened.
    """

    def __init__(self, store_url: str, per_minute: int, workers: int) -> None:
        options: dict[str, Any] = {"primary": open_storage(store_url), "workers": workers}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Config file")
            limiter = Limiter(
                key_func=_caller_of,
                strategy="moving-window",
                storage_uri="failover://",
                storage_options=options,
                # Left out, slowapi would read our .env; it warns that this is no regular file.
                config_filename=os.devnull,
            )
        limiter.enabled = True  # whatever RATELIMIT_ENABLED says
        storage = limiter.limiter.storage
        assert isinstance(storage, FailoverStorage)
        self._storage = storage
        self._images: Limited = limiter.shared_limit(f"{per_minute}/minute", "images")(_images)
        self._replays: Limited = limiter.shared_limit(f"{per_minute * REPLAY_FACTOR}/minute", "replays")(_replays)
        self._arrivals: Limited = limiter.shared_limit(f"{per_minute * REPLAY_FACTOR}/minute", "arrivals")(_arrivals)
        self._refusals: Limited = limiter.shared_limit(f"{REFUSALS_PER_MINUTE}/minute", "refused", address_of)(
            _refusals
        )

    @property
    def degraded(self) -> bool:
        """Whether the shared storage failed, and each worker enforces its share by itself."""
        return self._storage.degraded

    async def admit(self, request: Request) -> None:
        """Count a request that makes images; the response will carry the X-RateLimit headers. Raises RateLimited."""
        await self._count(self._images, request)

    async def admit_replay(self, request: Request) -> None:
        """Count a request that makes nothing: a replay, a poll, a link. Raises RateLimited."""
        await self._count(self._replays, request)

    async def admit_arrival(self, request: Request) -> None:
        """Count a request whose body must be read before it is known what it is. Raises RateLimited."""
        await self._count(self._arrivals, request)

    async def count_refusal(self, request: Request) -> None:
        """Count a wrong or missing credential of the request's address. Raises RateLimited."""
        await self._count(self._refusals, request)

    def close(self) -> None:
        """Stop checking a storage that failed, and close it."""
        self._storage.close()

    async def _count(self, limited: Limited, request: Request) -> None:
        """Let slowapi decide; what it raises becomes ours here, and nowhere else."""
        # slowapi counts a request once, and marks it in its state: one with a key is counted as two things.
        unmarked = Request(dict(request.scope, state=dict(request.scope["state"])))
        refused = False
        try:
            await limited(unmarked)
        except RateLimitExceeded:
            refused = True
        decision = self._storage.taken_decision()  # nothing else has run since
        if limited is self._images:
            exchange_of(request.scope).response_headers |= {
                "X-RateLimit-Limit": str(decision.limit),
                "X-RateLimit-Remaining": str(decision.remaining),
                "X-RateLimit-Reset": str(math.ceil(decision.reset_at)),
            }
        if not refused:
            return
        if limited is self._refusals:
            message = f"More than {decision.limit} requests without a valid access token came from this address in"
            raise _limited(f"{message} {WINDOW_SECONDS} seconds.", decision)
        metrics.limited.inc()
        message = f"Rate limit exceeded: {decision.limit} requests in {WINDOW_SECONDS} seconds."
        raise _limited(f"{message} Nothing was sent to Google.", decision)


def _caller_of(request: Request) -> str:
    caller = exchange_of(request.scope).caller
    assert caller is not None
    return caller


def _limited(message: str, decision: Decision) -> errors.RateLimited:
    return errors.RateLimited(message, retry_after_seconds=decision.reset_at - time.time())


# What slowapi decorates: it tells them apart by their names, and puts its headers on the response that they return, if
# somebody has set RATELIMIT_HEADERS_ENABLED in the environment. Nobody sends that response.


async def _images(request: Request) -> Response:
    """Admit a request that makes images."""
    return Response()


async def _replays(request: Request) -> Response:
    """Admit a request that makes nothing."""
    return Response()


async def _arrivals(request: Request) -> Response:
    """Admit a request whose body is still to be read."""
    return Response()


async def _refusals(request: Request) -> Response:
    """Admit a request without a valid access token to its 401."""
    return Response()
