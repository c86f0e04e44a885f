"""The API keys: taken in turn, at rest while Google's quota is used up, set aside when Google refuses them.

Google counts quota by model, so a key rests for the model that met 429 and serves the others. A key that was refused
is the last resort, never gone: once it is the only one left it is tried again, because a refusal costs nothing and the
key may have been mended. No I/O; a key is shown to people by its digest only.
"""

import time
from collections.abc import Callable, Collection, Sequence

from banana import errors, metrics
from banana.logs import digest_of


class Key:
    """One API key; its text is `secret`, and `digest` stands for it everywhere people look."""

    __slots__ = ("digest", "refused", "rests_until", "secret")

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.digest = digest_of(secret)
        self.refused = False
        self.rests_until: dict[str, float] = {}

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
        key = min(ready, key=lambda key: key.refused)
        self.keys.remove(key)
        self.keys.append(key)
        return key

    def set_aside(self, key: Key, model: str, failure: errors.UpstreamQuota | errors.RejectedKey) -> None:
        """Set `key` aside after `failure`: it rests for `model` for Google's delay, or it is refused."""
        if isinstance(failure, errors.RejectedKey):
            key.refused = True
        elif failure.retry_after_seconds:
            key.rests_until[model] = self._clock() + failure.retry_after_seconds
        metrics.keys_resting.set(self.resting_count())

    def exhausted_error(self, model: str, last: errors.BananaError | None) -> errors.BananaError:
        """Return the error for when no key is left: Google's `last` one, with the time until the first key is ready."""
        rest_seconds = self.shortest_rest_seconds(model)
        if rest_seconds is None:
            return last or errors.Internal()
        if isinstance(last, errors.UpstreamQuota):
            return errors.UpstreamQuota(last.message, retry_after_seconds=rest_seconds, per_day=last.per_day)
        return errors.UpstreamQuota(
            "Google's quota is used up for every key of this service; the call was not sent.",
            retry_after_seconds=rest_seconds,
        )

    def rest_seconds_of(self, key: Key, model: str) -> float:
        """Return how long `key` still rests for `model`; 0 when it does not."""
        left = key.rests_until.get(model, 0) - self._clock()
        if left <= 0:
            key.rests_until.pop(model, None)
            return 0
        return left

    def shortest_rest_seconds(self, model: str) -> float | None:
        """Return the seconds until the first resting key is ready for `model`; None when none rests."""
        return min(filter(None, (self.rest_seconds_of(key, model) for key in self.keys)), default=None)

    def resting_count(self) -> int:
        """Return how many keys rest for some model."""
        return sum(any(self.rest_seconds_of(key, model) for model in tuple(key.rests_until)) for key in self.keys)

    def has_usable_key(self) -> bool:
        """Return whether any key is not refused."""
        return not all(key.refused for key in self.keys)

    def redact(self, text: str) -> str:
        """Return `text` with every key in it replaced by its digest."""
        for key in self.keys:
            text = text.replace(key.secret, f"[key {key.digest}]")
        return text
