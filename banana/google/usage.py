"""Google's count of a call's tokens, `usageMetadata`: read, and found in what is passed on. Source: Google's REST reference."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A count beyond this is no count.
MAX_TOKENS = 1 << 53
# Behind a response's usageMetadata stand two short fields.
TAIL_BYTES = 16 * 1024
_NAME = '"usageMetadata"'
# Of what is made: genai-prices counts pages of documents as images too.
_IMAGE_MODALITIES = ("IMAGE", "DOCUMENT")


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens a call took; what is missing or no count is 0.

    Attributes:
        input: the prompt, with its pictures, and what tools added to it.
        input_images: of it, its pictures.
        output: what was made, thinking included.
        thinking: of it, thinking.
        output_images: of it, images; None where the modalities were not said.
        total: by Google's own count.

    """

    input: int
    input_images: int
    output: int
    thinking: int
    output_images: int | None
    total: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Usage":
        """Read `usageMetadata`."""
        made = _by_modality(document.get("candidatesTokensDetails"))
        output_images = sum(made.get(name, 0) for name in _IMAGE_MODALITIES)
        thinking = _count(document.get("thoughtsTokenCount"))
        output = _count(document.get("candidatesTokenCount")) + thinking
        return cls(
            input=_count(document.get("promptTokenCount")) + _count(document.get("toolUsePromptTokenCount")),
            input_images=_by_modality(document.get("promptTokensDetails")).get("IMAGE", 0),
            output=max(output, output_images),
            thinking=thinking,
            output_images=output_images if made else None,
            total=_count(document.get("totalTokenCount")),
        )


class UsageFinder:
    """Finds `usageMetadata` at the end of a response of `generateContent` that is passed on: `feed` it the chunks."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the response."""
        self._tail = chunk[-TAIL_BYTES:] if len(chunk) >= TAIL_BYTES else (self._tail + chunk)[-TAIL_BYTES:]

    def close(self) -> dict[str, Any] | None:
        """Return the last one; None where there is none that can be read."""
        # In a text its quotes would be escaped. What a model made stands before it, so that nothing there is taken for it.
        _, name, rest = self._tail.decode("utf-8", "replace").rpartition(_NAME)
        colon, value = rest.lstrip()[:1], rest.lstrip()[1:].lstrip()
        if not name or colon != ":":
            return None
        try:
            document, _ = json.JSONDecoder().raw_decode(value)
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None


def _count(value: object) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS
    return value if is_count and isinstance(value, int) else 0


def _by_modality(details: object) -> dict[str, int]:
    """Return the counts of a list of `ModalityTokenCount`; what cannot be read is left out."""
    counts: dict[str, int] = {}
    for item in details if isinstance(details, list) else ():
        if isinstance(item, dict) and isinstance(name := item.get("modality"), str):
            counts[name] = counts.get(name, 0) + _count(item.get("tokenCount"))
    return counts
