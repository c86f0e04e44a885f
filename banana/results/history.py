"""What a conversation refers to: kept pictures by their links or ids, and what Google signed its model's pictures with."""

import asyncio
import hashlib
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from msgspec.structs import replace

from banana import errors
from banana.exchange import Exchange
from banana.google.contents import Part, Turn
from banana.google.wire import Image, Words
from banana.ledger.ledger import Entry
from banana.ledger.thread import LedgerThread
from banana.payload.memory import Buffers
from banana.payload.pictures import EncodedPicture
from banana.payload.pieces import size_of
from banana.results.documents import encoded, outcomes_of
from banana.results.files import Files
from banana.results.links import Links, expired

# Of a response, and of the picture and the words in it; behind it stands the id of its entry.
RESPONSE_PREFIX, PICTURE_PREFIX, WORDS_PREFIX = "resp_", "ig_", "msg_"
_ID = re.compile(rf"({RESPONSE_PREFIX}|{PICTURE_PREFIX}|{WORDS_PREFIX})([0-9a-f]{{32}})")
_LINK = re.compile(r".*/results/([0-9a-f]{32}-[0-9]{1,2}\.[a-z]+)")
# Longest wait for all signatures of a conversation: without them it goes to Google all the same.
SIGNATURES_SECONDS = 10
# base64 of either alphabet.
_SIGNATURE = re.compile(rb"[A-Za-z0-9+/_=-]+")


class History(Protocol):
    """Looks up what turns refer to."""

    async def looked_up(self, turns: Sequence[Turn], exchange: Exchange) -> Sequence[Turn]:
        """Return the turns with the pictures they refer to, and with signatures, as far as these are kept.

        Raises InvalidRequest for what is not kept, Expired, BadSignature, LedgerUnavailable; TooLarge and Overloaded for more
        than a request may bring along, or than there is room for.
        """
        ...


class NoHistory:
    """Stands for it where KEEP_RESULTS_SECONDS is 0."""

    async def looked_up(self, turns: Sequence[Turn], exchange: Exchange) -> Sequence[Turn]:
        """Return the turns. Raises InvalidRequest when they refer to anything."""
        for part in _parts(turns):
            if part.reference:
                raise _not_kept(part.reference)
        return turns


