"""What a conversation refers to: images by their links or ids, earlier responses with their input, thought signatures.

A response that is stored has its input beside it: its words, and the digests of its images, each of which is a file once,
however often it is sent.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec.structs import replace

from banana import errors
from banana.exchange import Exchange
from banana.google.contents import Part, Turn
from banana.google.wire import Image, Words
from banana.intervals import INTERVALS, Intervals
from banana.ledger.ledger import Entry
from banana.ledger.thread import LedgerThread
from banana.payload.memory import Buffers
from banana.payload.pictures import EncodedPicture
from banana.payload.pieces import size_of
from banana.results.documents import encoded, outcomes_of
from banana.results.files import Files
from banana.results.links import Links, expired
from banana.results.remote import Refused, RemoteImages

# Of a response, and of the picture and the words in it; behind it stands the id of its entry.
RESPONSE_PREFIX, PICTURE_PREFIX, WORDS_PREFIX = "resp_", "ig_", "msg_"
_ID = re.compile(rf"({RESPONSE_PREFIX}|{PICTURE_PREFIX}|{WORDS_PREFIX})([0-9a-f]{{32}})")
_LINK = re.compile(r".*/results/([0-9a-f]{32}-[0-9]{1,2}\.[a-z]+)")
# How the files are named of an image of an input, by its digest, and of an input, by the id of its response.
INPUT_IMAGE, INPUT = ".input", "-input.json"
# Of one conversation.
MAX_RESPONSES = 100
# How long a response that is not there yet is waited for, and how often it is looked for.
STORED_SECONDS, LOOK_SECONDS = 2, 0.1
# What a URL may have before its host, and nobody is to read.
_USERINFO = re.compile(r"//[^/?#]*@")
# base64 of either alphabet.
_SIGNATURE = re.compile(rb"[A-Za-z0-9+/_=-]+")


class _Part(msgspec.Struct, omit_defaults=True):
    text: str = ""
    image: str = ""  # its digest


class _Turn(msgspec.Struct, omit_defaults=True):
    parts: list[_Part]
    is_model: bool = False


class _Input(msgspec.Struct, omit_defaults=True):
    """The input of a response as it is stored: what it adds to the conversation of the `previous` one."""

    turns: list[_Turn]
    developer: str = ""
    previous: str = ""


class Said(NamedTuple):
    """What is said in a conversation, or what a response adds to one: its turns, and the developer's words."""

    turns: Sequence[Turn]
    developer: str = ""


class History(Protocol):
    """Looks up what turns refer to."""

    async def looked_up(self, turns: Sequence[Turn], exchange: Exchange) -> Sequence[Turn]:
        """Return the turns with the images they refer to, and with signatures, as far as these are stored.

        Raises InvalidRequest for what is not to be had, Expired, BadSignature, LedgerUnavailable; TooLarge and Overloaded for
        more than a request may bring along, or than there is room for.
        """
        ...

    async def conversation(self, response_id: str, exchange: Exchange) -> Said:
        """Return the conversation that ends with a response of the caller's, from its first turn on.

        Raises as `looked_up`; InvalidRequest too when a part of it is gone: without that, another image would be paid for.
        """
        ...


class NoHistory:
    """Stands for it where KEEP_RESULTS_SECONDS is 0: there are no images but those of other hosts."""

    def __init__(self, remote: RemoteImages, buffers: Buffers, max_bytes: int) -> None:
        self._remote = remote
        self._buffers = buffers
        self._max_bytes = max_bytes

    async def looked_up(self, turns: Sequence[Turn], exchange: Exchange) -> Sequence[Turn]:
        """Return the turns with images of other hosts. Raises InvalidRequest when they refer to anything else."""
        if not any(part.reference for turn in turns for part in turn.parts):
            return turns
        held = _Held(self._buffers, exchange, self._max_bytes)
        return [Turn([await self._part(part, exchange, held) for part in turn.parts], turn.is_model) for turn in turns]

    async def _part(self, part: Part, exchange: Exchange, held: "_Held") -> Part:
        if not part.reference:
            return part
        if not _is_address(part.reference):
            raise _not_stored(part)
        return await _downloaded(part, self._remote, exchange, held)

    async def conversation(self, response_id: str, exchange: Exchange) -> Said:
        """Raise InvalidRequest."""
        raise _no_response(response_id)


