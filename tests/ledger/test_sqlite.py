"""The ledger in SQLite: whose it is; its decisions are in test_ledger, its file in test_file."""

from pathlib import Path

from banana.ledger.sqlite import SQLiteLedger


def test_a_file_is_one_machines_own() -> None:
    """There is no secret to be shared with others."""
    assert SQLiteLedger(Path("ledger.db")).secret("own") is None
