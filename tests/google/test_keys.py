"""The API keys: in turn, resting, set aside."""

import pytest

from banana import errors
from banana.errors import QuotaKind
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
    assert ring.cooling_count() == 1
    clock.now += 29.9
    assert ring.take(MODEL) is None
    clock.now += 0.2
    assert ring.take(MODEL) is key
    assert ring.cooling_count() == 0


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


def asked(ring: KeyRing, model: str = MODEL) -> str:
    key = ring.take(model)
    return key.secret if key else ""


def test_a_spent_window_is_over_for_every_model(clock: Clock) -> None:
    """For about a minute, which callers are told, and are not kept waiting for."""
    ring = KeyRing(["a"], clock)
    ring.set_aside(ring.keys[0], MODEL, errors.UpstreamQuota("spent", kind=QuotaKind.SPEND, may_wait=False))
    told = ring.exhausted_error("other", [])

    assert (asked(ring), asked(ring, "other")) == ("", "")
    assert isinstance(told, errors.UpstreamQuota)
    assert (told.headers["Retry-After"], told.may_wait) == ("60", False)
    clock.now += 61
    assert asked(ring, "other") == "a"


def test_a_key_without_money_is_asked_again_by_one_request(clock: Clock) -> None:
    """Every ten minutes; meanwhile by nobody, and others serve. What Google answers then decides."""
    ring = KeyRing(["a", "b"], clock)
    poor = ring.keys[0]
    no_money = errors.UpstreamQuota("no money", kind=QuotaKind.MONEY, may_wait=False)
    ring.set_aside(poor, MODEL, no_money)

    assert {asked(ring, model) for model in (MODEL, "other") * 3} == {"b"}
    assert (ring.out_of_money_count(), ring.has_usable_key()) == (1, True)
    for _ in range(2):
        clock.now += 601
        assert [asked(ring) for _ in range(6)].count("a") == 1
        ring.set_aside(poor, MODEL, no_money)
    clock.now += 601
    assert "a" in [asked(ring), asked(ring)]
    ring.accepted(poor)
    assert ring.out_of_money_count() == 0
    assert {asked(ring), asked(ring)} == {"a", "b"}


def test_a_service_without_money_is_ready_when_it_may_ask_again(clock: Clock) -> None:
    """Behind a balancer nobody would ask otherwise."""
    ring = KeyRing(["a"], clock)
    ring.set_aside(ring.keys[0], MODEL, errors.UpstreamQuota("no money", kind=QuotaKind.MONEY, may_wait=False))

    assert not ring.has_usable_key()
    clock.now += 601
    assert ring.has_usable_key()


@pytest.mark.parametrize(
    ("seconds", "per_day", "expected"), [(None, False, 60), (2, True, 600), (7000, True, 7000), (5, False, 5)]
)
def test_a_key_cools_down_also_where_google_names_no_time(
    clock: Clock, seconds: float | None, per_day: bool, expected: int
) -> None:
    """For a minute; for a quota of the day for ten at least."""
    ring = KeyRing(["a"], clock)

    assert ring.set_aside(ring.keys[0], MODEL, quota(seconds, per_day=per_day)) == expected


def test_another_key_is_preferred_where_there_is_one(clock: Clock) -> None:
    """To the one that has just answered without an image."""
    ring = KeyRing(["a", "b"], clock)
    first = ring.take(MODEL)
    ring.take(MODEL)
    second = ring.take(MODEL, (), first)

    assert first is not None
    assert second is not None
    assert second.secret == "b"
    assert KeyRing(["a"], clock).take(MODEL, (), first) is not None


def test_a_quota_of_one_model_says_nothing_about_money(clock: Clock) -> None:
    """An older call may still be told of another quota: only what Google serves shows that there is money again."""
    ring = KeyRing(["a"], clock)
    (key,) = ring.keys
    ring.set_aside(key, MODEL, errors.UpstreamQuota("no money", kind=QuotaKind.MONEY, may_wait=False))
    ring.set_aside(key, MODEL, errors.UpstreamQuota("spent", kind=QuotaKind.SPEND, may_wait=False))
    clock.now += 90

    assert (ring.out_of_money_count(), asked(ring, "other")) == (1, "")


def test_a_question_that_failed_is_asked_again(clock: Clock) -> None:
    """A 503 says nothing about money."""
    ring = KeyRing(["a"], clock)
    (key,) = ring.keys
    ring.set_aside(key, MODEL, errors.UpstreamQuota("no money", kind=QuotaKind.MONEY, may_wait=False))
    clock.now += 601
    assert (asked(ring), asked(ring)) == ("a", "")
    ring.ask_again(key)

    assert asked(ring) == "a"


def test_a_quota_of_the_list_of_models_is_none_of_their_calls(clock: Clock) -> None:
    """It has no model's name."""
    ring = KeyRing(["a"], clock)
    ring.set_aside(ring.keys[0], "", quota(30))

    assert asked(ring) == "a"
