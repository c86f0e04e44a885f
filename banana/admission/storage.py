"""Which storage the rate limit counts in: a SQLite file that one machine's workers share, memory, or Redis over several.

The launcher opens it as well, before its workers do, so that nothing is imported here but what it needs.
"""

import sqlite3
from typing import Any

from limits.errors import ConfigurationError
from limits.storage import Storage, storage_from_string

from banana.admission.sqlite import IN_MEMORY, SQLiteStorage

# slowapi calls the storage inside the event loop: each of its two steps may take no longer than this, and the
# first that fails is the last until the store works again.
REDIS_SECONDS = 0.2


class StoreError(Exception):
    """The store cannot be used at all; the message names the setting."""


def open_storage(store_url: str) -> Storage:
    """Return the storage at `store_url`. Raises StoreError."""
    try:
        if store_url.startswith("sqlite:"):
            return SQLiteStorage(store_url)
        if store_url.startswith("memory:"):
            return SQLiteStorage(f"sqlite:///{IN_MEMORY}")
        options = _redis_options() if store_url.startswith(("redis", "valkey")) else {}
        storage = storage_from_string(store_url, **options)
        assert isinstance(storage, Storage)  # and not one for asyncio
        return storage
    except ModuleNotFoundError as error:
        raise StoreError(
            f"STORE_URL cannot be used: the package {error.name} is not installed: pip install -r requirements-all.txt"
            " (start.sh and the Docker image install it)"
        ) from error
    except (OSError, sqlite3.Error, ConfigurationError, ValueError) as error:
        # The library's words may quote the address, with its password.
        words = type(error).__name__ if "@" in store_url else f"{type(error).__name__}: {error}".replace(store_url, "…")
        raise StoreError(f"STORE_URL cannot be used: {words}") from error


def _redis_options() -> dict[str, Any]:
    # Not at the top: it takes 40 ms, and by default the store is a file.
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return {
        "socket_timeout": REDIS_SECONDS,
        "socket_connect_timeout": REDIS_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
