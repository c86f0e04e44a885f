"""The Redis or Valkey that machines share as their ledger: its script, its versions, and its errors as the ledger's own."""

import secrets
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as TooLate
from redis.retry import Retry

from banana.ledger.ledger import LedgerError

# Longest wait for one decision, which takes a tenth of a millisecond and the way there and back, in seconds.
ANSWER_SECONDS = 2
# In braces, so that a cluster would have everything in one place.
PREFIX = "{banana}:"
DEMO_PREFIX = "{banana-demo}:"
VERSION = 1
# How many of something one run of the script is given: Lua passes on some thousand values, and others wait meanwhile.
BATCH = 500
# What Redis and Valkey know of from this version on: a script that is refused whole where there is no memory for it.
OLDEST_REDIS = 7

T = TypeVar("T")
_SCRIPT = Path(__file__).with_name("ledger.lua").read_text(encoding="utf-8")


class LedgerServer:
    """The server at `url`, which is connected to when it is first used. Every method raises LedgerError.

    Used by one thread: its changes are numbered, and one that comes late is refused.

    Args:
        url: redis://, rediss:// or redis+unix://.
        clock: in seconds of the epoch; None is the server's own.
        is_demo: whether it is the demo's, which shares nothing with any other.

    """

    def __init__(self, url: str, clock: Callable[[], float] | None = None, *, is_demo: bool = False) -> None:
        self._prefix = DEMO_PREFIX if is_demo else PREFIX
        try:
            # A connection that the server closed meanwhile is noticed by what is sent next: that is sent again, once.
            retry = Retry(NoBackoff(), 1, supported_errors=(ConnectionFailed,))
            self._client = Redis.from_url(
                url.replace("redis+unix:", "unix:", 1),
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=retry,
            )
        except ValueError as error:
            raise LedgerError("STORE_URL is no address of a Redis") from error
        self._script = self._client.register_script(_SCRIPT)
        self._clock = clock
        self._session = secrets.token_hex(8)
        self._number = 0

    def check(self) -> None:
        """Ask once; a server that is not there may come. Raises LedgerError when it can never be used."""
        try:
            version = int(self._run("check", 0, VERSION))
        except (ConnectionFailed, TooLate):
            return
        except (ResponseError, ValueError) as error:
            raise LedgerError(f"the Redis of STORE_URL cannot be used as the ledger{self._reason(error)}") from error
        if version > VERSION:
            raise LedgerError(
                f"the ledger in the Redis of STORE_URL is of version {version}, written by a newer BananaService; this one"
                f" reads up to {VERSION}: install the newer one again, or use another database of that Redis"
            )

    def warnings(self) -> list[str]:
        """Return why the server may forget what it was given; nothing where it does not say."""
        try:
            persistence, memory = self._client.info("persistence"), self._client.info("memory")
        except RedisError:
            return []
        found = []
        if not persistence.get("aof_enabled"):
            found.append(
                "The Redis of STORE_URL writes no append-only file: when it restarts it has forgotten keys, tasks and budgets,"
                " and what is repeated then is paid again. Set appendonly yes."
            )
        if memory.get("maxmemory") and memory.get("maxmemory_policy") != "noeviction":
            found.append(
                "The Redis of STORE_URL removes what it was given when its memory is full: keys may be forgotten, and what is"
                " repeated then is paid again. Set maxmemory-policy noeviction."
            )
        return found

    def look(self, operation: str, *values: object) -> Any:
        """Carry out what changes nothing, or nothing that could come too late; return what it returns, strings as bytes."""
        return self._asked(operation, 0, *values)

    def change(self, operation: str, *values: object) -> Any:
        """Carry out a change, as one; return what it returns, strings as bytes."""
        self._number += 1
        return self._asked(operation, self._number, *values)

    def close(self) -> None:
        """Close the connections; they open by themselves when they are used again."""
        self._client.close()

    def _asked(self, operation: str, number: int, *values: object) -> Any:
        try:
            return self._run(operation, number, *values)
        except RedisError as error:
            # After a failover the connection may be to what is no longer in charge.
            self._client.close()
            raise LedgerError(f"{type(error).__name__}: {error}") from error

    def _run(self, operation: str, number: int, *values: object) -> Any:
        now = "" if self._clock is None else f"{self._clock():.6f}"
        return self._script(keys=[self._prefix], args=[operation, self._session, number, now, *map(_argument, values)])

    def _reason(self, error: Exception) -> str:
        """Return what is wrong, with the version where that is it."""
        try:
            version = str(self._client.info("server").get("redis_version", ""))
        except RedisError:
            version = ""
        if version and int(version.partition(".")[0]) < OLDEST_REDIS:
            return f": it is of version {version}; at least {OLDEST_REDIS}, or any Valkey, is needed"
        return f" ({error})"


def batches(items: Collection[T]) -> Iterator[tuple[T, ...]]:
    """Yield `items`, as many at once as one run of the script is given."""
    rest = iter(items)
    while some := tuple(islice(rest, BATCH)):
        yield some


def _argument(value: object) -> bytes | str:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6f}" if isinstance(value, float) else str(value)
