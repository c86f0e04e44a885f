"""What is sent to Gemini: turns of words and pictures, and the body of a `generateContent` call around them; no I/O.

The pictures stay the pieces they came in. Source: Google's REST reference for `models.generateContent`.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from banana.payload.lazyjson import InvalidJson, LazyJsonParser, LongString
from banana.payload.pictures import EncodedPicture
from banana.payload.pieces import Bytes, Pieces, size_of

# In which a part holds a picture, or names a file.
_PICTURE_FIELDS = ("inlineData", "inline_data", "fileData", "file_data")
# A number as text, about.
_NUMBER_BYTES = 8


class Part(Struct, frozen=True):
    """One part of a turn: words, or a picture.

    Attributes:
        text: the words.
        picture: the picture.
        signature: what Google signed a picture of its model with, as it stands in JSON between the quotes.
        reference: an address or id of a kept picture, which stands for that until it is looked up.

    """

    text: str = ""
    picture: EncodedPicture | None = None
    signature: Pieces = ()
    reference: str = ""


class Turn(Struct, frozen=True):
    """What one side said: the caller, or with `is_model` the model."""

    parts: Sequence[Part]
    is_model: bool = False


def user_turn(prompt: str, pictures: Sequence[EncodedPicture] = ()) -> Turn:
    """Return the turn of a caller who gives words and pictures."""
    return Turn([Part(prompt), *(Part(picture=picture) for picture in pictures)])


def conversation(turns: Iterable[Turn]) -> list[Turn]:
    """Return the turns with neighbours of one side as one, without those that say nothing: the sides take turns."""
    together: list[Turn] = []
    for turn in turns:
        if together and together[-1].is_model == turn.is_model:
            together[-1] = Turn([*together[-1].parts, *turn.parts], turn.is_model)
        elif turn.parts:
            together.append(turn)
    return together


class GenerateContentRequest(Struct, frozen=True):
    """What to make.

    Attributes:
        turns: of the conversation, the oldest first.
        aspect_ratio, image_size: as Google names them; None leaves them to the model.
        store: Google's flag of that name; None leaves it out.
        system: words that hold for the whole conversation.
        modalities: what may come, `TEXT` and `IMAGE`.

    """

    turns: Sequence[Turn]
    aspect_ratio: str | None = None
    image_size: str | None = None
    store: bool | None = None
    system: str = ""
    modalities: Sequence[str] = ("IMAGE",)

    def body(self) -> list[Bytes]:
        """Return the call's JSON body in pieces."""
        pieces: list[Bytes] = [b"{"]
        if self.system:
            pieces.append(b'"systemInstruction":{"parts":[{"text":' + msgspec.json.encode(self.system) + b"}]},")
        pieces.append(b'"contents":[')
        for number, turn in enumerate(self.turns):
            pieces += [b","] if number else []
            pieces += _turn(turn)
        pieces.append(b'],"generationConfig":' + msgspec.json.encode(self._generation_config()))
        if self.store is not None:
            pieces.append(b',"store":' + msgspec.json.encode(self.store))
        pieces.append(b"}")
        return pieces

    def _generation_config(self) -> dict[str, object]:
        image_config = {"aspectRatio": self.aspect_ratio, "imageSize": self.image_size}
        image_config = {name: value for name, value in image_config.items() if value is not None}
        config: dict[str, object] = {"responseModalities": list(self.modalities)}
        return config | ({"imageConfig": image_config} if image_config else {})


def _turn(turn: Turn) -> list[Bytes]:
    pieces: list[Bytes] = [b'{"role":"model","parts":[' if turn.is_model else b'{"role":"user","parts":[']
    for number, part in enumerate(turn.parts):
        pieces += [b","] if number else []
        pieces += _part(part)
    return [*pieces, b"]}"]


def _part(part: Part) -> list[Bytes]:
    if part.picture is None:
        return [b'{"text":', msgspec.json.encode(part.text), b"}"]
    start = b'{"inlineData":{"mimeType":"%s","data":"' % (part.picture.mime_type or "").encode()
    end: list[Bytes] = [b'"},"thoughtSignature":"', *part.signature, b'"}'] if part.signature else [b'"}}']
    return [start, *part.picture.pieces, *end]


def request_size(body: Pieces) -> tuple[str | None, int, int]:
    """Return the image size that a caller's own body asks for, the bytes of its texts, and how many pictures are in it."""
    parser = LazyJsonParser(lenient=True)
    try:
        for piece in body:
            parser.feed(bytes(piece))
        document = parser.close()
    except InvalidJson:
        return "unknown", size_of(body), 0
    config = field_of(document, "generationConfig") if isinstance(document, dict) else None
    image_config = field_of(config, "imageConfig") if isinstance(config, dict) else None
    image_size = field_of(image_config, "imageSize") if isinstance(image_config, dict) else None
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


def field_of(mapping: dict[str, Any], name: str) -> Any:
    """Return a field by its JSON name or its proto name (`inlineData`, `inline_data`): Google's side knows both."""
    if name in mapping:
        return mapping[name]
    return mapping.get(_proto_name(name))


@cache
def _proto_name(name: str) -> str:
    """Return a field's proto name by its JSON name, of which there are a dozen."""
    return re.sub("([A-Z])", r"_\1", name).lower()
