"""How often: one rate limit a caller, over all routes that make images, counted exactly over all workers.

slowapi decides, over a storage that all workers share. That is before the body is read.
"""

import inspect
import math
import os
import sqlite3
import time
import warnings
from collections.abc import Awaitable
from typing import Any

from limits.errors import ConfigurationError
from limits.storage import Storage, storage_from_string
from redis.backoff import NoBackoff
from redis.retry import Retry
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from starlette.requests import Request

from banana import errors, metrics
from banana.admission.failover import Decision, FailoverStorage
from banana.admission.sqlite import IN_MEMORY, SQLiteStorage
from banana.admission.tokens import address_of
from banana.exchange import Exchange
from banana.http.middleware import exchange_of

WINDOW_SECONDS = 60
# Replays, polls and links a caller may make for each request that makes images.
REPLAY_FACTOR = 10
# Refused credentials of one address in a minute before they are answered 429; those that are right always pass, so that
# nobody is locked out by a neighbour behind the same address.
REFUSALS_PER_MINUTE = 60
# slowapi calls the storage inside the event loop: each of its two steps may take no longer than this, and the
# first that fails is the last until the store works again.
REDIS_SECONDS = 0.1


class StoreError(Exception):
    """The store cannot be used at all; the message names the setting."""


class RateLimit:
    """At most `per_minute` requests a caller in any 60 seconds, over all `workers`.

    Raises StoreError when the store at `store_url` cannot be opened.
    """

    def __init__(self, store_url: str, per_minute: int, workers: int) -> None:
        limiter = _limiter_over(open_storage(store_url), workers)
        storage = limiter.limiter.storage
        assert isinstance(storage, FailoverStorage)
        self._storage = storage

        @limiter.shared_limit(f"{per_minute}/minute", scope="images")
        async def admit(request: Request) -> None:
            """Return when slowapi lets the request pass."""

        @limiter.shared_limit(f"{REFUSALS_PER_MINUTE}/minute", scope="refused", key_func=address_of)
        async def refuse(request: Request) -> None:
            """Return when slowapi lets a refused credential be answered as such."""

        @limiter.shared_limit(f"{per_minute * REPLAY_FACTOR}/minute", scope="replays")
        async def admit_replay(request: Request) -> None:
            """Return when slowapi lets a replay pass."""

        @limiter.shared_limit(f"{per_minute * REPLAY_FACTOR}/minute", scope="arrivals")
        async def admit_arrival(request: Request) -> None:
            """Return when slowapi lets a body be read."""

        self._admit = admit
        self._admit_replay = admit_replay
        self._admit_arrival = admit_arrival
        self._refuse = refuse

    @property
    def degraded(self) -> bool:
        """Whether the shared store failed, and each worker enforces its share by itself."""
        return self._storage.degraded

    async def admit(self, request: Request, exchange: Exchange) -> None:
        """Count the request for `exchange.caller`; the response will carry the X-RateLimit headers.

        Raises RateLimited.
        """
        # slowapi decides before it first awaits anything: the storage's last decision is this request's.
        try:
            await self._admit(request)
        except RateLimitExceeded:
            raise _refusal(self._write_headers(exchange)) from None
        self._write_headers(exchange)

    async def admit_replay(self, request: Request) -> None:
        """Count a request that makes nothing: a replay, a poll, a link. Raises RateLimited."""
        await self._count_apart(self._admit_replay(_beside(request)))

    async def admit_arrival(self, request: Request) -> None:
        """Count a request whose body must be read before it is known what it is. Raises RateLimited."""
        await self._count_apart(self._admit_arrival(_beside(request)))

    async def _count_apart(self, limit: Awaitable[None]) -> None:
        try:
            await limit
        except RateLimitExceeded:
            assert self._storage.decision is not None
            raise _refusal(self._storage.decision) from None

    async def count_refusal(self, request: Request) -> None:
        """Count a wrong or missing credential of the request's address. Raises RateLimited."""
        try:
            await self._refuse(request)
        except RateLimitExceeded:
            decision = self._storage.decision
            assert decision is not None
            raise errors.RateLimited(
                f"More than {decision.limit} requests without a right access token came from this address in"
                f" {WINDOW_SECONDS} seconds.",
                retry_after_seconds=decision.reset_at - time.time(),
            ) from None

    def close(self) -> None:
        """Stop checking a store that failed, and close it."""
        self._storage.close()

    def _write_headers(self, exchange: Exchange) -> Decision:
        decision = self._storage.decision
        assert decision is not None
        exchange.response_headers |= {
            "X-RateLimit-Limit": str(decision.limit),
            "X-RateLimit-Remaining": str(decision.remaining),
            "X-RateLimit-Reset": str(math.ceil(decision.reset_at)),
        }
        return decision


def _limiter_over(primary: Storage, workers: int) -> Limiter:
    """Return slowapi's limiter over a `FailoverStorage`, which it makes itself, of what stands in its options."""
    options: dict[str, Any] = {"primary": primary, "workers": workers}
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
    limiter.enabled = True  # also where the environment has slowapi's own RATELIMIT_ENABLED=false
    return limiter


def open_storage(store_url: str) -> Storage:
    """Return the storage at `store_url`. Raises StoreError."""
    try:
        if store_url.startswith("sqlite:"):
            return SQLiteStorage(store_url)
        if store_url.startswith("memory:"):
            return SQLiteStorage(f"sqlite:///{IN_MEMORY}")
        options: dict[str, Any] = {}
        if store_url.startswith(("redis", "valkey")):
            options = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
            options["retry"] = Retry(NoBackoff(), 0)
        storage = storage_from_string(store_url, **options)
        assert isinstance(storage, Storage)  # and not one for asyncio
        return storage
    except (OSError, sqlite3.Error, ConfigurationError, ValueError) as error:
        # The library's words may quote the address, with its password.
        words = type(error).__name__ if "@" in store_url else f"{type(error).__name__}: {error}".replace(store_url, "…")
        raise StoreError(f"STORE_URL cannot be used: {words}") from error


def _beside(request: Request) -> Request:
    """Return the request with a state of its own: slowapi notes there that it was counted, and counts it no more."""
    return Request({**request.scope, "state": dict(request.scope["state"])})


def _refusal(decision: Decision) -> errors.RateLimited:
    metrics.limited.inc()
    return errors.RateLimited(
        f"Over the rate limit of {decision.limit} requests in {WINDOW_SECONDS} seconds; the request was not carried out.",
        retry_after_seconds=decision.reset_at - time.time(),
    )


def _caller_of(request: Request) -> str:
    caller = exchange_of(request.scope).caller
    assert caller is not None
    return caller


# slowapi asks for it at every request, and working it out takes 4 µs.
_caller_of.__signature__ = inspect.signature(_caller_of)  # type: ignore[attr-defined]
