"""The names of models: which are possible, and which are sent as others."""

from collections.abc import Mapping

# Google's own names have up to 40.
MAX_NAME_CHARACTERS = 128
_MARKS = str.maketrans("", "", "-._")


def is_model_name(name: str) -> bool:
    """Return whether `name` can be a model's: letters, digits, and - . _ among them, so that it is one part of a path."""
    return len(name) <= MAX_NAME_CHARACTERS and name.isascii() and name.translate(_MARKS).isalnum()


class ModelNames:
    """Resolves the names that callers give into the models that are sent to Google.

    Args:
        default: of a request that names none.
        aliases: names that are sent as other names: Google's retired ones, and OpenAI's.

    """

    def __init__(self, default: str, aliases: Mapping[str, str]) -> None:
        self._default = default
        self._aliases = aliases

    def resolve(self, name: str | None) -> str:
        """Return the name to send; None is the default."""
        name = name or self._default
        return self._aliases.get(name, name)
