"""What comes back from Gemini, read: the one image that counts, words, refusals that arrive as 200, errors; no I/O.

Source: Google's REST reference for `models.generateContent` and google.rpc.Status; where Google's words and measured
behaviour differ, the careful reading.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from banana import errors
from banana.errors import QuotaKind
from banana.google.contents import field_of
from banana.google.models import is_model_name
from banana.payload.lazyjson import InvalidJson, LazyJsonParser, LongString, text_of, with_texts
from banana.payload.pictures import EncodedPicture, PictureError, read_picture
from banana.payload.pieces import Chunk, Pieces

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
        "MODEL_ARMOR",
        "ESCALATION",
        "LANGUAGE",
    )
)
# Fields by which a response of Gemini's is known among all JSON objects.
_RESPONSE_FIELDS = ("candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
_MAX_MESSAGE_CHARACTERS = 500
# Why a prompt is blocked: google.ai.generativelanguage.GenerateContentResponse.PromptFeedback.BlockReason.
_BLOCK_REASONS = {
    "SAFETY": "because of its safety settings",
    "BLOCKLIST": "because of a term on its blocklist",
    "PROHIBITED_CONTENT": "because its content is prohibited",
    "IMAGE_SAFETY": "because the image would be unsafe",
    "IMAGE_PROHIBITED_CONTENT": "because its content is prohibited",
    "RECITATION": "for recitation (it is too close to an existing work)",
    "IMAGE_RECITATION": "for recitation (it is too close to an existing work)",
    "SPII": "because of personal information",
    "LANGUAGE": "because of its language",
    "ESCALATION": "by escalation to a review",
    "MODEL_ARMOR": "by Model Armor",
    "OTHER": "without saying why",
    "BLOCK_REASON_UNSPECIFIED": "without saying why",
}
# How Google says that a response without an image is free.
_NOT_CHARGED = "you will not be charged"
# How the messages of 429 begin; any other is about the model's quota.
_QUOTA_KINDS = (
    ("you exceeded your spend-based rate limit", QuotaKind.SPEND),
    ("your project has exceeded its monthly spending cap", QuotaKind.MONEY),
    ("your prepayment credits are depleted", QuotaKind.MONEY),
    ("resource has been exhausted", QuotaKind.CONTENTION),
    ("resource exhausted", QuotaKind.CONTENTION),
)


class Image(Struct, frozen=True):
    """The one image of a response that counts, still as base64.

    Attributes:
        picture, mime_type: the image.
        usage: Google's usageMetadata.
        cost_usd: what the call cost, where that is known.
        text: the words beside it, where they are wanted.
        model: that made it, as Google says, else as it was sent there.
        signature: of its part, as it stands in JSON between the quotes, unchecked; the model wants it back with the image.
        pixels: its width and height, where that is known without the picture.

    """

    picture: EncodedPicture
    mime_type: str
    usage: dict[str, Any] = {}
    cost_usd: Decimal | None = None
    text: str = ""
    model: str = ""
    signature: Pieces = ()
    pixels: tuple[int, int] | None = None


class Words(Struct, frozen=True):
    """A response without an image, where that is an answer too: the model's words, or those of a refusal.

    Attributes:
        text: the words.
        finish_reason: Google's, or its reason to block the prompt.
        is_refusal: whether Google's policy refused.
        is_unbilled: whether it is certain that Google does not bill it.
        usage, cost_usd, model: as of an image.

    """

    text: str
    finish_reason: str
    is_refusal: bool = False
    usage: dict[str, Any] = {}
    cost_usd: Decimal | None = None
    model: str = ""
    is_unbilled: bool = False


class ImageParser:
    """A parser of one response of `generateContent`: `feed` it the chunks, then `close` it for the image.

    Args:
        takes_words: whether words count instead of an image.

    Attributes:
        usage: Google's usageMetadata, also of a response without an image; None where there is none.
        model: that answered, as Google says; empty where it does not.
        searches: how many searches of Google the model made.

    """

    def __init__(self, *, takes_words: bool = False) -> None:
        self.usage: dict[str, Any] | None = None
        self.model = ""
        self.searches = 0
        self._takes_words = takes_words
        self._json = LazyJsonParser(lenient=True)

    def feed(self, chunk: Chunk) -> None:
        """Take the next bytes of the response. Raises InvalidResponse."""
        try:
            self._json.feed(chunk)
        except InvalidJson as error:
            raise errors.InvalidResponse(f"Google's response cannot be read: {error}") from None

    @property
    def laborious_bytes(self) -> int:
        """How many bytes of strings have escapes, which take their time to be undone; those of an image hardly ever do."""
        return self._json.escaped_bytes

    def close(self) -> Image | Words:
        """Return the image, or words where they count. Raises Blocked, NoImage or InvalidResponse, with Google's reason."""
        try:
            # What stands beside the picture may be odd: the picture counts.
            document = _unwrapped(self._json.close())
            self.usage = _usage(field_of(document, "usageMetadata"))
            self.model = _model_version(document)
            self.searches = _searches(document)
            return _result(document, self.usage or {}, takes_words=self._takes_words)
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
        words = _KEY.sub("…", message).rstrip(".")
        return errors.RejectedKey(
            f"Google refused this service's API key: {words} ({status} {name or 'without a reason'})."
            " The operator can mend it: edit GEMINI_API_KEY in .env, then ./restart.sh"
        )
    if status == 400 and _SIGNATURE.search(message):
        return errors.SignatureRefused(message)
    if status == 403 or (status == 400 and name != "FAILED_PRECONDITION"):
        return errors.InvalidRequest(message)
    if status == 404:
        return errors.ModelNotFound(message)
    if status == 413:
        return errors.TooLarge(message)
    if status == 429:
        return _quota(message, details)
    if status == 503:
        return errors.UpstreamOverloaded(message, delay_seconds=_retry_delay(details))
    if status in (500, 502, 504):
        return errors.UpstreamFault(f"{status}: {message}")
    return errors.UpstreamError(f"{status}: {message}")


