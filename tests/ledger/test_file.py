"""The ledger's file: its versions, and what is wrong with it."""

import sqlite3
import stat
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

import pytest

from banana.ledger.file import MIGRATIONS
from banana.ledger.ledger import LedgerError
from banana.ledger.sqlite import SQLiteLedger
from tests.ledger.entries import ENTRY

FILE = Path("state/ledger.db")


@pytest.fixture
def ledger() -> SQLiteLedger:
    return SQLiteLedger(FILE)


def test_what_is_recorded_is_on_the_disk(ledger: SQLiteLedger) -> None:
    """Another process reads it at once, and the file waits for the disk at each transaction."""
    ledger.begin(ENTRY)
    ledger.close()

    assert SQLiteLedger(FILE).get([ENTRY.id]) == [ENTRY]
    assert 'synchronous="FULL"' in (Path(__file__).parents[2] / "banana/ledger/file.py").read_text(encoding="utf-8")


def test_an_older_file_is_migrated_in_place() -> None:
    """One of the first version keeps what it holds, and takes what was spent beside it."""
    FILE.parent.mkdir()
    with closing(sqlite3.connect(FILE)) as connection, connection:
        for statement in MIGRATIONS[0]:
            connection.execute(statement)
        columns = "id, caller, key, route, fingerprint, calls, has_links, is_task, owner, request_id, keep_seconds, created_at"
        marks = ", ".join("?" * 15)
        connection.execute(
            f"INSERT INTO entries ({columns}, expires_at, state, result) VALUES ({marks})", astuple(ENTRY)
        )
        connection.execute("PRAGMA user_version = 1")

    ledger = SQLiteLedger(FILE)

    assert ledger.get([ENTRY.id]) == [ENTRY]
    assert ledger.spend.spent("ann").ever == 0
    with closing(sqlite3.connect(FILE)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_a_newer_file_is_left_alone() -> None:
    """With words that say what to do; checked at the start, and at every use."""
    FILE.parent.mkdir()
    with closing(sqlite3.connect(FILE)) as connection:
        connection.execute("PRAGMA user_version = 7")
    ledger = SQLiteLedger(FILE)

    with pytest.raises(LedgerError, match=r"state/ledger.db is of version 7.*newer BananaService.*up to 2"):
        ledger.check()
    with pytest.raises(LedgerError):
        ledger.begin(ENTRY)


def test_a_broken_file_is_not_replaced() -> None:
    """Keys that were forgotten would be paid for again: it stops the start, and names the file."""
    FILE.parent.mkdir()
    FILE.write_bytes(b"not a database" * 100)

    with pytest.raises(LedgerError, match=r"state/ledger.db cannot be used .*move it away"):
        SQLiteLedger(FILE).check()
    with pytest.raises(LedgerError):
        SQLiteLedger(FILE).begin(ENTRY)
    assert FILE.read_bytes().startswith(b"not a database")


def test_a_check_of_one_that_works_leaves_it_closed(ledger: SQLiteLedger) -> None:
    """The parent process keeps nothing open for its workers to inherit."""
    ledger.check()

    assert stat.S_ISREG(FILE.stat().st_mode)
    assert not FILE.with_name("ledger.db-wal").exists()