class KeptHistory:
    """What the ledger, the files and the links know.

    Args:
        ledger, files, links: they know it.
        remote: images of other hosts.
        buffers: where what is in memory is counted.
        max_bytes: of what one conversation refers to.

    """

    def __init__(
        self,
        ledger: LedgerThread,
        files: Files,
        links: Links,
        remote: RemoteImages,
        buffers: Buffers,
        max_bytes: int,
        intervals: Intervals = INTERVALS,
    ) -> None:
        self._signatures_seconds = intervals.signatures
        self._ledger = ledger
        self._files = files
        self._links = links
        self._remote = remote
        self._buffers = buffers
        self._max_bytes = max_bytes

    async def looked_up(self, turns: Sequence[Turn], exchange: Exchange) -> Sequence[Turn]:
        """Return the turns with what they refer to."""
        if not any(turn.is_model or part.reference for turn in turns for part in turn.parts):
            return turns
        return await self._found(turns, exchange, _Held(self._buffers, exchange, self._max_bytes))

    async def conversation(self, response_id: str, exchange: Exchange) -> Said:
        """Return the conversation that ends with a response of the caller's, from its first turn on."""
        assert exchange.caller is not None
        await self._until_stored(response_id, exchange.caller)
        held = _Held(self._buffers, exchange, self._max_bytes)
        turns: list[Turn] = []
        developer: list[str] = []
        left = response_id
        for _ in range(MAX_RESPONSES):
            match = _ID.fullmatch(left)
            entry = await self._entry(match[2], exchange.caller) if match and match[1] == RESPONSE_PREFIX else None
            if entry is None:
                raise _no_response(response_id, left)
            try:
                began = await self._input_of(entry.id)
                said = [
                    Turn([await self._stored(part, held) for part in turn.parts], turn.is_model) for turn in began.turns
                ]
                made = await _parts_of(entry, self._files)
            except errors.Expired:
                raise _no_response(response_id, left) from None
            held.add(made)
            turns = [*said, Turn(made, is_model=True), *turns]
            developer = [*filter(None, [began.developer]), *developer]
            left = began.previous
            if not left:
                return Said(await self._found(turns, exchange, held), "\n\n".join(developer))
        raise errors.TooLarge(f"This conversation has more than {MAX_RESPONSES} responses.")

    async def _until_stored(self, response_id: str, caller: str) -> None:
        """Return when a response can be found, or could have been: it may still be on its way to the disk."""
        until = asyncio.get_running_loop().time() + STORED_SECONDS
        while match := _ID.fullmatch(response_id):
            if await self._entry(match[2], caller) or asyncio.get_running_loop().time() > until:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def store_input(self, entry_id: str, previous: str, said: Said) -> None:
        """Store what a response begins with; without that it can be read, and not continued."""
        with suppress(OSError):
            turns = [_Turn([await self._to_store(part) for part in turn.parts], turn.is_model) for turn in said.turns]
            stored = _Input(turns, said.developer, previous)
            await self._files.write(entry_id + INPUT, [msgspec.json.encode(stored)])

    async def _to_store(self, part: Part) -> _Part:
        """Return a part as it is stored, when its image is."""
        if part.picture is None:
            return _Part(part.text)
        digest = await asyncio.to_thread(_digest, part.picture.decoded())
        await self._files.write(digest + INPUT_IMAGE, part.picture.decoded())
        return _Part(image=digest)

    async def _input_of(self, entry_id: str) -> _Input:
        """Return the input of a response. Raises Expired and LedgerUnavailable."""
        try:
            return msgspec.json.decode(await self._files.read(entry_id + INPUT), type=_Input)
        except (FileNotFoundError, NotADirectoryError):
            raise expired() from None
        except OSError as error:
            raise errors.LedgerUnavailable from error

    async def _stored(self, part: _Part, held: "_Held") -> Part:
        """Return a part as it was. Raises as `looked_up`."""
        if not part.image:
            return Part(part.text)
        found = Part(picture=await self._image(part.image + INPUT_IMAGE))
        held.add([found])
        return found

    async def _image(self, name: str) -> EncodedPicture:
        """Return a stored image. Raises Expired and LedgerUnavailable."""
        try:
            return await asyncio.to_thread(encoded, await self._files.read(name))
        except (FileNotFoundError, NotADirectoryError):
            raise expired() from None
        except OSError as error:
            raise errors.LedgerUnavailable from error

    async def _found(self, turns: Sequence[Turn], exchange: Exchange, held: "_Held") -> list[Turn]:
        """Return the turns with what they refer to, and the model's images signed where that is possible in time."""
        found = []
        until = asyncio.get_running_loop().time() + self._signatures_seconds
        for turn in turns:
            parts: list[Part] = []
            for part in turn.parts:
                looked_up = await self._referred(part, exchange, held) if part.reference else [part]
                if turn.is_model:
                    looked_up = [await self._signed(one, until) for one in looked_up]
                    held.add_bytes(sum(size_of(one.signature) for one in looked_up))
                parts += looked_up
            found.append(Turn(parts, turn.is_model))
        return found

    async def _referred(self, part: Part, exchange: Exchange, held: "_Held") -> list[Part]:
        """Return what a reference refers to; its memory is counted for the request."""
        assert exchange.caller is not None
        if match := _ID.fullmatch(part.reference):
            found = await self._of_entry(match[1], match[2], part, exchange.caller)
        elif name := self._own_image(part.reference):
            found = [Part(picture=await self._image(name))]
        elif _is_address(part.reference):
            return [await _downloaded(part, self._remote, exchange, held)]
        else:
            raise _not_stored(part)
        held.add(found)
        return found

    async def _entry(self, entry_id: str, caller: str) -> Entry | None:
        """Return an entry of the caller's that has ended; None where there is none."""
        found = await self._ledger.look(lambda ledger: ledger.get([entry_id]))
        ended = (entry for entry in found if entry.caller == caller and not entry.state.is_active)
        return next((entry for entry in ended if entry.expires_at > time.time()), None)

    async def _of_entry(self, prefix: str, entry_id: str, part: Part, caller: str) -> list[Part]:
        """Return the image or the words of an earlier response of the caller's, by the id of either."""
        entry = await self._entry(entry_id, caller)
        if entry is None:
            raise _not_stored(part)
        wants_image = prefix == PICTURE_PREFIX
        parts = [one for one in await _parts_of(entry, self._files) if (one.picture is not None) == wants_image]
        if wants_image and not parts:
            raise _not_stored(part)
        return parts

    def _own_image(self, address: str) -> str:
        """Return the name of the image that a link of this service's leads to; empty where it is none.

        Its host does not matter: the signature is the permission. Raises BadSignature and Expired.
        """
        with suppress(ValueError):
            url = urlsplit(address)
            query = parse_qs(url.query)
            if (match := _LINK.fullmatch(url.path)) and "exp" in query and "sig" in query:
                self._links.check(match[1], query["exp"][0], query["sig"][0])
                return match[1]
        return ""

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
    return f"{_digest(blocks)}.signature"