# A quota of a project without billing.
_NO_FREE_TIER = re.compile(r"\blimit: 0\b.*free_tier|free_tier.*\blimit: 0\b", re.DOTALL | re.IGNORECASE)
NO_FREE_TIER = (
    "Google's image models have no free tier: enable billing for the project of this service's API key at"
    " https://aistudio.google.com/apikey, then ./restart.sh."
)
# What looks like an API key of Google's, of either kind.
_KEY = re.compile(r"AIza[\w-]{10,}|AQ\.[\w.-]{10,}", re.ASCII)
_SIGNATURE = re.compile(r"thought[_ ]?signature", re.IGNORECASE)


def _quota(message: str, details: list[dict[str, Any]]) -> errors.UpstreamQuota:
    kinds = (kind for start, kind in _QUOTA_KINDS if message.lower().startswith(start))
    kind, delay_seconds, per_day = next(kinds, QuotaKind.MODEL), _retry_delay(details), _is_per_day(details)
    if _NO_FREE_TIER.search(message):
        return errors.UpstreamQuota(NO_FREE_TIER, kind=QuotaKind.MONEY, may_wait=False)
    if kind is QuotaKind.CONTENTION and (delay_seconds or per_day):
        kind = QuotaKind.MODEL  # what has details is a quota, however its message begins
    return errors.UpstreamQuota(
        message, retry_after_seconds=delay_seconds, per_day=per_day, kind=kind, may_wait=delay_seconds is not None
    )


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


def _result(document: dict[str, Any], usage: dict[str, Any], *, takes_words: bool) -> Image | Words:
    candidates = _objects(field_of(document, "candidates"))
    text = "".join(_texts(candidates))
    chosen = _selected_image(candidates)
    if chosen is not None:
        picture, declared_type, signature = chosen
        return Image(picture, picture.mime_type or declared_type, usage, text=text, signature=signature)
    error = _failure(document, candidates)
    error.is_unbilled = error.was_answered and _is_unbilled(usage, candidates)
    if takes_words and isinstance(error, errors.Blocked):
        reason = str(error.extra["reason"])
        return Words(text or error.message, reason, is_refusal=True, usage=usage, is_unbilled=error.is_unbilled)
    if takes_words and text:
        return Words(text, _finish_reason(candidates) or "STOP", usage=usage, is_unbilled=error.is_unbilled)
    raise error


def _model_version(document: dict[str, Any]) -> str:
    """Return the name of the model that answered; empty where that is none."""
    with suppress(InvalidJson):
        name = text_of(field_of(document, "modelVersion"))
        name = name.removeprefix("models/") if isinstance(name, str) else ""
        return name if is_model_name(name) else ""
    return ""


def _searches(document: dict[str, Any]) -> int:
    """Return how many searches of Google a response was grounded in."""
    metadata = (field_of(candidate, "groundingMetadata") for candidate in _objects(field_of(document, "candidates")))
    queries = (field_of(found, "webSearchQueries") for found in metadata if isinstance(found, dict))
    return sum(len(found) for found in queries if isinstance(found, list))


def _usage(usage: object) -> dict[str, Any] | None:
    """Return Google's count of tokens; None where it cannot be read, because the picture counts."""
    try:
        return with_texts(usage) if isinstance(usage, dict) else None
    except (InvalidJson, RecursionError):
        return None


def _selected_image(candidates: list[dict[str, Any]]) -> tuple[EncodedPicture, str, Pieces] | None:
    """Return the image that counts, the type that Google declares, and its part's signature.

    The last image part that is not a thought; else the last thought, unless policy refused what it led to. What is offered
    beside it and is no picture does not count.
    """
    offered = [(part, data) for part in _parts(candidates) if isinstance(data := field_of(part, "inlineData"), dict)]
    final = [(part, data) for part, data in reversed(offered) if part.get("thought") is not True]
    refused = _finish_reason(candidates) in POLICY_REASONS
    drafts = [] if refused else [(part, data) for part, data in reversed(offered) if part.get("thought") is True]
    problem: _NotGemini | None = None
    unknown: tuple[EncodedPicture, str, Pieces] | None = None
    for part, data in [*final, *drafts]:
        if not data.get("data"):
            continue
        try:
            picture, declared_type = _encoded(data)
        except _NotGemini as error:
            problem = problem or error
            continue
        if _is_picture(picture, declared_type):
            return picture, declared_type, _signature(part)
        if unknown is None and _may_be_image(data):
            unknown = picture, declared_type, _signature(part)
    if unknown is None and problem is not None:
        raise problem
    return unknown