class KeptHistory:
    """What the ledger, the files and the links know.

    Args:
        ledger, files, links: they know it.
        buffers: where what is in memory is counted.
        max_bytes: of what one conversation refers to.

    """

    def __init__(self, ledger: LedgerThread, files: Files, links: Links, buffers: Buffers, max_bytes: int) -> None:
        self._ledger = ledger
        self._files = files
        self._links = links
        self._buffers = buffers
        self._max_bytes = max_bytes

    async def looked_up(self, turns: Sequence[Turn], exchange: Exchange) -> Sequence[Turn]:
        """Return the turns with what they refer to."""
        if not any(turn.is_model or part.reference for turn in turns for part in turn.parts):
            return turns
        found, size_bytes = [], 0
        until = asyncio.get_running_loop().time() + SIGNATURES_SECONDS
        for turn in turns:
            parts: list[Part] = []
            for part in turn.parts:
                looked_up = await self._part(part, turn, exchange, until)
                # A reference is short, and what it stands for is not: as many as fit into a body would be gigabytes.
                brought_bytes = sum(_size_of(one) for one in looked_up) - _size_of(part)
                size_bytes += brought_bytes
                if size_bytes > self._max_bytes:
                    raise errors.TooLarge(f"The images of this conversation have more than {self._max_bytes} bytes.")
                self._buffers.reserve(exchange, brought_bytes)
                parts += looked_up
            found.append(Turn(parts, turn.is_model))
        return found

    async def _part(self, part: Part, turn: Turn, exchange: Exchange, until: float) -> list[Part]:
        """Return what a part stands for, signed where it is the model's and that is possible in time."""
        assert exchange.caller is not None
        parts = await self._referred(part.reference, exchange.caller) if part.reference else [part]
        return [await self._signed(part, until) for part in parts] if turn.is_model else parts

    async def _referred(self, reference: str, caller: str) -> list[Part]:
        if match := _ID.fullmatch(reference):
            return await self._of_entry(match[1], match[2], reference, caller)
        return [Part(picture=await self._linked(reference))]

    async def _of_entry(self, prefix: str, entry_id: str, reference: str, caller: str) -> list[Part]:
        """Return the words and the picture of an earlier response of the caller's; by the id of one of them, that alone."""
        found = await self._ledger.look(lambda ledger: ledger.get([entry_id]))
        entry = next((entry for entry in found if entry.caller == caller), None)
        if entry is None or entry.state.is_active:
            raise _not_kept(reference)
        parts = await _parts_of(entry, self._files)
        if prefix == PICTURE_PREFIX:
            parts = [part for part in parts if part.picture]
        if prefix == WORDS_PREFIX:
            parts = [part for part in parts if not part.picture]
        if not parts:
            raise _not_kept(reference)
        return parts

    async def _linked(self, address: str) -> EncodedPicture:
        """Return the kept picture of a link of this service's, whatever host it names: the signature is the permission."""
        with suppress(ValueError):
            url = urlsplit(address)
            query = parse_qs(url.query)
            if (match := _LINK.fullmatch(url.path)) and "exp" in query and "sig" in query:
                self._links.check(match[1], query["exp"][0], query["sig"][0])
                try:
                    return await asyncio.to_thread(encoded, await self._files.read(match[1]))
                except (FileNotFoundError, NotADirectoryError):
                    raise expired() from None
                except OSError as error:
                    raise errors.LedgerUnavailable from error
        raise _not_kept(address)

    async def _signed(self, part: Part, until: float) -> Part:
        """Return a picture of the model's with its signature, where that is kept and found in time."""
        if part.picture is None:
            return part
        name = await asyncio.to_thread(signature_name, part.picture.decoded())
        with suppress(OSError):  # a TimeoutError is one
            async with asyncio.timeout_at(until):
                return replace(part, signature=[await self._files.read(name)])
        return part


async def keep_signature(image: Image, files: Files) -> None:
    """Keep what Google signed an image with, under the digest of the image; a signature that is none is not kept."""
    signature = b"".join(image.signature)
    if _SIGNATURE.fullmatch(signature):
        with suppress(OSError):  # without it the picture goes back all the same
            await files.write(await asyncio.to_thread(signature_name, image.picture.decoded()), [signature])


def signature_name(blocks: Iterable[bytes]) -> str:
    """Return the name of the file with the signature of a picture, given the picture."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return f"{digest.hexdigest()}.signature"


async def _parts_of(entry: Entry, files: Files) -> list[Part]:
    """Return what a model said in a request that has ended: its words and its pictures, without errors."""
    parts = []
    for outcome in await outcomes_of(entry, files, with_content=True):
        if isinstance(outcome.result, Image | Words) and outcome.result.text:
            parts.append(Part(outcome.result.text))
        if isinstance(outcome.result, Image):
            parts.append(Part(picture=outcome.result.picture))
    return parts


def _size_of(part: Part) -> int:
    """Return how much of a part is in memory, in bytes, beside its words."""
    return (part.picture.size_bytes if part.picture else 0) + size_of(part.signature)


def _parts(turns: Sequence[Turn]) -> Iterable[Part]:
    return (part for turn in turns for part in turn.parts)


def _not_kept(reference: str) -> errors.InvalidRequest:
    """Return the error for what is not there, by the name of the field that refers to it."""
    if reference.startswith(RESPONSE_PREFIX):
        return errors.InvalidRequest.of_fields(
            [
                (
                    "previous_response_id",
                    f"{reference[:80]} was not found. Only responses with store: true or background: true are kept, for a time",
                )
            ]
        )
    if not reference.lower().startswith(("http://", "https://")):
        problem = f"{reference[:80]} was not found. Send the item itself, or create it with store: true"
        return errors.InvalidRequest.of_fields([("input", problem)])
    problem = f"{reference[:80]} is not downloaded; send the image as a data URI, or a link of this service"
    return errors.InvalidRequest.of_fields([("image_url", problem)])
