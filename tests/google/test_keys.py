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


def quota(seconds: float | None = None, *, per_day: bool = False) -> errors.UpstreamQuota:
    return errors.UpstreamQuota("quota", retry_after_seconds=seconds, per_day=per_day)


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
    assert ring.rest_seconds_of(key, MODEL) == pytest.approx(0.1)
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

    told = ring.exhausted_error(MODEL, [])

    assert isinstance(told, errors.UpstreamQuota)
    assert told.headers["Retry-After"] == "20"


def test_a_key_is_shown_by_its_digest_only() -> None:
    """Neither a repr nor a redacted text holds the key."""
    ring = KeyRing(["AIza-secret"])

    assert "AIza-secret" not in repr(ring.keys)
    assert ring.redact("Consumer 'api_key:AIza-secret' is suspended") == (
        f"Consumer 'api_key:[key {ring.keys[0].digest}]' is suspended"
    )


def test_a_refused_key_takes_its_turn_again_after_a_while(clock: Clock) -> None:
    """A key may have been mended: after a minute it is asked again, and the service is ready again."""
    ring = KeyRing(["a", "b"], clock)
    for key in list(ring.keys):
        ring.set_aside(key, MODEL, errors.RejectedKey("no"))
    assert not ring.has_usable_key()
    clock.now += 61

    taken = [ring.take(MODEL) for _ in range(2)]
    assert ring.has_usable_key()
    assert {key.secret for key in taken if key} == {"a", "b"}


def test_a_key_that_was_accepted_is_refused_no_more(clock: Clock) -> None:
    """Google's answer says more than its refusal before."""
    ring = KeyRing(["a"], clock)
    ring.set_aside(ring.keys[0], MODEL, errors.RejectedKey("no"))
    ring.accepted(ring.keys[0])

    assert ring.has_usable_key()


@pytest.mark.parametrize("first_per_day", [True, False])
def test_the_order_of_the_keys_does_not_decide(clock: Clock, first_per_day: bool) -> None:
    """One key has no quota today, the other none this minute: the minute is what the caller waits for."""
    ring = KeyRing(["a", "b"], clock)
    for key, per_day in zip(list(ring.keys), (first_per_day, not first_per_day), strict=True):
        last = quota(1 if per_day else 7, per_day=per_day)
        ring.set_aside(key, MODEL, last)

    error = ring.exhausted_error(MODEL, [last])

    assert isinstance(error, errors.UpstreamQuota)
    assert (error.per_day, error.headers["Retry-After"]) == (False, "7")


def test_no_key_rests_for_more_than_a_day(clock: Clock) -> None:
    """Google has named delays of a year."""
    ring = KeyRing(["a"], clock)
    ring.set_aside(ring.keys[0], MODEL, quota(31_536_000))

    assert ring.exhausted_error(MODEL, []).headers["Retry-After"] == "86400"


def test_googles_own_response_goes_with_its_error(clock: Clock) -> None:
    """Callers who use Google's format get Google's body, quota and all."""
    ring = KeyRing(["a"], clock)
    last = quota(5)
    last.upstream_response = errors.UpstreamResponse(429, "application/json", [b"{}"])
    ring.set_aside(ring.keys[0], MODEL, last)

    assert ring.exhausted_error(MODEL, [last]).upstream_response is last.upstream_response
    assert ring.exhausted_error(MODEL, []).upstream_response is None


@pytest.mark.parametrize("refused_first", [True, False])
@pytest.mark.parametrize("delay_seconds", [None, 5])
def test_a_quota_goes_before_a_refusal(clock: Clock, refused_first: bool, delay_seconds: int | None) -> None:
    """One key is wrong and one has no quota: the caller may wait, whichever was tried first."""
    ring = KeyRing(["a", "b"], clock)
    failures: list[errors.BananaError] = [
        errors.RejectedKey("no"),
        errors.UpstreamQuota("used up", retry_after_seconds=delay_seconds),
    ]
    for key, failure in zip(list(ring.keys), failures, strict=True):
        assert isinstance(failure, errors.RejectedKey | errors.UpstreamQuota)
        ring.set_aside(key, MODEL, failure)

    error = ring.exhausted_error(MODEL, failures if refused_first else failures[::-1])

    assert (type(error), error.message) == (errors.UpstreamQuota, "used up")
