"""A SQLite file that several processes share; what is in it is the tests' own."""

import multiprocessing
import sqlite3
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from banana.database import Database

FILE = Path("folder/some.db")


def made(
    *, moves_broken_aside: bool = True, lock_seconds: float = 1, path: Path | None = FILE, look_seconds: float = 1
) -> Database:
    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word TEXT)")

    return Database(
        path, prepare, synchronous="FULL", lock_seconds=lock_seconds, moves_broken_aside=moves_broken_aside,
        look_seconds=look_seconds,
    )  # fmt: skip


def add(word: str) -> None:
    shared = made(lock_seconds=20)
    for _ in range(50):
        with shared.transaction() as (execute, _):
            execute("INSERT INTO words VALUES (?)", word)


def test_processes_share_it() -> None:
    """What each adds is there, and nothing twice."""
    context = multiprocessing.get_context("spawn")
    words = ["one", "two"]
    processes = [context.Process(target=add, args=(word,)) for word in words]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert made().execute("SELECT word, count(*) FROM words GROUP BY word ORDER BY word") == [("one", 50), ("two", 50)]


def open_each(gate: Barrier, count: int) -> None:
    for number in range(count):
        gate.wait(60)
        made(path=Path(f"folder/{number}.db"), lock_seconds=20).execute("SELECT count(*) FROM words")


def test_processes_open_a_new_file_at_the_same_moment() -> None:
    """Each waits for the others: SQLite alone fails at once while one of them switches to its log (1 opening in 20)."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(4)
    processes = [context.Process(target=open_each, args=(gate, 100)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0] * 4


def test_a_transaction_that_fails_changes_nothing() -> None:
    """Whatever was raised in it."""
    shared = made()

    def fail() -> None:
        with shared.transaction() as (execute, _):
            execute("INSERT INTO words VALUES ('x')")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert shared.execute("SELECT * FROM words") == []


def test_a_file_that_is_gone_is_made_anew() -> None:
    """Also when another has its name by now."""
    shared = made(look_seconds=0)
    shared.execute("INSERT INTO words VALUES ('old')")
    for file in FILE.parent.glob("*"):
        file.unlink()

    assert shared.execute("SELECT * FROM words") == []
    assert FILE.exists()


def test_a_broken_file_makes_room_where_it_may() -> None:
    """It is moved aside, not lost."""
    FILE.parent.mkdir()
    FILE.write_bytes(b"not a database" * 100)

    assert made().execute("SELECT * FROM words") == []
    assert FILE.with_name("some.db.broken").read_bytes().startswith(b"not a database")


def test_a_broken_file_stays_where_it_must() -> None:
    """Opening it fails, and so does every statement; nothing is moved."""
    FILE.parent.mkdir()
    FILE.write_bytes(b"not a database" * 100)
    shared = made(moves_broken_aside=False)

    with pytest.raises(sqlite3.DatabaseError):
        shared.open()
    with pytest.raises(sqlite3.DatabaseError):
        shared.execute("SELECT 1")
    assert [file.name for file in FILE.parent.iterdir()] == ["some.db"]


def test_opening_bears_what_will_pass() -> None:
    """Somebody else's transaction, for one: the file is used later."""
    made().open()
    other = sqlite3.connect(FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    made(lock_seconds=0).open()

    other.execute("COMMIT")
    other.close()


def test_one_without_a_path_is_in_memory() -> None:
    """And no file."""
    assert made(path=None).execute("SELECT * FROM words") == []
    assert not FILE.parent.exists()
