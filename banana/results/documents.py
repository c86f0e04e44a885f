"""What a request became, as the ledger keeps it: a JSON document of outcomes, whose images lie in files, and words in it."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pybase64
from msgspec.structs import replace

from banana import errors
from banana.errors import UpstreamResponse
from banana.google.usage import Usage
from banana.google.wire import Image, Words
from banana.images import Outcome, sum_of
from banana.ledger.ledger import Entry
from banana.payload.conversion import dimensions_of
from banana.payload.pictures import EncodedPicture, type_of
from banana.results.files import EXTENSIONS, Files
from banana.results.links import expired

RESPONSE_EXTENSION = "body"
OTHER_EXTENSION = "bin"
# A multiple of three: each block but the last is base64 without padding.
_BLOCK_BYTES = 3 << 16


class _Response(msgspec.Struct, omit_defaults=True):
    status: int
    content_type: str
    body: str


class _Error(msgspec.Struct, omit_defaults=True):
    status: int
    code: str
    message: str
    extra: dict[str, Any] = {}
    response: _Response | None = None
    was_answered: bool = False
    is_unbilled: bool = False


class _Outcome(msgspec.Struct, omit_defaults=True):
    index: int
    created_at: int
    file: str = ""
    content_type: str = ""
    pixels: tuple[int, int] | None = None
    usage: dict[str, Any] = {}
    error: _Error | None = None
    cost_usd: Decimal | None = None
    model: str = ""
    text: str = ""
    finish_reason: str = ""
    is_refusal: bool = False
    is_words: bool = False


def document_of(outcomes: Sequence[Outcome]) -> bytes:
    """Return the document of `outcomes`, in the order in which they came."""
    return msgspec.json.encode([_written(outcome) for outcome in outcomes])


async def outcomes_of(
    entry: Entry, files: Files, *, with_content: bool, without_what_is_gone: bool = False
) -> list[Outcome]:
    """Return what an entry that has ended became, in the order in which it came.

    Errors carry the id of the first request. Without content, an image that can have a link is nothing more than that.
    Raises Expired when a file is gone; `without_what_is_gone` makes that the outcome of its call.
    """
    if not entry.result:
        raise expired()
    outcomes = []
    for stored in msgspec.json.decode(entry.result, type=list[_Outcome]):
        try:
            outcomes.append(await _read(stored, entry, files, with_content=with_content))
        except errors.Expired as gone:
            if not without_what_is_gone:
                raise
            outcomes.append(Outcome(stored.index, gone, stored.created_at))
    return outcomes


def error_in(entry: Entry) -> errors.BananaError | None:
    """Return the error of an entry that failed; None when it did not."""
    stored = msgspec.json.decode(entry.result, type=list[_Outcome]) if entry.result else []
    found = [_recorded(outcome.error, entry) for outcome in stored if outcome.error]
    return decisive_error(found) if len(found) == len(stored) and found else None


def decisive_error(found: Sequence[errors.BananaError]) -> errors.BananaError:
    """Return the error that stands for all of them: that one may have been billed, else the first that Google answered.

    What keeps the key used comes first: whoever repeats it would be told in vain to try again.
    """
    unknown = [error for error in found if error.code == errors.OutcomeUnknown.code]
    return next(iter([*unknown, *(error for error in found if error.was_answered), *found]))


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of an entry that has ended, beside what it made.

    Attributes:
        model: as Google named it; empty where that is not known.
        usage: the tokens of all calls together; None where no call's are known.
        cost_usd: of all calls; None where it is not known.
        ended_at: when the last call ended, in whole seconds of the epoch; 0 where that is not known.

    """

    model: str
    usage: Usage | None
    cost_usd: Decimal | None
    ended_at: int


def summary_of(entry: Entry) -> Summary:
    """Return what is known of an entry that has ended."""
    stored = msgspec.json.decode(entry.result, type=list[_Outcome]) if entry.result else []
    usages = [Usage.of(outcome.usage) for outcome in stored if outcome.usage]
    return Summary(
        next((outcome.model for outcome in stored if outcome.model), ""),
        Usage.sum(usages) if usages else None,
        sum_of(outcome.cost_usd for outcome in stored),
        max((outcome.created_at for outcome in stored), default=0),
    )


async def recovered_outcomes(entry: Entry, files: Files) -> list[Outcome]:
    """Return what can be said of an entry that was sent and whose worker did not live: its files, and what is unknown.

    What is in the files is not read. Raises OSError.
    """
    outcomes = []
    names = {index: name for name in await files.names_of(entry.id) if (index := _index_of(name)) is not None}
    for index in range(entry.calls):
        if index in names:
            outcomes.append(await _recovered(index, names[index], files))
        else:
            outcomes.append(Outcome(index, errors.OutcomeUnknown()))
    return outcomes