def _digest(blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


async def _parts_of(entry: Entry, files: Files) -> list[Part]:
    """Return what a model said in a request that has ended: its words and its pictures, without errors."""
    parts = []
    for outcome in await outcomes_of(entry, files, with_content=True):
        if isinstance(outcome.result, Image | Words) and outcome.result.text:
            parts.append(Part(outcome.result.text))
        if isinstance(outcome.result, Image):
            parts.append(Part(picture=outcome.result.picture))
    return parts


class _Held:
    """How much of what a request refers to is in memory: at most `max_bytes` for one conversation."""

    def __init__(self, buffers: Buffers, exchange: Exchange, max_bytes: int) -> None:
        self._buffers = buffers
        self._exchange = exchange
        self._max_bytes = max_bytes
        self._size_bytes = 0

    def add(self, parts: Iterable[Part]) -> None:
        """Hold the images of some parts more. Raises TooLarge and Overloaded."""
        self.add_bytes(sum(part.picture.size_bytes for part in parts if part.picture))

    def add_bytes(self, size_bytes: int) -> None:
        """Hold so many bytes more. Raises TooLarge and Overloaded."""
        # References are short and images are not: a body full of references could load gigabytes.
        self._size_bytes += size_bytes
        if self._size_bytes > self._max_bytes:
            raise errors.TooLarge(f"The images of this conversation have more than {self._max_bytes} bytes.")
        self._buffers.reserve(self._exchange, size_bytes)


def _is_address(reference: str) -> bool:
    return reference.lower().startswith(("http://", "https://"))


async def _downloaded(part: Part, remote: RemoteImages, exchange: Exchange, held: _Held) -> Part:
    """Return the part of the image of another host that a part names. Raises InvalidRequest."""
    try:
        return Part(picture=await remote.image(part.reference, exchange.deadline, held.add_bytes))
    except Refused as refused:
        shown = _USERINFO.sub("//", part.reference)[:80]
        problem = f"{shown} {refused}. Send the image as a data URI, or as a link of this service"
        raise errors.InvalidRequest.of_fields([(part.field, problem)]) from None


def _not_stored(part: Part) -> errors.InvalidRequest:
    problem = (
        f"{part.reference[:80]} was not found. It may have expired, or belong to another caller. Send the item itself"
    )
    return errors.InvalidRequest.of_fields([(part.field, problem)])


def _no_response(response_id: str, gone: str = "") -> errors.InvalidRequest:
    """Return the error for a response that is not there, or one before it in its conversation."""
    before = f": {gone[:80]}, which its conversation goes back to," if gone not in ("", response_id) else ""
    problem = (
        f"{response_id[:80]}{before} was not found. It may have expired, or belong to another caller, or was not stored"
        " (store: false, KEEP_RESULTS_SECONDS=0). Send the conversation in input"
    )
    return errors.InvalidRequest.of_fields([("previous_response_id", problem)])
