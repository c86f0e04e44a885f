"""Which storage the rate limit counts in."""

from pathlib import Path

import pytest
from limits.storage import RedisStorage

from banana.admission.sqlite import SQLiteStorage
from banana.admission.storage import StoreError, open_storage
from tests.services import free_port


@pytest.mark.parametrize("store_url", ["sqlite:///.state/banana.db", "memory://"])
def test_one_machine_counts_in_sqlite(store_url: str) -> None:
    """In a file, which is there as soon as it is opened, or in memory."""
    storage = open_storage(store_url)

    assert isinstance(storage, SQLiteStorage)
    assert Path(".state/banana.db").exists() == store_url.startswith("sqlite")
    storage.close()


def test_several_machines_count_in_redis() -> None:
    """One that is not there may come: it is asked when something is counted."""
    assert isinstance(open_storage(f"redis://127.0.0.1:{free_port()}"), RedisStorage)


@pytest.mark.parametrize(
    "store_url", ["sqlite:////proc/nowhere/x.db", "sqlite:////dev/null/x.db", "redis://host:nine", "nowhere://"]
)
def test_what_cannot_be_opened_is_said(store_url: str) -> None:
    """The line names the setting."""
    with pytest.raises(StoreError, match=r"^STORE_URL cannot be used: "):
        open_storage(store_url)


def test_a_password_is_not_said() -> None:
    """The library would quote it, with the whole address."""
    with pytest.raises(StoreError) as refused:
        open_storage("redis://:hunter2@host:nine")

    assert "hunter2" not in str(refused.value)
