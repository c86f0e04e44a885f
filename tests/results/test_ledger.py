"""The ledger's interface."""

import inspect

import pytest

from banana.results.ledger import Ledger, State
from banana.results.sqlite import SQLiteLedger


@pytest.mark.parametrize("state", State)
def test_what_is_begun_or_sent_is_active(state: State) -> None:
    """Nothing else."""
    assert state.is_active is (state in ("begun", "sent"))


def test_sqlite_has_the_whole_interface() -> None:
    """With the same parameters, so that another engine can take its place."""
    names = [name for name in vars(Ledger) if not name.startswith("_")]
    for name in names:
        own, wanted = (inspect.signature(getattr(kind, name)).parameters for kind in (SQLiteLedger, Ledger))
        assert own == wanted, name
    assert len(names) > 10
