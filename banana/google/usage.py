"""Google's count of a call's tokens, `usageMetadata`: read, and found in what is passed on. Source: Google's REST reference."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from banana.payload.pieces import Chunk

# Google's counts are int32: one beyond this is no count.
MAX_TOKENS = (1 << 31) - 1
# Behind a response's usageMetadata stand two short fields.
TAIL_BYTES = 16 * 1024
# In front of what was made may stand who made it.
HEAD_BYTES = 1024
_NAME = b'"usageMetadata"'
# In a text the quotes around it would be escaped.
_SEARCHES_NAME = b'"webSearchQueries"'
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_SEARCHES = re.compile(_SEARCHES_NAME + rb"\s*:\s*\[((?:\s*" + _STRING.pattern + rb"\s*,?)*+)\s*\]", re.DOTALL)
_MODEL = re.compile(rb'"modelVersion"\s*:\s*"(?:models/)?([A-Za-z0-9][A-Za-z0-9._-]{0,127})"')
_FINISHED = re.compile(rb'"finishReason"\s*:\s*"')
_ENDS_OF_EVENT = (b"\n\n", b"\r\n\r\n", b"\r\r")
_DECODER = json.JSONDecoder()
# Of what is made: genai-prices counts pages of documents as images too.
_IMAGE_MODALITIES = ("IMAGE", "DOCUMENT")


class Usage(Struct, frozen=True):
    """How many tokens a call took; what is missing or no count is 0.

    Attributes:
        input: the prompt, with its pictures, and what tools added to it.
        input_images: of it, its pictures.
        output: what was made, thinking included.
        thinking: of it, thinking.
        output_images: of it, images; None where the modalities were not said.
        total: by Google's own count.
        cached: of the input, what Google had in its cache.

    """

    input: int
    input_images: int
    output: int
    thinking: int
    output_images: int | None
    total: int
    cached: int = 0

    @classmethod
    def sum(cls, usages: Sequence["Usage"]) -> "Usage":
        """Return the count of several calls together."""
        names = [field.name for field in msgspec.structs.fields(cls)]
        return cls(**{name: sum(getattr(usage, name) or 0 for usage in usages) for name in names})

    @property
    def output_text(self) -> int:
        """Of what was made, words; what is not said to be an image is none."""
        return max(0, self.output - self.thinking - (self.output_images or 0))

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Usage":
        """Read `usageMetadata`."""
        try:
            read = msgspec.convert(document, _Usage)
        except _ODD:
            read = _as_far_as_can_be_read(document)
        made = [detail for detail in read.candidatesTokensDetails if detail.modality]
        output_images = sum(detail.tokenCount for detail in made if detail.modality in _IMAGE_MODALITIES)
        return cls(
            input=read.promptTokenCount + read.toolUsePromptTokenCount,
            input_images=sum(detail.tokenCount for detail in read.promptTokensDetails if detail.modality == "IMAGE"),
            output=max(read.candidatesTokenCount + read.thoughtsTokenCount, output_images),
            thinking=read.thoughtsTokenCount,
            output_images=output_images if made else None,
            total=read.totalTokenCount,
            cached=read.cachedContentTokenCount,
        )


# What is raised by values that are not as they should be: other types, other ranges, texts that are no Unicode.
_ODD = (msgspec.MsgspecError, ValueError, RecursionError)
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]


class _Detail(msgspec.Struct):
    """Google's `ModalityTokenCount`."""

    modality: str = ""
    tokenCount: _Count = 0  # noqa: N815 # Google's names


class _Usage(msgspec.Struct):
    """Google's `UsageMetadata`, as far as it is looked at."""

    promptTokenCount: _Count = 0  # noqa: N815
    toolUsePromptTokenCount: _Count = 0  # noqa: N815
    candidatesTokenCount: _Count = 0  # noqa: N815
    thoughtsTokenCount: _Count = 0  # noqa: N815
    totalTokenCount: _Count = 0  # noqa: N815
    cachedContentTokenCount: _Count = 0  # noqa: N815
    promptTokensDetails: list[_Detail] = []  # noqa: N815 # msgspec copies an empty default
    candidatesTokensDetails: list[_Detail] = []  # noqa: N815


def _as_far_as_can_be_read(document: Mapping[str, Any]) -> _Usage:
    """Read what is not as it should be, field by field; what is no count is 0."""
    read = _Usage()
    for field in msgspec.structs.fields(_Usage):
        value = document.get(field.name)
        if isinstance(field.default, int):
            with suppress(*_ODD):
                setattr(read, field.name, msgspec.convert(value, _Count))
            continue
        details = []
        for item in value if isinstance(value, list) else ():
            with suppress(*_ODD):
                details.append(msgspec.convert(item, _Detail))
        setattr(read, field.name, details)
    return read


class UsageFinder:
    """Finds `usageMetadata` at the end of a response of `generateContent` that is passed on: `feed` it the chunks."""

    def __init__(self) -> None:
        self._head: Chunk = b""
        self._tail: Chunk = b""
        self.searches = 0  # of Google, that the model made

    def feed(self, chunk: Chunk) -> None:
        """Take the next bytes of the response."""
        border = bytes(self._tail[-len(_SEARCHES_NAME) :]) + bytes(chunk[: len(_SEARCHES_NAME)])
        if any(_SEARCHES_NAME in part for part in (chunk, self._tail, border)):
            self._count_searches(bytes(self._tail) + bytes(chunk))
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[:HEAD_BYTES]
        self._tail = chunk[-TAIL_BYTES:] if len(chunk) >= TAIL_BYTES else (self._tail + chunk)[-TAIL_BYTES:]

    @property
    def model(self) -> str:
        """The model that answered, as Google says; empty where it does not."""
        found = _MODEL.findall(self._tail) or _MODEL.findall(self._head)
        return found[-1].decode() if found else ""

    def _count_searches(self, text: bytes) -> None:
        """Count the searches that are named in it; a later event of a stream names earlier ones again."""
        for queries in _SEARCHES.findall(text):
            self.searches = max(self.searches, len(_STRING.findall(queries)))

    @property
    def is_last_event(self) -> bool:
        """Whether the last part of a stream has come whole: an event, or an item of a list, that says why the model ended."""
        tail = self._tail.rstrip()
        if tail.endswith(b"]"):
            return _FINISHED.search(tail) is not None and self.close() is not None
        event = tail[max(0, tail.rfind(b"\ndata:")) :]
        return _FINISHED.search(event) is not None and self._tail.endswith(_ENDS_OF_EVENT)

    def close(self) -> dict[str, Any] | None:
        """Return the last one; None where there is none that can be read."""
        # In a text its quotes would be escaped. What a model made stands before it, so that nothing there is taken for it.
        _, name, rest = self._tail.rpartition(_NAME)
        colon, _, value = rest.decode("utf-8", "replace").partition(":")
        if not name or colon.strip():
            return None
        try:
            document, _ = _DECODER.raw_decode(value.lstrip())
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None
