"""Gemini's wire format: bytes in and out, no I/O.

Writes the body of a `generateContent` call around pictures that stay where they lie, and reads what comes back: the
one image that counts, the refusals that arrive as 200, the errors. Source: Google's REST reference for
`models.generateContent` and google.rpc.Status; where Google's words and measured behaviour differ, the careful reading.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from banana import errors
from banana.payload.lazyjson import InvalidJson, LazyJsonParser, LongString, text_of, with_texts
from banana.payload.pictures import EncodedPicture, PictureError, read_picture
from banana.payload.pieces import Bytes, Pieces, size_of

# Finish reasons by which Google's policy refuses; every other reason without an image is `no_image`.
POLICY_REASONS = frozenset(
    (
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    )
)
# Fields by which a response of Gemini's is known among all JSON objects.
_RESPONSE_FIELDS = ("candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId")
# In which a part holds a picture, or names a file.
_PICTURE_FIELDS = ("inlineData", "inline_data", "fileData", "file_data")
# A number as text, about.
_NUMBER_BYTES = 8
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
_MAX_MESSAGE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class GenerateContentRequest:
    """One image to make: the prompt, pictures to start from, and the shape of the image.

    `store` is Google's flag of that name: None leaves it out.
    """

    prompt: str
    pictures: Sequence[EncodedPicture] = ()
    aspect_ratio: str | None = None
    image_size: str | None = None
    store: bool | None = None

    def body(self) -> list[Bytes]:
        """Return the call's JSON body in pieces; the pictures are the pieces they came in."""
        pieces: list[Bytes] = [b'{"contents":[{"role":"user","parts":[{"text":', msgspec.json.encode(self.prompt), b"}"]
        for picture in self.pictures:
            pieces.append(b',{"inlineData":{"mimeType":"%s","data":"' % (picture.mime_type or "").encode())
            pieces.extend(picture.pieces)
            pieces.append(b'"}}')
        pieces.append(b']}],"generationConfig":' + msgspec.json.encode(self._generation_config()))
        if self.store is not None:
            pieces.append(b',"store":' + msgspec.json.encode(self.store))
        pieces.append(b"}")
        return pieces

    def _generation_config(self) -> dict[str, object]:
        image_config = {"aspectRatio": self.aspect_ratio, "imageSize": self.image_size}
        image_config = {name: value for name, value in image_config.items() if value is not None}
        config: dict[str, object] = {"responseModalities": ["IMAGE"]}
        return config | ({"imageConfig": image_config} if image_config else {})


@dataclass(frozen=True, slots=True)
class Image:
    """The one image of a response that counts, still as base64.

    `usage` is Google's usageMetadata; `cost_usd` what the call cost, where that is known.
    """

    picture: EncodedPicture
    mime_type: str
    usage: dict[str, Any] = field(default_factory=dict)
    cost_usd: Decimal | None = None


def request_size(body: Pieces) -> tuple[str | None, int, int]:
    """Return the image size that a caller's own body asks for, the bytes of its texts, and how many pictures are in it."""
    parser = LazyJsonParser(lenient=True)
    try:
        for piece in body:
            parser.feed(bytes(piece))
        document = parser.close()
    except InvalidJson:
        return "unknown", size_of(body), 0
    config = _get(document, "generationConfig") if isinstance(document, dict) else None
    image_config = _get(config, "imageConfig") if isinstance(config, dict) else None
    image_size = _get(image_config, "imageSize") if isinstance(image_config, dict) else None
    return image_size if isinstance(image_size, str) else None, *_texts_and_pictures(document)


def _texts_and_pictures(document: object) -> tuple[int, int]:
    """Return the bytes of all strings and numbers, and how many parts hold pictures, or name files."""
    text_bytes = pictures = 0
    left = [document]
    while left:
        match left.pop():
            case str() as text:
                text_bytes += len(text.encode("utf-8", "replace"))
            case LongString() as text:
                text_bytes += size_of(text.pieces)
            case list() as items:
                left += items
            case dict() as fields:
                for name, value in fields.items():
                    if name in _PICTURE_FIELDS and isinstance(value, dict):
                        pictures += 1
                    else:
                        left += (name, value)
            case int() | float():
                text_bytes += _NUMBER_BYTES
    return text_bytes, pictures


class ImageParser:
    """A parser of one response of `generateContent`: `feed` it the chunks, then `close` it for the image.

    Attributes:
        usage: Google's usageMetadata, also of a response without an image; None where there is none.

    """

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self._json = LazyJsonParser(lenient=True)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the response. Raises InvalidResponse."""
        try:
            self._json.feed(chunk)
        except InvalidJson as error:
            raise errors.InvalidResponse(f"Google's response cannot be read: {error}") from None

    def close(self) -> Image:
        """Return the image. Raises Blocked, NoImage or InvalidResponse, with Google's reason."""
        try:
            # What stands beside the picture may be odd: the picture counts.
            document = _unwrapped(self._json.close())
            self.usage = _usage(_get(document, "usageMetadata"))
            return _image(document, self.usage or {})
        except InvalidJson as error:
            raise errors.InvalidResponse(f"Google's response is not JSON: {error}") from None
        except _NotGemini as error:
            raise errors.InvalidResponse(f"Google's response is not in Gemini's format: {error}") from None


