"""What every dialect's routes stand on: the upstream, the guard of the door, and the settings they share."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from banana.ratelimit import Handler, Tell
from banana.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Relay:
    """Handed to each router.

    Attributes:
        upstream: the calls to Google.
        guard: puts a handler behind the tokens and the allowance; its refusals are told by the dialect's `Tell`.
        timeout_seconds: of a whole request.
        keepalive_seconds: silence before whitespace is sent, 0 for never.
        default_model: of a request that names none.
        model_aliases: names that are sent as other names.
        store: Google's flag of that name, None to leave it out.
        log_prompts: whether prompts are noted in the log.
    """

    upstream: Upstream
    guard: Callable[[Handler, Tell], Handler]
    timeout_seconds: float
    keepalive_seconds: float
    default_model: str
    model_aliases: Mapping[str, str]
    store: bool | None
    log_prompts: bool

    def deadline(self) -> float:
        """Return when a request that begins now must have ended, in seconds of the event loop's clock."""
        return asyncio.get_running_loop().time() + self.timeout_seconds

    def model(self, name: str | None) -> str:
        """Return the model that is asked of Google for the name that a caller gave, or gave not."""
        name = name or self.default_model
        return self.model_aliases.get(name, name)
