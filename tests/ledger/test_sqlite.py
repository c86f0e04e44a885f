"""The ledger in SQLite: its own secret; its decisions are in test_ledger, its file in test_file."""

from pathlib import Path

from banana.ledger.sqlite import SQLiteLedger


def test_a_file_is_one_machines_own() -> None:
    """Whoever shares it has the secret from the file beside it."""
    assert SQLiteLedger(Path("ledger.db")).secret("own") == "own"