def error_of(status: int, body: bytes) -> errors.BananaError:
    """Return what a response with an HTTP status other than 200 means; `body` may be anything."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document = None
    error = _error_object(document)
    message = _shortened(error.get("message")) or f"Google answered {status} without an error message."
    return _error(status, error.get("status"), message, _objects(error.get("details")))


def _error(status: int, name: object, message: str, details: list[dict[str, Any]]) -> errors.BananaError:
    if status == 401 or _is_about_the_key(status, message, details):
        # Google's message may contain the key, so it is left out.
        return errors.RejectedKey(f"Google refused this service's API key ({status} {name or 'without a reason'}).")
    if status == 403 or (status == 400 and name != "FAILED_PRECONDITION"):
        return errors.InvalidRequest(message)
    if status == 404:
        return errors.ModelNotFound(message)
    if status == 413:
        return errors.TooLarge(message)
    if status == 429:
        return errors.UpstreamQuota(message, retry_after_seconds=_retry_delay(details), per_day=_is_per_day(details))
    if status == 503:
        return errors.UpstreamOverloaded(message, delay_seconds=_retry_delay(details))
    if status in (500, 502, 504):
        return errors.UpstreamFault(f"{status}: {message}")
    return errors.UpstreamError(f"{status}: {message}")


_ABOUT_THE_KEY = (
    "your api key",
    "api key",
    "the api key",
    "permission denied: consumer 'api_key:",
    "consumer 'api_key:",
)


def _is_about_the_key(status: int, message: str, details: list[dict[str, Any]]) -> bool:
    """Return whether an error concerns the API key, and not what the caller asked for.

    A 403 may well be about the caller's `fileData`. Source: google.api.ErrorReason; that a key was leaked stands in the
    message alone.
    """
    reasons = [str(item.get("reason")) for item in details if "reason" in item]
    if any(reason.startswith(("API_KEY_", "CONSUMER_")) for reason in reasons):
        return True
    # Only as Google's own sentences begin: further on a caller's file name may be quoted.
    return status == 403 and not reasons and message.lower().startswith(_ABOUT_THE_KEY)


def _error_object(document: object) -> dict[str, Any]:
    """Return the `error` object; Google's stream endpoints wrap it in a list."""
    if isinstance(document, list) and document:
        document = document[0]
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    """Return google.rpc.RetryInfo's delay in seconds."""
    for item in details:
        delay = item.get("retryDelay")
        if isinstance(delay, str) and (seconds := _DURATION.fullmatch(delay)):
            return min(float(seconds[1]), errors.MAX_RETRY_AFTER_SECONDS)
    return None


def _is_per_day(details: list[dict[str, Any]]) -> bool:
    """Return whether google.rpc.QuotaFailure names a quota that only tomorrow refills."""
    violations = (violation for item in details for violation in _objects(item.get("violations")))
    return any("PerDay" in str(violation.get("quotaId")) for violation in violations)


def _objects(value: object) -> list[dict[str, Any]]:
    """Return the objects in a list that may be anything."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


class _NotGemini(Exception):
    """The JSON is not in Gemini's format; the message names the place."""


def _unwrapped(document: object) -> dict[str, Any]:
    if isinstance(document, list) and len(document) == 1:  # as a stream without events wraps it
        (document,) = document
    if not isinstance(document, dict):
        raise _NotGemini("it is not an object")
    return document


def _image(document: dict[str, Any], usage: dict[str, Any]) -> Image:
    candidates = _objects(_get(document, "candidates"))
    chosen = _selected_image(candidates)
    if chosen is None:
        raise _failure(document, candidates)
    picture, declared_type = chosen
    return Image(picture, picture.mime_type or declared_type, usage)


def _usage(usage: object) -> dict[str, Any] | None:
    """Return Google's count of tokens; None where it cannot be read, because the picture counts."""
    try:
        return with_texts(usage) if isinstance(usage, dict) else None
    except (InvalidJson, RecursionError):
        return None


