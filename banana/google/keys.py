"""The API keys: taken in turn, cooling down while Google's quota is used up, set aside when Google refuses them or wants money.

Google counts quota by model, so a key cools down for the model that met 429 and serves the others; what its project may spend
is over for all models. A key that was refused is the last resort for a minute, never gone: a refusal costs nothing, and the
key may have been mended. A key without money is asked again every ten minutes, by one request. No I/O; a key is shown to people
by its digest only.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from banana import errors
from banana.errors import QuotaKind
from banana.redaction import digest_of

# How long a refused key is the last resort before it takes its turn again.
REFUSED_SECONDS = 60
# How long a key cools down where Google does not say: for a model, for what its project may spend, for money that somebody
# must add, and for a quota of the day.
MODEL_SECONDS = 60
SPEND_SECONDS = 60
MONEY_SECONDS = 600
DAY_SECONDS = 600
# While one request asks whether a key has money again, others take it for one without.
ASKING_SECONDS = 60
# Stands for every model; none is called so.
_ALL_MODELS = "*"


class Cooling(NamedTuple):
    """Until when a key cools down, in seconds of the ring's clock, and what Google said."""

    until: float
    failure: errors.UpstreamQuota


class Key:
    """One API key; its text is `secret`, and `digest` stands for it everywhere people look."""

    __slots__ = ("cooling", "digest", "is_out_of_money", "refused_until", "secret")

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.digest = digest_of(secret)
        self.refused_until = 0.0
        self.is_out_of_money = False
        self.cooling: dict[str, Cooling] = {}

    def __repr__(self) -> str:
        return f"Key({self.digest})"


class KeyRing:
    """The keys of one worker. `clock` is in seconds and never goes back."""

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.keys = [Key(secret) for secret in secrets]
        self._clock = clock

    def take(self, model: str, tried: Collection[Key] = (), other_than: Key | None = None) -> Key | None:
        """Return the key whose turn it is and that may serve `model`, or None; never one of `tried`.

        `other_than` is taken where there is no other.
        """
        ready = [key for key in self.keys if key not in tried and self._cooling_of(key, model) is None]
        if not ready:
            return None
        # Stable, so refused keys come last and the others keep their turn.
        key = min(ready, key=lambda key: (key is other_than, self._is_refused(key)))
        self.keys.remove(key)
        self.keys.append(key)
        if key.is_out_of_money:
            key.cooling[_ALL_MODELS] = Cooling(self._clock() + ASKING_SECONDS, key.cooling[_ALL_MODELS].failure)
        return key

    def set_aside(self, key: Key, model: str, failure: errors.UpstreamQuota | errors.RejectedKey) -> float:
        """Set `key` aside after `failure`: it cools down for `model` or for all, or it is refused. Return for how long."""
        if isinstance(failure, errors.RejectedKey):
            key.refused_until = self._clock() + REFUSED_SECONDS
            return REFUSED_SECONDS
        is_for_all = failure.kind in (QuotaKind.SPEND, QuotaKind.MONEY)
        seconds = _cooling_seconds(failure)
        name, until = _ALL_MODELS if is_for_all else model, self._clock() + seconds
        if failure.kind is QuotaKind.MONEY:
            key.is_out_of_money = True  # until Google serves it again: an older call may still be told otherwise
        if self._left(key, name) < seconds:
            key.cooling[name] = Cooling(until, failure)
        return seconds

    def ask_again(self, key: Key) -> None:
        """Let a key without money be asked again: what it was asked by did not learn whether it has any."""
        if key.is_out_of_money:
            key.cooling[_ALL_MODELS] = Cooling(self._clock(), key.cooling[_ALL_MODELS].failure)

    def accepted(self, key: Key) -> bool:
        """Take `key` back into turn: Google has just answered with it. Return whether it was refused or out of money before."""
        was_aside = self._is_refused(key) or key.is_out_of_money
        key.refused_until = 0
        if key.is_out_of_money:
            key.is_out_of_money = False
            key.cooling.pop(_ALL_MODELS, None)
        return was_aside

    def exhausted_error(self, model: str, failures: Sequence[errors.BananaError]) -> errors.BananaError:
        """Return the error for when no key is left, after `failures`: Google's, with the time until the first key is ready.

        The order in which the keys were tried does not matter: a quota goes before a refusal, one that is refilled today
        before one of the day, and the sooner one first.
        """
        cooling = [found for key in self.keys if (found := self._cooling_of(key, model))]
        quotas = [failure for failure in failures if isinstance(failure, errors.UpstreamQuota)]
        spent = min((quota for quota in quotas if isinstance(quota, errors.KeySpent)), key=_readiness, default=None)
        if not cooling:
            return spent or next(iter(quotas or failures), errors.Internal())
        soonest = min(cooling, key=lambda one: (one.failure.per_day, one.until))
        left_seconds, google = soonest.until - self._clock(), soonest.failure
        if spent is not None and _readiness(spent) < (google.per_day, left_seconds):
            return spent
        was_asked = google in failures
        error = errors.UpstreamQuota(
            google.message if was_asked else f"{google.message} Nothing was sent to Google this time.",
            retry_after_seconds=left_seconds,
            per_day=google.per_day,
            kind=google.kind,
            may_wait=google.may_wait,
        )
        error.upstream_response = google.upstream_response if was_asked else None
        return error

    def cooling_count(self) -> int:
        """Return how many keys cool down for some model, or for all."""
        return sum(any(self._left(key, model) for model in tuple(key.cooling)) for key in self.keys)

    def refused_count(self) -> int:
        """Return how many keys are refused."""
        return sum(map(self._is_refused, self.keys))

    def out_of_money_count(self) -> int:
        """Return how many keys are out of money, as far as it is known."""
        return sum(key.is_out_of_money for key in self.keys)

    def has_usable_key(self) -> bool:
        """Return whether any key is neither refused nor out of money, or may be asked again whether it is."""
        return not all(self._is_refused(key) or self._waits_for_money(key) for key in self.keys)

    def _waits_for_money(self, key: Key) -> bool:
        return key.is_out_of_money and bool(self._left(key, _ALL_MODELS))

    def redact(self, text: str) -> str:
        """Return `text` with every key in it replaced by its digest."""
        for key in self.keys:
            text = text.replace(key.secret, f"[key {key.digest}]")
        return text

    def _cooling_of(self, key: Key, model: str) -> Cooling | None:
        """Return what keeps `key` from serving `model` for longest; None when nothing does."""
        found = [key.cooling[name] for name in (model, _ALL_MODELS) if self._left(key, name)]
        return max(found, default=None, key=lambda cooling: cooling.until)

    def _left(self, key: Key, model: str) -> float:
        """Return how long `key` still cools down for `model` itself; 0 when it does not."""
        left = key.cooling[model].until - self._clock() if model in key.cooling else 0
        if left <= 0 and not key.is_out_of_money:
            key.cooling.pop(model, None)
        return max(0, left)

    def _is_refused(self, key: Key) -> bool:
        return key.refused_until > self._clock()


def _cooling_seconds(failure: errors.UpstreamQuota) -> float:
    said = min(failure.retry_after_seconds or 0, errors.MAX_RETRY_AFTER_SECONDS)
    match failure.kind:
        case QuotaKind.MONEY:
            return MONEY_SECONDS
        case QuotaKind.SPEND:
            return said or SPEND_SECONDS
    return max(said, DAY_SECONDS) if failure.per_day else said or MODEL_SECONDS


def _readiness(failure: errors.UpstreamQuota) -> tuple[bool, float]:
    return failure.per_day, failure.retry_after_seconds or 0
