"""The embedded store: exact across processes."""

import multiprocessing
import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from limits.storage import storage_from_string

from banana.admission.sqlite import SQLiteStorage

URI = "sqlite:///state/test.db"
DAY = 86_400


@pytest.fixture
def storage() -> SQLiteStorage:
    made = storage_from_string(URI)
    assert isinstance(made, SQLiteStorage)
    return made


def hit(times: int) -> int:
    storage = SQLiteStorage(URI)
    return sum(acquired(storage) for _ in range(times))


def acquired(storage: SQLiteStorage) -> bool:
    """Whether one more hit is let through; on a busy machine the lock may take longer than a request waits for it."""
    while True:
        with suppress(sqlite3.OperationalError):
            return bool(storage.acquire_entry("caller", 1000, 600))


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


def rows() -> int:
    with closing(sqlite3.connect("state/test.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM requests").fetchone()
    return int(count)


@pytest.mark.parametrize("callers", [1, 7, 10_000])
def test_the_file_holds_what_counts_and_nothing_else(
    storage: SQLiteStorage, monkeypatch: pytest.MonkeyPatch, callers: int
) -> None:
    """Ten minutes of a hundred requests each, by one caller, by some, or by callers who never come back."""
    now = time.time()
    for number in range(1_000):
        monkeypatch.setattr(time, "time", lambda number=number: now + number * 60 / 100)
        assert storage.acquire_entry(f"caller {number % callers}", 10**8, 60)

        assert rows() <= 100


def test_what_a_clock_that_was_ahead_left_is_swept_away(
    storage: SQLiteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries of next year, of callers who never come back, do not stay for a year."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 365 * DAY)
    for number in range(50):
        storage.acquire_entry(f"once-{number}", 5, 60)
    monkeypatch.setattr(time, "time", lambda: now)
    storage.acquire_entry("again", 1000, 60)

    assert rows() == 1


# As in 1.0.
HITS = """
CREATE TABLE hits (
    key TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, expires_at REAL NOT NULL, PRIMARY KEY (key, number)
) WITHOUT ROWID;
CREATE INDEX hits_by_time ON hits (key, at, number);
CREATE INDEX hits_by_expiry ON hits (expires_at);
CREATE TABLE counters (key TEXT PRIMARY KEY, amount INTEGER NOT NULL, expires_at REAL NOT NULL);
INSERT INTO hits VALUES ('a', 1, 0, 60);
"""


def test_workers_of_an_older_release_go_on_with_the_same_file() -> None:
    """While they are replaced, one by one, what they count in is there, and nobody is refused for it."""
    Path("state").mkdir()
    with closing(sqlite3.connect("state/test.db", isolation_level=None)) as older:
        older.execute("PRAGMA journal_mode=WAL")
        older.executescript(HITS)
        storage = SQLiteStorage(URI)
        allowed = [storage.acquire_entry("a", 2, 60) for _ in range(3)]
        storage.clear("a")
        storage.reset()
        older.execute("INSERT INTO hits VALUES ('a', 2, 1, 61)")

        assert allowed == [True, True, False]
        assert older.execute("SELECT count(*) FROM hits INDEXED BY hits_by_expiry").fetchone() == (2,)


def test_other_strategies_are_refused(storage: SQLiteStorage) -> None:
    """`limits` asks for counters; the moving window has none."""
    for use in (lambda: storage.incr("k", 10), lambda: storage.get("k"), lambda: storage.get_expiry("k")):
        with pytest.raises(NotImplementedError, match="moving-window"):
            use()


def test_what_was_counted_can_be_forgotten(storage: SQLiteStorage) -> None:
    """One key, or all."""
    for key in ("a", "b", "c"):
        storage.acquire_entry(key, 1, 60)
    storage.clear("a")

    assert storage.acquire_entry("a", 1, 60)
    assert storage.check()
    assert storage.reset() == 3
    assert storage.get_moving_window("a", 1, 60)[1] == 0


def test_a_locked_file_is_an_error_in_time(storage: SQLiteStorage) -> None:
    """A store that another process holds raises, and is not waited for."""
    other = sqlite3.connect("state/test.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError):
        storage.acquire_entry("a", 1, 60)
    other.close()

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
    with closing(sqlite3.connect("state/test.db")) as connection:
        connection.execute("ALTER TABLE requests RENAME TO elsewhere")
    with pytest.raises(sqlite3.OperationalError):
        storage.acquire_entry("a", 1, 60)
    with closing(sqlite3.connect("state/test.db")) as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO requests")

    assert storage.acquire_entry("a", 1, 60)
    assert storage.check()


@pytest.mark.parametrize("ahead_seconds", [61, DAY, 365 * DAY, 10**9])
def test_a_clock_that_was_ahead_is_forgotten(
    storage: SQLiteStorage, monkeypatch: pytest.MonkeyPatch, ahead_seconds: int
) -> None:
    """What lies beyond now and the window counts as nothing: at once, and 200 days later."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + ahead_seconds)
    assert [storage.acquire_entry("a", 3, 60) for _ in range(4)] == [True, True, True, False]
    for later in (0, 200 * DAY):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        if ahead_seconds < later:
            continue
        assert [storage.acquire_entry("a", 3, 60) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_was_a_little_ahead_makes_no_room(storage: SQLiteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the window, an entry of the future still counts."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 30)
    assert storage.acquire_entry("a", 1, 60)
    monkeypatch.setattr(time, "time", lambda: now)

    assert not storage.acquire_entry("a", 1, 60)


def broken_page(path: Path) -> None:
    """Overwrite what is behind the first page, as a failing disk does."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


@pytest.mark.parametrize(
    "content", [b"this is no database, and long enough to be looked at" * 100, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_file_that_is_no_database_is_moved_aside(content: bytes) -> None:
    """At the start: the counts begin anew, and what was there is kept beside."""
    Path("state").mkdir()
    Path("state/test.db").write_bytes(content)
    storage = SQLiteStorage(URI)

    assert [storage.acquire_entry("a", 1, 60) for _ in range(2)] == [True, False]
    assert Path("state/test.db.broken").read_bytes() == content


def test_a_file_that_breaks_while_it_is_used_is_moved_aside(storage: SQLiteStorage) -> None:
    """The decision that finds it fails, once; the next is made in a new file."""
    for number in range(300):
        storage.acquire_entry(f"caller {number}", 1, 60)
    with closing(sqlite3.connect("state/test.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    broken_page(Path("state/test.db"))
    outcomes = [_outcome(storage) for _ in range(3)]

    assert outcomes == ["DatabaseError", True, True]
    assert Path("state/test.db.broken").exists()


def _outcome(storage: SQLiteStorage) -> object:
    try:
        return storage.acquire_entry("new", 1000, 60)
    except sqlite3.Error as error:
        return type(error).__name__


def test_a_file_that_is_gone_is_made_anew() -> None:
    """The folder was removed under a service that runs: within a second all workers share a new file."""
    storage, other = (SQLiteStorage(URI, look_seconds=0) for _ in range(2))
    storage.acquire_entry("a", 1, 60)
    shutil.rmtree("state")

    assert storage.acquire_entry("a", 1, 60)
    assert not other.acquire_entry("a", 1, 60)
    assert Path("state/test.db").exists()


def test_workers_that_find_it_broken_move_it_once() -> None:
    """Four processes start on a broken file: one file is set aside, and all four count in the same new one."""
    Path("state").mkdir()
    Path("state/test.db").write_bytes(b"this is no database at all " * 100)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert sum(pool.map(hit, [300] * 4)) == 1000
    assert sorted(path.name for path in Path("state").glob("*broken*")) == ["test.db.broken"]


def test_in_memory_it_counts_for_itself() -> None:
    """Each is a store of its own."""
    one, other = SQLiteStorage("sqlite:///:memory:"), SQLiteStorage("sqlite:///:memory:")

    assert [one.acquire_entry("a", 1, 60), other.acquire_entry("a", 1, 60), one.acquire_entry("a", 1, 60)] == [
        True,
        True,
        False,
    ]
    assert not Path(":memory:").exists()
