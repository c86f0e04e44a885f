"""The embedded store: exact across processes."""

import multiprocessing
import sqlite3
import time
from pathlib import Path

import pytest
from limits.storage import storage_from_string

from banana.admission.sqlite import SQLiteStorage

URI = "sqlite:///state/test.db"


@pytest.fixture
def storage() -> SQLiteStorage:
    made = storage_from_string(URI)
    assert isinstance(made, SQLiteStorage)
    return made


def hit(times: int) -> int:
    storage = SQLiteStorage(URI)
    return sum(storage.acquire_entry("caller", 1000, 60) for _ in range(times))


def test_four_processes_let_exactly_the_limit_through(storage: SQLiteStorage) -> None:
    """Four processes with 500 hits each against 1,000 let exactly 1,000 through."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert sum(pool.map(hit, [500] * 4)) == 1000


def test_the_window_moves(storage: SQLiteStorage) -> None:
    """An entry leaves the window when it is as old as the window is long, and not before."""
    assert [storage.acquire_entry("caller", 2, 1) for _ in range(3)] == [True, True, False]
    oldest, count = storage.get_moving_window("caller", 2, 1)
    assert count == 2
    time.sleep(max(0, oldest + 1.01 - time.time()))

    assert storage.acquire_entry("caller", 2, 1)


def test_callers_are_counted_apart(storage: SQLiteStorage) -> None:
    """One caller's entries are not another's."""
    assert storage.acquire_entry("a", 1, 60)
    assert storage.acquire_entry("b", 1, 60)
    assert not storage.acquire_entry("a", 1, 60)


def test_the_file_stays_as_small_as_its_live_callers(storage: SQLiteStorage) -> None:
    """Entries of callers who never come back are swept away by those who do."""
    for number in range(200):
        storage.acquire_entry(f"once-{number}", 5, 0)
    for _ in range(12):
        storage.acquire_entry("again", 1000, 60)

    with sqlite3.connect(Path("state/test.db")) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM hits").fetchone()
    connection.close()
    assert rows <= 12


def test_counters_live_as_long_as_they_are_told(storage: SQLiteStorage) -> None:
    """The fixed window of `limits` works too."""
    assert [storage.incr("k", 10), storage.incr("k", 10, 2), storage.get("k")] == [1, 3, 3]
    assert storage.get_expiry("k") == pytest.approx(time.time() + 10, abs=1)
    storage.clear("k")
    assert storage.get("k") == 0
    assert storage.check()
    storage.acquire_entry("a", 1, 60)
    assert storage.reset() == 1


def test_a_locked_file_is_an_error_in_time(storage: SQLiteStorage) -> None:
    """A store that another process holds raises within a fifth of a second."""
    other = sqlite3.connect("state/test.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(sqlite3.OperationalError):
        storage.acquire_entry("a", 1, 60)
    other.close()

    assert time.monotonic() - started < 0.2
    assert storage.acquire_entry("a", 1, 60)


def test_a_decision_is_written_also_while_an_exception_is_handled(storage: SQLiteStorage) -> None:
    """Whoever asks from inside an `except` gets no request for nothing."""
    try:
        raise ValueError
    except ValueError:
        assert storage.acquire_entry("a", 1, 60)

    assert not storage.acquire_entry("a", 1, 60)


def test_what_fails_inside_is_taken_back(storage: SQLiteStorage) -> None:
    """A statement that fails leaves no transaction open, and the next decision works."""
    with sqlite3.connect("state/test.db") as connection:
        connection.execute("ALTER TABLE hits RENAME TO elsewhere")
    with pytest.raises(sqlite3.OperationalError):
        storage.acquire_entry("a", 1, 60)
    with sqlite3.connect("state/test.db") as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO hits")
    connection.close()

    assert storage.acquire_entry("a", 1, 60)
    assert storage.check()
