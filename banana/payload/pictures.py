"""Pictures as base64: checked where they lie, recognized by their first bytes, never decoded whole into new memory.

Takes what callers and Google send (both base64 alphabets, data URIs, padding or none); the error for the rest
names what is wrong. It does no I/O and knows no API format.
"""

import re
from collections.abc import Iterator

import pybase64
from msgspec import Struct

from banana.payload.lazyjson import BLOCK_BYTES, LongString
from banana.payload.pieces import Bytes, Pieces, head, size_of, without_head

ACCEPTED_TYPES = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")

# The longest `data:` prefix that is looked for; a MIME type with parameters is far shorter.
_MAX_PREFIX_BYTES = 256
_DATA_URI = re.compile(rb"data:([^,]*),", re.IGNORECASE)
_WHITESPACE = b" \t\r\n"
# Enough base64 to hold every signature below.
_HEAD_BYTES = 64

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%PDF", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"<svg", "image/svg+xml"),
    (b"<?xml", "text/xml"),
    (b"<!DOCTYPE", "text/html"),
    (b"<html", "text/html"),
)
# The major brand of an ISO base media file (ISO/IEC 23008-12, annex B).
_BRANDS = (
    (frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")), "image/heic"),
    (frozenset((b"mif1", b"msf1")), "image/heif"),
    (frozenset((b"avif", b"avis")), "image/avif"),
)


class PictureError(ValueError):
    """What was given is not a picture this service takes; the message names what was found."""


class EncodedPicture(Struct, frozen=True):
    """A picture as base64 that was checked.

    Attributes:
        mime_type: read from the picture's first bytes; None when they are of no known type.
        pieces: the base64, in order, safe to stand between the quotes of a JSON string.
        start: the first bytes of the picture itself.

    """

    mime_type: str | None
    pieces: Pieces
    start: bytes

    @property
    def size_bytes(self) -> int:
        """The length of the base64."""
        return size_of(self.pieces)

    def decoded(self) -> Iterator[bytes]:
        """Yield the picture itself, in blocks."""
        for block in _blocks(self.pieces):
            yield _decode(block)


def read_picture(value: str | LongString) -> EncodedPicture:
    """Check a base64 string or data URI, of any type of picture.

    Raises PictureError when it is not base64 or empty, and InvalidJson when its escapes are not JSON.
    """
    pieces = value.unescaped() if isinstance(value, LongString) else [value.encode("utf-8", "surrogatepass")]
    pieces = _without_prefix(pieces)
    try:
        return _checked(pieces)
    except PictureError:
        tidy = [bytes(block).translate(None, _WHITESPACE) for piece in pieces for block in _slices(piece)]
        if size_of(tidy) == size_of(pieces):
            raise
        return _checked(tidy)


def _slices(piece: Bytes) -> Iterator[Bytes]:
    """Yield a piece in slices, none of which takes long, whatever is done to it."""
    view = memoryview(piece)
    for start in range(0, len(view), BLOCK_BYTES):
        yield view[start : start + BLOCK_BYTES]


def read_input_picture(value: str | LongString | EncodedPicture) -> EncodedPicture:
    """Check a base64 string, a data URI or a file that came as a picture that Gemini takes as input.

    Raises PictureError and InvalidJson.
    """
    picture = value if isinstance(value, EncodedPicture) else read_picture(value)
    if not picture.size_bytes:
        raise PictureError("is empty")
    if picture.mime_type not in ACCEPTED_TYPES:
        found = picture.mime_type or _described(picture.start)
        raise PictureError(f"is {found}; supported are PNG, JPEG, WebP, HEIC and HEIF")
    return picture


def type_of(start: bytes) -> str | None:
    """Return the MIME type of a file by its first 32 bytes, or None."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    if start[4:8] == b"ftyp":
        return next((mime_type for brands, mime_type in _BRANDS if start[8:12] in brands), None)
    return next((mime_type for signature, mime_type in _SIGNATURES if start.startswith(signature)), None)


def _described(start: bytes) -> str:
    if start.isascii() and start.decode("ascii").isprintable():
        return "text, not an image"
    return f"not a known image type (it begins with the bytes {start[:4].hex(' ')})"


def _without_prefix(pieces: Pieces) -> Pieces:
    """Return `pieces` without their `data:…;base64,`. Raises PictureError for a data URI that is not base64."""
    start = head(pieces, _MAX_PREFIX_BYTES)
    if start[:5].lower() != b"data:":
        return pieces
    prefix = _DATA_URI.match(start)
    if prefix is None:
        raise PictureError("is a data URI without a comma")
    if not prefix[1].lower().endswith(b";base64"):
        raise PictureError("is a data URI without ;base64")
    return without_head(pieces, prefix.end())


def _checked(pieces: Pieces) -> EncodedPicture:
    """Return the picture when `pieces` are one base64 text. Raises PictureError."""
    size_bytes = size_of(pieces)
    if not size_bytes:
        raise PictureError("is empty")
    for block in _blocks(pieces):
        size_bytes -= len(block)
        # Padding inside the text decodes to fewer bytes than the block's length implies.
        if len(_decode(block)) * 4 != len(block) * 3 and size_bytes:
            raise PictureError("is not base64: padding in the middle")
    start = head(pieces, _HEAD_BYTES)
    start = _decode(start[: len(start) // 4 * 4] or start)[:32]
    return EncodedPicture(type_of(start), pieces, start)


def _blocks(pieces: Pieces) -> Iterator[Bytes]:
    """Yield the same text cut so that every block but the last holds whole groups of four; copies 4 bytes a piece."""
    carried = b""
    for piece in pieces:
        view = memoryview(piece)
        if carried:
            missing = 4 - len(carried)
            carried += view[:missing]
            view = view[missing:]
            if len(carried) < 4:
                continue
            yield carried
        whole = len(view) // 4 * 4
        if whole:
            yield view[:whole]
        carried = bytes(view[whole:])
    if carried:
        yield carried


def _decode(block: Bytes) -> bytes:
    """Decode base64 of either alphabet, padded or not. Raises PictureError."""
    if len(block) % 4:
        block = bytes(block) + b"=" * (-len(block) % 4)
    try:
        return pybase64.b64decode(block, validate=True)
    except ValueError:
        pass
    try:
        # The URL-safe alphabet; translated first, because pybase64 takes "+/" and "-_" mixed otherwise.
        return pybase64.b64decode(bytes(block).translate(_URL_SAFE), validate=True)
    except ValueError:
        raise PictureError("is not base64") from None


# "-" and "_" become "+" and "/", and those two become what base64 does not have.
_URL_SAFE = bytes.maketrans(b"-_+/", b"+/!!")
