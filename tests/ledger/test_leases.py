"""Leases: whoever shows the same for too long has died."""

from banana.ledger.leases import LEASE_SECONDS, Leases


def test_an_owner_lapses_when_its_beat_stands_still_for_a_lease() -> None:
    """By this worker's own clock; whoever shows something new has as long again."""
    now = 0.0
    leases = Leases(clock=lambda: now)

    assert leases.lapsed({"a": 1, "b": 1}) == set()
    now = LEASE_SECONDS / 2
    assert leases.lapsed({"a": 1, "b": 2}) == set()
    now = LEASE_SECONDS
    assert leases.lapsed({"a": 1, "b": 2}) == {"a"}


def test_what_is_gone_begins_anew() -> None:
    """A thing that was not there in between is another."""
    now = 0.0
    leases = Leases(clock=lambda: now)
    leases.lapsed({"a": 1})
    leases.lapsed({})
    now = LEASE_SECONDS

    assert leases.lapsed({"a": 1}) == set()
