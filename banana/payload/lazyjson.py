"""JSON whose long strings stay where they lie: the document is parsed, the megabytes in it are only pointed at.

A `LazyJsonParser` is fed a document in the chunks it came in. Everything but the long strings is collected and parsed
by msgspec at the end; a long string becomes a `LongString`, a list of views into the chunks, which is not copied,
joined or decoded unless its text is needed. It does no I/O, and knows nothing of pictures or of Gemini.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from banana.payload.pieces import Bytes, Chunk, Pieces, head, size_of

# What msgspec raises for bytes that are not JSON.
_MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)

# A string this long stays in place. Below it, the copy is cheaper than the bookkeeping; a document below it has none.
LONG_STRING_BYTES = 4096
# A document without its long strings; a real request or response has a few kilobytes.
MAX_DOCUMENT_BYTES = 1 << 20
# Each is a step in Python: so many take some 20 ms. A real request has a few hundred.
MAX_STRINGS = 20_000

# The rest of a string from its first escape on, up to the closing quote or the end of the chunk.
_ESCAPED_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# Of the inside of a string, from its start on: all that is whole, and half of a pair of escapes.
_WHOLE_TEXT = re.compile(rb"(?:[^\\]++|\\u[0-9a-fA-F]{4}|\\[^u])*+", re.DOTALL)
_FIRST_OF_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
# What is decoded at once: a fraction of a millisecond.
BLOCK_BYTES = 64 * 1024
# A placeholder is a string that begins with NUL; a real string that begins so is set aside like a long one.
_PLACEHOLDER = "\0"
_PLACEHOLDER_BYTES = b"\\u0000"


# Escapes as they stand in JSON: of a backslash, of a character beyond the first 65,536 as a pair, of half of one.
_SURROGATES = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_HALF_PAIR_CHARACTERS = 6
# Longer integers are read as floats; what Python reads is limited, and says so in words of its own.
_INTEGER_CHARACTERS = 18


class InvalidJson(ValueError):
    """The bytes are not JSON; the message says why, without quoting them."""


class JsonTooLarge(InvalidJson):
    """The document has more of something than is read; the message says of what."""


class LongString:
    """A JSON string as it stands in the document, between its quotes, escapes and all.

    Attributes:
        pieces: views into the chunks, in order.
        size_bytes: their length together.
        first_escape: where the first backslash is (index of the piece, offset in it), None where there is none.
        lenient: whether it is read leniently, as its document.

    """

    __slots__ = ("first_escape", "lenient", "pieces", "size_bytes")

    def __init__(self, pieces: Pieces, first_escape: tuple[int, int] | None, *, lenient: bool = False) -> None:
        self.pieces = pieces
        self.size_bytes = size_of(pieces)
        self.first_escape = first_escape
        self.lenient = lenient

    def text(self) -> str:
        """Return the string's value; this copies it. Raises InvalidJson."""
        return "".join(_decoded(self.pieces, lenient=self.lenient))

    def unescaped(self) -> Pieces:
        """Return the string's value as UTF-8, copying only from its first escape on. Raises InvalidJson."""
        if self.first_escape is None:
            return self.pieces
        index, offset = self.first_escape
        unescaped_pieces, escaped_pieces = list(self.pieces[:index]), list(self.pieces[index:])
        unescaped_pieces.append(escaped_pieces[0][:offset])
        escaped_pieces[0] = escaped_pieces[0][offset:]
        decoded = _decoded(escaped_pieces, lenient=self.lenient)
        return [*unescaped_pieces, *(text.encode() for text in decoded)]


def _decoded(pieces: Pieces, *, lenient: bool) -> Iterator[str]:
    """Yield the value of a string, block by block: no step takes long, however large it is. Raises InvalidJson."""
    try:
        for block in _blocks_of_text(pieces):
            yield _text(b'"' + block + b'"', lenient=lenient)
    except _MALFORMED as error:
        raise InvalidJson(str(error)) from None


def _blocks_of_text(pieces: Pieces) -> Iterator[bytes]:
    """Yield the inside of a string in blocks that no escape, pair of escapes or character reaches beyond."""
    rest = b""
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), BLOCK_BYTES):
            block = rest + bytes(view[start : start + BLOCK_BYTES])
            end = _end_of_whole_text(block)
            rest = block[end:]
            if end:
                yield block[:end]
    if rest:
        yield rest


def _end_of_whole_text(block: bytes) -> int:
    """Return where the last escape or character in `block` that is certainly whole ends."""
    end = len(block)
    # The longest that can be begun at the end is a pair of two escapes, of 12 bytes, behind another backslash.
    if block.rfind(b"\\", max(0, end - 13)) >= 0:
        end = _WHOLE_TEXT.match(block).end()  # type: ignore[union-attr] # it matches nothing, at least
        if _FIRST_OF_PAIR.fullmatch(block, max(0, end - 6), end):
            end = _WHOLE_TEXT.match(block, 0, end - 6).end()  # type: ignore[union-attr]
        if not end and len(block) > 12:  # no escape of JSON's
            return len(block)
    for last in range(end - 1, max(-1, end - 4), -1):
        if block[last] < 0x80:
            return end
        if block[last] >= 0xC0:  # the first byte of a character
            return last
    return end


