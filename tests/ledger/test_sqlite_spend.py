"""What was spent, in SQLite; its decisions are in test_spend."""

from pathlib import Path

import pytest

from banana.ledger.ledger import LedgerError
from banana.ledger.spend import Window
from banana.ledger.sqlite import SQLiteLedger

FILE = Path("state/ledger.db")


def test_a_file_that_cannot_be_used_is_an_error() -> None:
    """Whatever is wanted of it."""
    FILE.parent.mkdir()
    FILE.write_bytes(b"not a database" * 100)
    spend = SQLiteLedger(FILE).spend

    with pytest.raises(LedgerError):
        spend.reserve("a", "owner", "ann", 1, 10, Window.DAY)
    with pytest.raises(LedgerError):
        spend.spent("ann")