def _signature(part: dict[str, Any]) -> Pieces:
    """Return a part's signature, as it stands in JSON between the quotes; nothing where there is none."""
    signature = field_of(part, "thoughtSignature")
    if isinstance(signature, LongString):
        return signature.pieces
    return [signature.encode("utf-8", "replace")] if isinstance(signature, str) else ()


def _is_picture(picture: EncodedPicture, declared_type: str) -> bool:
    return (picture.mime_type or declared_type).startswith("image/")


def _may_be_image(data: dict[str, Any]) -> bool:
    """Return whether inline data is not declared as something else: text, sound, a film, a document."""
    declared = str(text_of(field_of(data, "mimeType")) or "").lower()
    return not declared.startswith(("text/", "audio/", "video/", "application/json", "application/pdf"))


def _encoded(data: dict[str, Any]) -> tuple[EncodedPicture, str]:
    value = data["data"]
    if not isinstance(value, str | LongString):
        raise _NotGemini("inlineData.data is not a string")
    try:
        picture = read_picture(value)
    except PictureError as error:
        raise _NotGemini(f"inlineData.data {error}") from None
    declared = text_of(field_of(data, "mimeType"))
    plausible = isinstance(declared, str) and re.fullmatch(r"image/[\w.+-]+", declared, re.ASCII | re.IGNORECASE)
    return picture, str(declared).lower() if plausible else "application/octet-stream"


def _failure(document: dict[str, Any], candidates: list[dict[str, Any]]) -> errors.BananaError:
    """Return why there is no image. Raises _NotGemini when that is no answer of Gemini's."""
    if error := _error_object(document):
        raise _NotGemini(f"an error came as 200: {_shortened(error.get('message'))}")
    if not any(field_of(document, name) is not None for name in _RESPONSE_FIELDS):
        raise _NotGemini("it has no candidates")
    _check_shape(document)
    feedback = field_of(document, "promptFeedback")
    feedback = feedback if isinstance(feedback, dict) else {}
    if block_reason := text_of(field_of(feedback, "blockReason")):
        message = _shortened(field_of(feedback, "blockReasonMessage")) or _blocked_because(str(block_reason))
        return errors.Blocked(message, reason=str(block_reason))
    reason = _finish_reason(candidates)
    finish_message = next((_shortened(message) for c in candidates if (message := field_of(c, "finishMessage"))), "")
    if reason in POLICY_REASONS:
        return errors.Blocked(finish_message or _blocked_because(reason, "image"), reason=reason)
    text = _shortened(" ".join(_texts(candidates)))
    sentences = ("Google answered without an image.", finish_message, text and f"The model's text: {text}")
    return errors.NoImage(" ".join(filter(None, sentences)), reason=reason or "NO_CANDIDATES")


def _blocked_because(reason: str, what: str = "prompt") -> str:
    """Return Google's reason to block a prompt, or the image that came of it, as a sentence."""
    why = _BLOCK_REASONS.get(reason, f"for the reason {reason[:100]}")
    return f"Google blocked the {what} {why}. Change the prompt or the input images."


def _is_unbilled(usage: dict[str, Any], candidates: list[dict[str, Any]]) -> bool:
    """Return whether a response without an image is certainly free: Google counts no token, or says so itself."""
    if usage and not any(isinstance(count, int) and count for count in usage.values()):
        return not any(isinstance(count, dict | list) and count for count in usage.values())
    messages = (text_of(field_of(candidate, "finishMessage")) for candidate in candidates)
    return any(isinstance(message, str) and _NOT_CHARGED in message.lower() for message in messages)


def _finish_reason(candidates: list[dict[str, Any]]) -> str | None:
    reasons = (text_of(field_of(candidate, "finishReason")) for candidate in candidates)
    return next((str(reason) for reason in reasons if reason), None)


def _texts(candidates: list[dict[str, Any]]) -> Iterator[str]:
    for part in _parts(candidates):
        text = None
        with suppress(InvalidJson):  # what cannot be read costs no picture
            text = text_of(part.get("text"))
        if isinstance(text, str) and part.get("thought") is not True:
            yield text


def _parts(candidates: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for candidate in candidates:
        content = candidate.get("content")
        if isinstance(content, dict):
            yield from _objects(content.get("parts"))


def _check_shape(document: dict[str, Any]) -> None:
    for candidate in _list(field_of(document, "candidates"), "candidates"):
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


def _shortened(value: object) -> str:
    """Return a text of Google's, cut to a length that fits a message and a log."""
    text = text_of(value)
    if not isinstance(text, str):
        return ""
    return text if len(text) <= _MAX_MESSAGE_CHARACTERS else text[:_MAX_MESSAGE_CHARACTERS] + "…"