def _selected_image(candidates: list[dict[str, Any]]) -> tuple[EncodedPicture, str] | None:
    """Return the image that counts and the type that Google declares.

    The last image part that is not a thought; else the last thought, unless policy refused what it led to. What is offered
    beside it and is no picture does not count.
    """
    offered = [(part, data) for part in _parts(candidates) if isinstance(data := _get(part, "inlineData"), dict)]
    final = [data for part, data in reversed(offered) if part.get("thought") is not True]
    refused = _finish_reason(candidates) in POLICY_REASONS
    drafts = [] if refused else [data for part, data in reversed(offered) if part.get("thought") is True]
    problem: _NotGemini | None = None
    unknown: tuple[EncodedPicture, str] | None = None
    for data in [*final, *drafts]:
        if not data.get("data"):
            continue
        try:
            encoded = _encoded(data)
        except _NotGemini as error:
            problem = problem or error
            continue
        if _is_picture(*encoded):
            return encoded
        if unknown is None and _may_be_image(data):
            unknown = encoded
    if unknown is None and problem is not None:
        raise problem
    return unknown


def _is_picture(picture: EncodedPicture, declared_type: str) -> bool:
    return (picture.mime_type or declared_type).startswith("image/")


def _may_be_image(data: dict[str, Any]) -> bool:
    """Return whether inline data is not declared as something else: text, sound, a film, a document."""
    declared = str(text_of(_get(data, "mimeType")) or "").lower()
    return not declared.startswith(("text/", "audio/", "video/", "application/json", "application/pdf"))


def _encoded(data: dict[str, Any]) -> tuple[EncodedPicture, str]:
    value = data["data"]
    if not isinstance(value, str | LongString):
        raise _NotGemini("inlineData.data is not a string")
    try:
        picture = read_picture(value)
    except PictureError as error:
        raise _NotGemini(f"inlineData.data {error}") from None
    declared = text_of(_get(data, "mimeType"))
    plausible = isinstance(declared, str) and re.fullmatch(r"image/[\w.+-]+", declared, re.ASCII | re.IGNORECASE)
    return picture, str(declared).lower() if plausible else "application/octet-stream"


def _failure(document: dict[str, Any], candidates: list[dict[str, Any]]) -> errors.BananaError:
    """Return why there is no image. Raises _NotGemini when that is no answer of Gemini's."""
    if error := _error_object(document):
        raise _NotGemini(f"an error came as 200: {_shortened(error.get('message'))}")
    if not any(_get(document, name) is not None for name in _RESPONSE_FIELDS):
        raise _NotGemini("it has no candidates")
    _check_shape(document)
    feedback = _get(document, "promptFeedback")
    feedback = feedback if isinstance(feedback, dict) else {}
    if block_reason := text_of(_get(feedback, "blockReason")):
        message = _shortened(_get(feedback, "blockReasonMessage")) or "Google blocked the prompt."
        return errors.Blocked(message, reason=str(block_reason))
    reason = _finish_reason(candidates)
    finish_message = next((_shortened(message) for c in candidates if (message := _get(c, "finishMessage"))), "")
    if reason in POLICY_REASONS:
        return errors.Blocked(finish_message or "Google's policy refused to make this image.", reason=reason)
    text = _shortened(" ".join(_texts(candidates)))
    sentences = ("Google answered without an image.", finish_message, text and f"The model's text: {text}")
    return errors.NoImage(" ".join(filter(None, sentences)), reason=reason or "NO_CANDIDATES")


def _finish_reason(candidates: list[dict[str, Any]]) -> str | None:
    reasons = (text_of(_get(candidate, "finishReason")) for candidate in candidates)
    return next((str(reason) for reason in reasons if reason), None)


def _texts(candidates: list[dict[str, Any]]) -> Iterator[str]:
    for part in _parts(candidates):
        text = text_of(part.get("text"))
        if isinstance(text, str) and part.get("thought") is not True:
            yield text


def _parts(candidates: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for candidate in candidates:
        content = candidate.get("content")
        if isinstance(content, dict):
            yield from _objects(content.get("parts"))


def _check_shape(document: dict[str, Any]) -> None:
    for candidate in _list(_get(document, "candidates"), "candidates"):
        content = candidate.get("content") or {}
        if not isinstance(content, dict):
            raise _NotGemini("content is not an object")
        _list(content.get("parts"), "parts")


def _list(value: object, name: str) -> list[dict[str, Any]]:
    """Return `value` as the list of objects it must be; nothing is an empty list."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _NotGemini(f"{name} is not a list of objects")
    return value


def _get(mapping: dict[str, Any], name: str) -> Any:
    """Return a field by its JSON name or its proto name (`inlineData`, `inline_data`): Google's side knows both."""
    if name in mapping:
        return mapping[name]
    return mapping.get(re.sub("([A-Z])", r"_\1", name).lower())


def _shortened(value: object) -> str:
    """Return a text of Google's, cut to a length that fits a message and a log."""
    text = text_of(value)
    if not isinstance(text, str):
        return ""
    return text if len(text) <= _MAX_MESSAGE_CHARACTERS else text[:_MAX_MESSAGE_CHARACTERS] + "…"