class LazyJsonParser:
    """A parser of one JSON document that arrives in chunks: `feed` each, then `close` for the parsed document.

    `lenient` takes what Python's own parser does (NaN, raw newlines), and replaces what is no Unicode: bytes that are not
    UTF-8, and half surrogate pairs, which nothing could write again.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        self._lenient = lenient
        self._strings = 0
        self._document = bytearray()
        self._is_small = True  # whether all of it is in `_document`, as it came
        self._long_strings: list[LongString] = []
        self._pieces: list[Bytes] | None = None  # of the string that is open, or None outside one
        self._first_escape: tuple[int, int] | None = None  # of the open string
        self._after_backslash = False  # whether the chunk ended between a backslash and what it escapes

    def feed(self, chunk: Chunk) -> None:
        """Take the next bytes of the document. Raises InvalidJson when it cannot become one we read."""
        if self._is_small:
            if len(self._document) + len(chunk) < LONG_STRING_BYTES:
                self._document += chunk
                return
            small, self._document, self._is_small = bytes(self._document), bytearray(), False
            self._scan(small)
        self._scan(chunk)

    def _scan(self, chunk: Chunk) -> None:
        """Take bytes of a document that may have long strings."""
        position = 0
        end = len(chunk)
        while position < end:
            if self._pieces is None:
                position = self._outside(chunk, position)
            else:
                position = self._inside(chunk, position)
        if len(self._document) > MAX_DOCUMENT_BYTES:
            raise JsonTooLarge(f"more than {MAX_DOCUMENT_BYTES} bytes beside its long strings")

    @property
    def escaped_bytes(self) -> int:
        """The length of the long strings so far that have escapes."""
        return sum(text.size_bytes for text in self._long_strings if text.first_escape is not None)

    @property
    def rest(self) -> bytes:
        """The document as it came, without its long strings."""
        return bytes(self._document)

    def close(self) -> Any:
        """Return the document, its long strings as `LongString`; a byte order mark is passed over. Raises InvalidJson."""
        if self._pieces is not None:
            raise InvalidJson("it ends inside a string")
        try:
            document = _parsed(self._document.removeprefix(codecs.BOM_UTF8), lenient=self._lenient)
            return self._with_long_strings(document) if self._long_strings else document
        except _MALFORMED as error:
            raise InvalidJson(str(error)) from None

    def _outside(self, chunk: Chunk, position: int) -> int:
        quote = chunk.find(b'"', position)
        if quote < 0:
            self._document += chunk[position:]
            return len(chunk)
        self._document += chunk[position : quote + 1]
        self._pieces = []
        self._first_escape = None
        return quote + 1

    def _inside(self, chunk: Chunk, start: int) -> int:
        """Take the open string's bytes from `start` on; return the position behind them and behind its quote."""
        assert self._pieces is not None
        end = self._end_of_string(chunk, start, len(self._pieces))
        if end > start:
            self._pieces.append(memoryview(chunk)[start:end])
        if end == len(chunk):
            return end
        self._close_string(self._pieces)
        return end + 1

    def _end_of_string(self, chunk: Chunk, start: int, index: int) -> int:
        """Return where the open string's quote is in `chunk`, or the chunk's length when it is not in it."""
        position = start
        if self._after_backslash:
            position += 1
            self._after_backslash = False
        end = chunk.find(b'"', position)
        if end < 0:
            end = len(chunk)
        backslash = chunk.find(b"\\", position, end)
        if backslash < 0:
            return end
        if self._first_escape is None:
            self._first_escape = (index, backslash - start)
        text = _ESCAPED_TEXT.match(chunk, backslash)
        assert text is not None
        if text.end() < len(chunk) and chunk[text.end()] == ord("\\"):
            self._after_backslash = True
            return len(chunk)
        return text.end()

    def _close_string(self, pieces: list[Bytes]) -> None:
        self._strings += 1
        if self._strings > MAX_STRINGS:
            raise JsonTooLarge(f"more than {MAX_STRINGS} strings")
        long_string = LongString(pieces, self._first_escape, lenient=self._lenient)
        if long_string.size_bytes >= LONG_STRING_BYTES or head(pieces, 6) == _PLACEHOLDER_BYTES:
            self._document += b'%s%d"' % (_PLACEHOLDER_BYTES, len(self._long_strings))
            self._long_strings.append(long_string)
        else:
            for piece in pieces:
                self._document += piece
            self._document += b'"'
        self._pieces = None

    def _with_long_strings(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._long_strings[int(value[1:])] if value.startswith(_PLACEHOLDER) else value
        if isinstance(value, list):
            return [self._with_long_strings(item) for item in value]
        if isinstance(value, dict):
            return {self._key(key): self._with_long_strings(item) for key, item in value.items()}
        return value

    def _key(self, key: str) -> str:
        return self._long_strings[int(key[1:])].text() if key.startswith(_PLACEHOLDER) else key


def _text(string: bytes, *, lenient: bool) -> str:
    """Return the value of a JSON string."""
    try:
        return msgspec.json.decode(string, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if not lenient:
            raise
        text: str = json.loads(string.decode("utf-8", "replace"), strict=False)
        # What is half a pair becomes U+FFFD.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _parsed(document: Chunk, *, lenient: bool) -> Any:
    try:
        return msgspec.json.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if not lenient:
            raise
        text = _SURROGATES.sub(_whole_character, document.decode("utf-8", "replace"))
        return json.loads(text, strict=False, parse_int=_integer)


def _whole_character(escape: re.Match[str]) -> str:
    return "\\ufffd" if len(escape[0]) == _HALF_PAIR_CHARACTERS else escape[0]


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INTEGER_CHARACTERS else float(digits)


def text_of(value: object) -> object:
    """Return `value`, or its text where it is a `LongString`. Raises InvalidJson."""
    return value.text() if isinstance(value, LongString) else value


def with_texts(value: Any) -> Any:
    """Return `value` with every `LongString` in it replaced by its text. Raises InvalidJson."""
    if isinstance(value, list):
        return [with_texts(item) for item in value]
    if isinstance(value, dict):
        return {key: with_texts(item) for key, item in value.items()}
    return text_of(value)
