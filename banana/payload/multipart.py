"""`multipart/form-data`, read as it arrives: fields as text, files as base64; a file is never held as it came.

It does no I/O: it is fed the body's chunks, in any cut. Why not `request.form()`: docs/decisions/forms.md.
"""

from typing import TYPE_CHECKING, Any

import pybase64
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from banana.payload.pictures import EncodedPicture, type_of
from banana.payload.pieces import Bytes

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# A prompt; whatever is longer is a file that lacks its filename.
MAX_FIELD_BYTES = 1 << 20
# Fields and files of a form; the largest that is understood has 14 pictures and some 20 fields.
MAX_PARTS = 100
# Enough of a field's name to recognize it in an error.
_NAME_CHARACTERS = 100
# A text before the first boundary; there is hardly ever one.
MAX_PREAMBLE_BYTES = 64 * 1024
# Of a file as base64, in memory: the first part, and no part larger than the other.
_FIRST_BLOCK_BYTES, _BLOCK_BYTES = 32 << 10, 1 << 20
# Enough of a file to recognize its type.
_START_BYTES = 64


class InvalidForm(ValueError):
    """The body is not a form; the message says why."""


class _Base64Encoder:
    """Encodes a file that arrives in chunks.

    It gathers them in blocks, each twice as large as the one before: blocks of all sizes, of many files at a time, would
    leave holes between them that nothing fits into.
    """

    def __init__(self) -> None:
        self._start = b""
        self._carried = b""
        self._pieces: list[Bytes] = []
        self._block = memoryview(bytearray(_FIRST_BLOCK_BYTES))
        self._filled = 0

    def feed(self, data: bytes) -> None:
        if len(self._start) < _START_BYTES:
            self._start += data[:_START_BYTES]
        data = self._carried + data
        whole = len(data) // 3 * 3
        if whole:
            self._gather(pybase64.b64encode(memoryview(data)[:whole]))
        self._carried = data[whole:]

    def _gather(self, encoded: bytes) -> None:
        rest = memoryview(encoded)
        while rest:
            taken = rest[: len(self._block) - self._filled]
            self._block[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rest = rest[len(taken) :]
            if self._filled == len(self._block):
                self._pieces.append(self._block)
                self._block, self._filled = memoryview(bytearray(min(2 * len(self._block), _BLOCK_BYTES))), 0

    def close(self) -> EncodedPicture:
        if self._carried:
            self._gather(pybase64.b64encode(self._carried))
        if self._filled:
            self._pieces.append(bytes(self._block[: self._filled]))
        return EncodedPicture(type_of(self._start), self._pieces, self._start[:32])


class FormParser:
    """A parser of one form: `feed` it the chunks, then `close` it for the fields and files, in their order.

    `files` is the field that holds pictures, as files or as base64.
    """

    def __init__(self, content_type: str, files: str) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidForm("its Content-Type names no boundary")
        self._preamble: bytes | None = b""  # what came before the first boundary; None behind it
        self._first_boundary = b"--" + options[b"boundary"]
        self._parts = _Parts(files)
        try:
            self._parser = MultipartParser(options[b"boundary"], self._parts.callbacks())
        except FormParserError as error:
            raise InvalidForm(str(error)) from None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises InvalidForm."""
        if self._preamble is not None:
            chunk = self._without_preamble(self._preamble + chunk)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidForm(str(error)) from None

    def _without_preamble(self, start: bytes) -> bytes:
        """Return what stands from the first boundary on; RFC 2046 lets a text for people stand before it."""
        if start.startswith(self._first_boundary):
            position = 0
        else:
            position = start.find(b"\r\n" + self._first_boundary) + 2
            if position < 2:
                if len(start) > MAX_PREAMBLE_BYTES:
                    raise InvalidForm("its boundary was not found")
                self._preamble = start
                return b""
        self._preamble = None
        return start[position:]

    def close(self) -> list[tuple[str, str | EncodedPicture]]:
        """Return pairs of a field's name and its text or file. Raises InvalidForm."""
        if not self._parts.ended:
            raise InvalidForm("it was cut short")
        return self._parts.items


class _Parts:
    """The fields and files of a form, as the library's parser calls them out.

    The parser refers to this object, and this object to nothing: in a circle of references a form's megabytes would wait for
    the garbage collector.
    """

    def __init__(self, files: str) -> None:
        self.items: list[tuple[str, str | EncodedPicture]] = []
        self.ended = False
        self._files = files
        self._header_name = self._header_value = b""
        self._disposition = b""
        self._content_type = b""
        self._part: bytearray | _Base64Encoder = bytearray()
        self._name = ""
        self._count = 0

    def callbacks(self) -> "MultipartCallbacks":
        """Return what the parser is to call."""
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._count += 1
        if self._count > MAX_PARTS:
            raise InvalidForm(f"it has more than {MAX_PARTS} parts")
        self._disposition = self._content_type = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        match self._header_name.lower():
            case b"content-disposition":
                self._disposition = self._header_value
            case b"content-type":
                self._content_type = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise InvalidForm("a part has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        # A file by its name, also one in RFC 5987's form, which the parser passes over, or by its type.
        is_file = b"filename" in options or b"filename*=" in self._disposition.replace(b" ", b"").lower()
        is_picture = self._content_type.strip().lower().startswith(b"image/")
        self._part = _Base64Encoder() if is_file or is_picture else bytearray()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if isinstance(self._part, _Base64Encoder):
            self._part.feed(data[start:end])
            return
        self._part += data[start:end]
        if len(self._part) > MAX_FIELD_BYTES and self._name not in _names_of(self._files):
            raise InvalidForm(f"the field {self._name[:_NAME_CHARACTERS]} has more than {MAX_FIELD_BYTES} bytes")

    def _on_part_end(self) -> None:
        if isinstance(self._part, _Base64Encoder):
            self.items.append((self._name, self._part.close()))
            return
        try:
            self.items.append((self._name, self._part.decode()))
        except UnicodeDecodeError:
            raise InvalidForm(f"the field {self._name[:_NAME_CHARACTERS]} is not UTF-8") from None

    def _on_end(self) -> None:
        self.ended = True


def fields_of(items: list[tuple[str, str | EncodedPicture]], files: str) -> dict[str, Any]:
    """Return a form as the JSON object that means the same; all values but files are strings.

    Parts named `image`, `image[]` or `files`, files and texts, in their order, are the list `files`. Raises InvalidForm
    for a field that is sent twice.
    """
    fields: dict[str, Any] = {}
    for name, value in items:
        if name in _names_of(files):
            fields.setdefault(files, []).append(value)
        elif name in fields:
            raise InvalidForm(f"the field {name[:_NAME_CHARACTERS]} is sent twice")
        else:
            fields[name] = value
    return fields


def _names_of(files: str) -> tuple[str, ...]:
    """Return the names that a part with a picture may have: the field's own, and those of curl's users and SDKs."""
    return (files, "image", "image[]")
