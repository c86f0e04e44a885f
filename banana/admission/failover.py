"""A storage for the `limits` library that wraps another, and whose decisions never fail.

While the other works, it decides. When it fails, each worker counts in its own memory and allows its share of the
limit; the other is checked again every two seconds, by a thread of its own, with or without requests.
"""

import threading
from typing import NamedTuple, Protocol, cast

import structlog
from limits.storage import Storage

from banana import metrics
from banana.admission.sqlite import IN_MEMORY, MovingWindowStorage, SQLiteStorage

CHECK_SECONDS = 2

log = structlog.get_logger(__name__)


class Decision(NamedTuple):
    """Whether a request was allowed, and the window after it.

    `reset_at` is when the window's oldest entry leaves it, in seconds of the epoch.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_at: float


class _MovingWindow(Protocol):
    """What is needed of a storage: `limits.storage.Storage` with `MovingWindowSupport`."""

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool: ...
    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]: ...
    def check(self) -> bool: ...
    def reset(self) -> int | None: ...
    def clear(self, key: str) -> None: ...


class FailoverStorage(MovingWindowStorage):
    """Moving windows in `primary`, or in this worker's memory while `primary` fails.

    Args:
        uri: `failover://`; nothing in it is read.
        wrap_exceptions: of the base class; nothing is raised here.
        primary: the storage that all workers share.
        workers: how many workers share a limit.
        check_seconds: seconds between two checks of a storage that failed.

    """

    STORAGE_SCHEME = ["failover"]  # noqa: RUF012 # declared by the base class

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        *,
        primary: Storage,
        workers: int,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._primary = cast(_MovingWindow, primary)
        self._memory: _MovingWindow = SQLiteStorage(f"sqlite:///{IN_MEMORY}")
        self._workers = workers
        self._check_seconds = check_seconds
        self._closed = threading.Event()
        self.degraded = False
        # The last one; `taken_decision` is called in the same step of the event loop.
        self.decision: Decision | None = None

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """The errors that mean that the storage failed: there are none."""
        return ()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Take `amount` of `limit` in the last `expiry` seconds; return whether there was room."""
        self.decision = self._decide(key, limit, expiry, amount)
        return self.decision.allowed

    def taken_decision(self) -> Decision:
        """Return what the last `acquire_entry` decided, once: to ask without a new decision is a defect."""
        decision, self.decision = self.decision, None
        assert decision is not None
        return decision

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest entry of the window was made, in seconds of the epoch, and how many there are."""
        return self._current.get_moving_window(key, limit, expiry)

    def check(self) -> bool:
        """Return whether the shared storage works."""
        return not self.degraded

    def reset(self) -> int | None:
        """Forget everything."""
        return self._current.reset()

    def clear(self, key: str) -> None:
        """Forget one key."""
        self._current.clear(key)

    def close(self) -> None:
        """Stop checking a storage that failed, and close both."""
        self._closed.set()
        for storage in (self._primary, self._memory):
            if isinstance(storage, SQLiteStorage):
                storage.close()

    @property
    def _current(self) -> _MovingWindow:
        return self._memory if self.degraded else self._primary

    def _decide(self, key: str, limit: int, expiry: int, amount: int) -> Decision:
        if not self.degraded:
            try:
                return _decision(self._primary, key, limit, expiry, amount)
            except Exception as error:  # whatever a storage raises: no request fails for it
                self._degrade(error)
        return _decision(self._memory, key, max(1, limit // self._workers), expiry, amount)

    def _degrade(self, error: Exception) -> None:
        self.degraded = True
        metrics.store_degraded.set(1)
        log.error(
            "store_failed", error=type(error).__name__, message="Each worker enforces its share of the rate limit."
        )
        threading.Thread(target=self._wait_for_primary, name="store-check", daemon=True).start()

    def _wait_for_primary(self) -> None:
        while not self._closed.wait(self._check_seconds):
            if _works(self._primary):
                metrics.store_degraded.set(0)
                log.warning("store_recovered")
                self.degraded = False
                return


def _works(storage: _MovingWindow) -> bool:
    try:
        return storage.check()
    except Exception:
        return False


def _decision(storage: _MovingWindow, key: str, limit: int, expiry: int, amount: int) -> Decision:
    """Decide in `storage`; in one transaction where it can."""
    if isinstance(storage, SQLiteStorage):
        allowed, oldest_at, count = storage.decide(key, limit, expiry, amount)
    else:
        allowed = storage.acquire_entry(key, limit, expiry, amount)
        oldest_at, count = storage.get_moving_window(key, limit, expiry)
    # Between two steps another worker may have taken an entry.
    return Decision(allowed, limit, max(0, limit - count), oldest_at + expiry)
