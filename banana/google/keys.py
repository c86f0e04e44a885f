"""The API keys: taken in turn, at rest while Google's quota is used up, set aside when Google refuses them.

Google counts quota by model, so a key rests for the model that met 429 and serves the others. A key that was refused
is the last resort for a minute, never gone: a refusal costs nothing, and the key may have been mended. No I/O; a key is shown to people by its digest only.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from banana import errors
from banana.logs import digest_of

# How long a refused key is the last resort before it takes its turn again.
REFUSED_SECONDS = 60


class Rest(NamedTuple):
    """Until when a key rests for a model, in seconds of the ring's clock, and whether the quota is the day's."""

    until: float
    per_day: bool


class Key:
    """One API key; its text is `secret`, and `digest` stands for it everywhere people look."""

    __slots__ = ("digest", "refused_until", "rests", "secret")

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.digest = digest_of(secret)
        self.refused_until = 0.0
        self.rests: dict[str, Rest] = {}

    def __repr__(self) -> str:
        return f"Key({self.digest})"


class KeyRing:
    """The keys of one worker. `clock` is in seconds and never goes back."""

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.keys = [Key(secret) for secret in secrets]
        self._clock = clock

    def take(self, model: str, tried: Collection[Key] = ()) -> Key | None:
        """Return the key whose turn it is and that may serve `model`, or None; never one of `tried`."""
        ready = [key for key in self.keys if key not in tried and not self.rest_seconds_of(key, model)]
        if not ready:
            return None
        # Stable, so refused keys come last and the others keep their turn.
        key = min(ready, key=self._is_refused)
        self.keys.remove(key)
        self.keys.append(key)
        return key

    def set_aside(self, key: Key, model: str, failure: errors.UpstreamQuota | errors.RejectedKey) -> None:
        """Set `key` aside after `failure`: it rests for `model` for Google's delay, or it is refused."""
        if isinstance(failure, errors.RejectedKey):
            key.refused_until = self._clock() + REFUSED_SECONDS
        elif failure.retry_after_seconds:
            seconds = min(failure.retry_after_seconds, errors.MAX_RETRY_AFTER_SECONDS)
            key.rests[model] = Rest(self._clock() + seconds, failure.per_day)

    def accepted(self, key: Key) -> bool:
        """Take `key` back into turn: Google has just answered with it. Return whether it was refused before."""
        was_refused = self._is_refused(key)
        key.refused_until = 0
        return was_refused

    def exhausted_error(self, model: str, failures: Sequence[errors.BananaError]) -> errors.BananaError:
        """Return the error for when no key is left, after `failures`: Google's, with the time until the first key is ready.

        The order in which the keys were tried does not matter: a quota goes before a refusal, one that is refilled today
        before one of the day, and the sooner one first.
        """
        rests = [key.rests[model] for key in self.keys if self.rest_seconds_of(key, model)]
        quotas = [failure for failure in failures if isinstance(failure, errors.UpstreamQuota)]
        spent = min((quota for quota in quotas if isinstance(quota, errors.KeySpent)), key=_readiness, default=None)
        if not rests:
            return spent or next(iter(quotas or failures), errors.Internal())
        soonest = min(rests, key=lambda rest: (rest.per_day, rest.until))
        left_seconds = soonest.until - self._clock()
        if spent is not None and _readiness(spent) < (soonest.per_day, left_seconds):
            return spent
        message = "Google's quota is used up for every API key of this service. Nothing was sent to Google."
        google = min((quota for quota in quotas if quota is not spent), key=_readiness, default=None)
        error = errors.UpstreamQuota(
            google.message if google else message, retry_after_seconds=left_seconds, per_day=soonest.per_day
        )
        error.upstream_response = google.upstream_response if google else None
        return error

    def rest_seconds_of(self, key: Key, model: str) -> float:
        """Return how long `key` still rests for `model`; 0 when it does not."""
        left = key.rests[model].until - self._clock() if model in key.rests else 0
        if left <= 0:
            key.rests.pop(model, None)
            return 0
        return left

    def resting_count(self) -> int:
        """Return how many keys rest for some model."""
        return sum(any(self.rest_seconds_of(key, model) for model in tuple(key.rests)) for key in self.keys)

    def refused_count(self) -> int:
        """Return how many keys are refused."""
        return sum(map(self._is_refused, self.keys))

    def has_usable_key(self) -> bool:
        """Return whether any key is not refused."""
        return not all(self._is_refused(key) for key in self.keys)

    def _is_refused(self, key: Key) -> bool:
        return key.refused_until > self._clock()

    def redact(self, text: str) -> str:
        """Return `text` with every key in it replaced by its digest."""
        for key in self.keys:
            text = text.replace(key.secret, f"[key {key.digest}]")
        return text


def _readiness(failure: errors.UpstreamQuota) -> tuple[bool, float]:
    return failure.per_day, failure.retry_after_seconds or 0
