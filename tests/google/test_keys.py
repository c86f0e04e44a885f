"""The API keys: in turn, resting, set aside."""

import pytest

from banana import errors
from banana.google.keys import KeyRing

MODEL = "gemini-3-pro-image"


class Clock:
    """Seconds that pass when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def quota(seconds: float | None = None) -> errors.UpstreamQuota:
    return errors.UpstreamQuota("quota", retry_after_seconds=seconds)


def test_keys_are_taken_in_turn(clock: Clock) -> None:
    """Each key serves once before the first serves again."""
    ring = KeyRing(["a", "b", "c"], clock)

    assert [key.secret for _ in range(6) if (key := ring.take(MODEL))] == ["a", "b", "c", "a", "b", "c"]


def test_a_key_rests_for_its_model_as_long_as_google_says(clock: Clock) -> None:
    """A resting key is passed over for its model, serves others, and comes back."""
    ring = KeyRing(["a"], clock)
    key = ring.keys[0]

    ring.set_aside(key, MODEL, quota(30))

    assert ring.take(MODEL) is None
    assert ring.take("other") is key
    assert ring.resting_count() == 1
    clock.now += 29.9
    assert ring.shortest_rest_seconds(MODEL) == pytest.approx(0.1)
    clock.now += 0.2
    assert ring.take(MODEL) is key
    assert ring.resting_count() == 0


def test_a_refused_key_is_the_last_resort(clock: Clock) -> None:
    """A refused key is taken only when no other is left."""
    ring = KeyRing(["a", "b"], clock)
    refused, good = ring.keys[0], ring.keys[1]

    ring.set_aside(refused, MODEL, errors.RejectedKey("no"))

    assert [ring.take(MODEL) for _ in range(3)] == [good] * 3
    assert ring.take(MODEL, [good]) is refused
    assert ring.has_usable_key()


def test_when_all_rest_the_shortest_rest_is_told(clock: Clock) -> None:
    """The answer names the time until the first key is ready."""
    ring = KeyRing(["a", "b"], clock)
    ring.set_aside(ring.keys[0], MODEL, quota(50))
    ring.set_aside(ring.keys[1], MODEL, quota(20))

    told = ring.exhausted_error(MODEL, None)

    assert isinstance(told, errors.UpstreamQuota)
    assert told.headers["Retry-After"] == "20"


def test_a_key_is_shown_by_its_digest_only() -> None:
    """Neither a repr nor a redacted text holds the key."""
    ring = KeyRing(["AIza-secret"])

    assert "AIza-secret" not in repr(ring.keys)
    assert ring.redact("Consumer 'api_key:AIza-secret' is suspended") == (
        f"Consumer 'api_key:[key {ring.keys[0].digest}]' is suspended"
    )