async def kept(outcome: Outcome, entry_id: str, files: Files) -> Outcome:
    """Write what an outcome holds to a file; return it with the file's name. Raises OSError.

    The base64 of an image becomes that of the file, so that it is the same when it is read again.
    """
    match outcome.result:
        case Image(picture, mime_type):
            name = f"{entry_id}-{outcome.index}.{EXTENSIONS.get(mime_type, OTHER_EXTENSION)}"
            as_kept: list[EncodedPicture] = []

            def blocks() -> Iterator[bytes]:  # in the thread that writes
                content = b"".join(picture.decoded())
                as_kept.append(encoded(content))
                yield content

            await files.write(name, blocks())
            pixels = outcome.result.pixels or dimensions_of(as_kept[0])
            return replace(outcome, result=replace(outcome.result, picture=as_kept[0], pixels=pixels), file=name)
        case UpstreamResponse(_, _, pieces):
            name = f"{entry_id}-{outcome.index}.{RESPONSE_EXTENSION}"
            await files.write(name, map(bytes, pieces))
            return replace(outcome, file=name)
    return outcome


def _written(outcome: Outcome) -> _Outcome:
    written = _Outcome(outcome.index, outcome.created_at, outcome.file, cost_usd=outcome.result.cost_usd)
    match outcome.result:
        case Image() as image:
            written.content_type, written.model = image.mime_type, image.model
            written.pixels = image.pixels or dimensions_of(image.picture)
            written.usage, written.text = image.usage, image.text
        case Words() as words:
            written.is_words, written.model = True, words.model
            written.usage, written.text = words.usage, words.text
            written.finish_reason, written.is_refusal = words.finish_reason, words.is_refusal
        case UpstreamResponse(_, content_type, _):
            written.content_type = content_type
        case error:
            written.error = _written_error(error)
    return written


def _written_error(error: errors.BananaError) -> _Error:
    response = None
    if error.upstream_response is not None:
        google = error.upstream_response
        body = b"".join(google.pieces).decode("utf-8", "replace")
        response = _Response(google.status, google.content_type, body)
    flags = error.was_answered, error.is_unbilled
    return _Error(error.status, error.code, error.message, error.extra, response, *flags)


def _recorded(stored: _Error, entry: Entry) -> errors.BananaError:
    error = errors.recorded(stored.status, stored.code, stored.message, stored.extra)
    error.was_answered, error.is_unbilled = stored.was_answered, stored.is_unbilled
    error.request_id = entry.request_id
    if stored.response is not None:
        google = stored.response
        error.upstream_response = UpstreamResponse(google.status, google.content_type, [google.body.encode()])
    return error


async def _read(stored: _Outcome, entry: Entry, files: Files, *, with_content: bool) -> Outcome:
    if stored.error is not None:
        error = _recorded(stored.error, entry)
        error.cost_usd = stored.cost_usd
        return Outcome(stored.index, error, stored.created_at)
    if stored.is_words:
        words = Words(stored.text, stored.finish_reason, stored.is_refusal, stored.usage, stored.cost_usd, stored.model)
        return Outcome(stored.index, words, stored.created_at)
    if not stored.file:
        raise expired()
    try:
        if stored.file.endswith(f".{RESPONSE_EXTENSION}"):
            body = await files.read(stored.file)
            response = UpstreamResponse(200, stored.content_type, [body], stored.cost_usd)
            return Outcome(stored.index, response, stored.created_at)
        if with_content or stored.file.endswith(f".{OTHER_EXTENSION}"):
            picture = await asyncio.to_thread(encoded, await files.read(stored.file))
        else:
            picture = EncodedPicture(stored.content_type, (), await files.head(stored.file))
    except (FileNotFoundError, NotADirectoryError):
        raise expired() from None
    except OSError as error:
        raise errors.LedgerUnavailable from error
    image = Image(
        picture,
        stored.content_type,
        stored.usage,
        stored.cost_usd,
        stored.text,
        stored.model,
        pixels=stored.pixels,
    )
    return Outcome(stored.index, image, stored.created_at, stored.file)


async def _recovered(index: int, name: str, files: Files) -> Outcome:
    if name.endswith(f".{RESPONSE_EXTENSION}"):
        return Outcome(index, UpstreamResponse(200, "application/json", []), file=name)
    head = await files.head(name)
    mime_type = type_of(head) or "application/octet-stream"
    return Outcome(index, Image(EncodedPicture(mime_type, (), head), mime_type), file=name)


def encoded(content: bytes) -> EncodedPicture:
    """Return a picture as base64, given the picture."""
    view = memoryview(content)
    pieces = [pybase64.b64encode(view[at : at + _BLOCK_BYTES]) for at in range(0, len(content), _BLOCK_BYTES)]
    return EncodedPicture(type_of(content[:32]), pieces, content[:32])


def _index_of(name: str) -> int | None:
    """Return the number of the call whose file this is; None of a file that somebody else put there."""
    number = name.rpartition("-")[2].partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() else None
