"""The names of models: which are possible, and which are sent as others."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

# Google's own names have up to 40.
MAX_NAME_CHARACTERS = 128
_MARKS = str.maketrans("", "", "-._")
# In an alias, any characters.
WILDCARD = "*"


def is_model_name(name: str) -> bool:
    """Return whether `name` can be a model's: letters, digits, and - . _ among them, so that it is one part of a path."""
    return len(name) <= MAX_NAME_CHARACTERS and name.isascii() and name.translate(_MARKS).isalnum()


class ModelNames:
    """Resolves the names that callers give into the models that are sent to Google.

    Args:
        default: of a request that names none.
        aliases: names that are sent as other names: Google's retired ones, and OpenAI's. A `*` in one stands for any
            characters; a name goes before every pattern, and a longer pattern before a shorter one.

    """

    def __init__(self, default: str, aliases: Mapping[str, str]) -> None:
        self._default = default
        self._aliases = aliases
        self._patterns = sorted((name for name in aliases if WILDCARD in name), key=len, reverse=True)

    def resolve(self, name: str | None) -> str:
        """Return the name to send; None is the default."""
        return self.alias_of(name or self._default) or name or self._default

    def alias_of(self, name: str) -> str | None:
        """Return the name that `name` is sent as; None where it goes as it is."""
        if name in self._aliases:
            return self._aliases[name]
        return next((self._aliases[pattern] for pattern in self._patterns if fnmatchcase(name, pattern)), None)
