"""The storage that never fails: each worker its share, and the shared one taken up again by itself."""

import time
from collections.abc import Iterator

import pytest
from limits.storage import MemoryStorage

from banana.admission.failover import FailoverStorage
from banana.admission.sqlite import SQLiteStorage
from tests.patience import until


class Unreliable(MemoryStorage):
    """A shared storage that works or fails as it is told."""

    STORAGE_SCHEME = ["unreliable"]  # declared by the base class
    works = True
    checks = 0

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        if not self.works:
            raise ConnectionError("gone")
        return super().acquire_entry(key, limit, expiry, amount)

    def check(self) -> bool:
        self.checks += 1
        if self.checks == 1:
            raise ConnectionError("still gone")
        return self.works


@pytest.fixture
def primary() -> Unreliable:
    return Unreliable()


@pytest.fixture
def storage(primary: Unreliable) -> Iterator[FailoverStorage]:
    storage = FailoverStorage("failover://", primary=primary, workers=4, check_seconds=0.01)
    yield storage
    storage.close()


def test_while_the_shared_storage_works_it_decides(storage: FailoverStorage) -> None:
    """The whole limit is there, and each decision says what is left of it."""
    allowed = [storage.acquire_entry("a", 3, 60) for _ in range(4)]

    assert allowed == [True, True, True, False]
    assert storage.decision is not None
    assert (storage.decision.limit, storage.decision.remaining) == (3, 0)
    assert 55 < storage.decision.reset_at - time.time() <= 60
    assert storage.check()


def test_when_it_fails_each_worker_has_its_share(storage: FailoverStorage, primary: Unreliable) -> None:
    """Nothing is raised: of 8 a minute this worker of 4 allows 2; of 1, one."""
    primary.works = False

    assert [storage.acquire_entry("a", 8, 60) for _ in range(3)] == [True, True, False]
    assert storage.decision is not None
    assert (storage.decision.limit, storage.decision.remaining) == (2, 0)
    assert storage.acquire_entry("b", 1, 60)
    assert storage.degraded
    assert not storage.check()


def test_it_is_taken_up_again_without_any_request(storage: FailoverStorage, primary: Unreliable) -> None:
    """It is asked again and again, also when asking raises, and decides once it works."""
    primary.works = False
    storage.acquire_entry("a", 8, 60)
    until(lambda: primary.checks >= 3)
    assert storage.degraded
    primary.works = True
    until(lambda: not storage.degraded)

    storage.acquire_entry("a", 8, 60)
    assert storage.decision is not None
    assert storage.decision.limit == 8


def test_closed_it_asks_no_more(storage: FailoverStorage, primary: Unreliable) -> None:
    """A service that ends leaves no thread behind that asks."""
    primary.works = False
    storage.acquire_entry("a", 8, 60)
    until(lambda: primary.checks >= 2)
    storage.close()
    time.sleep(0.1)
    before = primary.checks
    time.sleep(0.1)

    assert primary.checks == before


def test_sqlite_decides_and_tells_the_window_in_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is what this decision left, whatever others do afterwards."""
    sqlite = SQLiteStorage("sqlite:///state/test.db")
    storage = FailoverStorage("failover://", primary=sqlite, workers=1)
    monkeypatch.setattr(SQLiteStorage, "get_moving_window", None)

    for left in (1, 0, 0):
        storage.acquire_entry("a", 2, 60)
        assert storage.decision is not None
        assert storage.decision.remaining == left
    storage.close()


def test_the_rest_of_the_interface_is_the_shared_storages(storage: FailoverStorage) -> None:
    """Windows are asked of whichever storage decides."""
    storage.acquire_entry("a", 5, 60)

    assert storage.get_moving_window("a", 5, 60)[1] == 1
    storage.clear("a")
    assert storage.get_moving_window("a", 5, 60)[1] == 0
    assert storage.reset() is not None
