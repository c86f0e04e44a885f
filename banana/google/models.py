"""The names of models: which are possible, which are sent as others, and which follow those that Google has shut down."""

import re
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

# Google's own names have up to 40.
MAX_NAME_CHARACTERS = 128
_MARKS = str.maketrans("", "", "-._")
# In an alias, any characters.
WILDCARD = "*"
# Which model follows another, for the day on which Google answers 404 for that one.
SUCCESSORS = {
    "gemini-3-pro-image-preview": "gemini-3-pro-image",
    "gemini-3.1-flash-image-preview": "gemini-3.1-flash-image",
    "gemini-3.1-flash-image": "gemini-nano-banana-2.1",
    "gemini-3.1-flash-lite-image": "gemini-nano-banana-2.1",
    "gemini-2.5-flash-image-preview": "gemini-nano-banana-2.1",
    "gemini-2.5-flash-image": "gemini-nano-banana-2.1",
}
# For how long the successor is asked at once; a model may come back.
RETIRED_SECONDS = 3600


# What other gateways put before a model's name, and Google's API itself.
_GATEWAYS = re.compile(r"^(?:(?:models|google|gemini|openai|vertex_ai|openrouter)/)+")


def without_gateway(name: str) -> str:
    """Return a model's name without the prefixes that other gateways give it."""
    return _GATEWAYS.sub("", name)


def is_model_name(name: str) -> bool:
    """Return whether `name` can be a model's: letters, digits, and - . _ among them, so that it is one part of a path."""
    return len(name) <= MAX_NAME_CHARACTERS and name.isascii() and name.translate(_MARKS).isalnum()


class ModelNames:
    """Resolves the names that callers give into the models that are sent to Google.

    Args:
        default: of a request that names none.
        aliases: names that are sent as other names: Google's retired ones, and OpenAI's. A `*` in one stands for any
            characters; a name goes before every pattern, and a longer pattern before a shorter one.
        clock: in seconds, never goes back.

    """

    def __init__(self, default: str, aliases: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._retired: dict[str, float] = {}  # until when
        self._default = default
        self._aliases = aliases
        self._patterns = sorted((name for name in aliases if WILDCARD in name), key=len, reverse=True)

    def resolve(self, name: str | None) -> str:
        """Return the name to send; None is the default."""
        return self._living(self.alias_of(name or self._default) or name or self._default)

    def is_successor(self, name: str | None) -> bool:
        """Return whether another model is asked for `name`, because Google does not know that one."""
        return self.resolve(name) != (self.alias_of(name or self._default) or name or self._default)

    def retire(self, model: str) -> str | None:
        """Take notice that Google does not know a model; return the one that follows it, None where none does."""
        if model not in SUCCESSORS:
            return None
        self._retired[model] = self._clock() + RETIRED_SECONDS
        return self._living(model)

    def _living(self, model: str) -> str:
        """Return a model, or the one that follows it while Google does not know it."""
        while self._retired.get(model, 0) > self._clock():
            model = SUCCESSORS[model]
        return model

    def alias_of(self, name: str) -> str | None:
        """Return the name that `name` is sent as; None where it goes as it is."""
        if name in self._aliases:
            return self._aliases[name]
        return next((self._aliases[pattern] for pattern in self._patterns if fnmatchcase(name, pattern)), None)
