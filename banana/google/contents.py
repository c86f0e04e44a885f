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

# Google's documented value for a signature that is not known: https://ai.google.dev/gemini-api/docs/thought-signatures
STAND_IN_SIGNATURE = b"skip_thought_signature_validator"
# In which a part holds a picture, or names a file.
_PICTURE_FIELDS = ("inlineData", "inline_data", "fileData", "file_data")
# The names of Google's enumeration, behind IMAGE_SIZE_.
_SIZES = {"ONE_K": "1K", "TWO_K": "2K", "FOUR_K": "4K", "FIVE_HUNDRED_TWELVE": "512"}
_SIZES |= {size: size for size in _SIZES.values()}
_TWICE = re.compile(rb'"(image_?size|candidate_?count|service_?tier)"\s*:\s*"?([A-Za-z0-9_.+-]+)', re.IGNORECASE)
# More than Google's models make of one call.
MAX_CANDIDATES = 100
# A number as text, about.
_NUMBER_BYTES = 8


class Part(Struct, frozen=True):
    """One part of a turn: words, or a picture.

    Attributes:
        text: the words.
        picture: the picture.
        signature: what Google signed a picture of its model with, as it stands in JSON between the quotes.
        reference: an address or id of an image, which stands for that until it is looked up.
        field: of the request, that has the reference; for errors.

    """

    text: str = ""
    picture: EncodedPicture | None = None
    signature: Pieces = ()
    reference: str = ""
    field: str = "image_url"


class Turn(Struct, frozen=True):
    """What one side said: the caller, or with `is_model` the model."""

    parts: Sequence[Part]
    is_model: bool = False


def user_turn(prompt: str, pictures: Sequence[EncodedPicture | str] = (), field: str = "image") -> Turn:
    """Return the turn of a caller who gives words and pictures, or the addresses of some, in this field of the request."""
    return Turn([Part(prompt), *(picture_part(picture, field) for picture in pictures)])


def picture_part(picture: EncodedPicture | str, field: str = "image_url") -> Part:
    """Return the part of a picture, or of its address."""
    return Part(reference=picture, field=field) if isinstance(picture, str) else Part(picture=picture)


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
        aspect_ratio, image_size, thinking_level, seed: as Google names them; None leaves them to the model.
        store: Google's flag of that name; None leaves it out.
        service_tier: `flex` or `priority`; empty is Google's own.
        is_signed_anew: whether every part of the model's has the value that stands for a signature, and none its own.
        system: words that hold for the whole conversation.
        modalities: what may come, `TEXT` and `IMAGE`.

    """

    turns: Sequence[Turn]
    aspect_ratio: str | None = None
    image_size: str | None = None
    thinking_level: str | None = None
    seed: int | None = None
    store: bool | None = None
    system: str = ""
    modalities: Sequence[str] = ("IMAGE",)
    service_tier: str = ""
    is_signed_anew: bool = False

    def body(self) -> list[Bytes]:
        """Return the call's JSON body in pieces."""
        pieces: list[Bytes] = [b"{"]
        if self.system:
            pieces.append(b'"systemInstruction":{"parts":[{"text":' + msgspec.json.encode(self.system) + b"}]},")
        pieces.append(b'"contents":[')
        for number, turn in enumerate(self.turns):
            pieces += [b","] if number else []
            pieces += _turn(turn, is_signed_anew=self.is_signed_anew)
        pieces.append(b'],"generationConfig":' + msgspec.json.encode(self._generation_config()))
        if self.store is not None:
            pieces.append(b',"store":' + msgspec.json.encode(self.store))
        if self.service_tier:
            pieces.append(b',"serviceTier":' + msgspec.json.encode(self.service_tier))
        pieces.append(b"}")
        return pieces

    def _generation_config(self) -> dict[str, object]:
        image_config = {"aspectRatio": self.aspect_ratio, "imageSize": self.image_size}
        image_config = {name: value for name, value in image_config.items() if value is not None}
        config: dict[str, object] = {"responseModalities": list(self.modalities)}
        if image_config:
            config["imageConfig"] = image_config
        if self.thinking_level is not None:
            config["thinkingConfig"] = {"thinkingLevel": self.thinking_level}
        if self.seed is not None:
            config["seed"] = self.seed
        return config


def _turn(turn: Turn, *, is_signed_anew: bool) -> list[Bytes]:
    pieces: list[Bytes] = [b'{"role":"model","parts":[' if turn.is_model else b'{"role":"user","parts":[']
    for number, part in enumerate(turn.parts):
        pieces += [b","] if number else []
        # Google refuses a part of its model's that is not signed: a picture without, or with that of another, and words.
        own = () if is_signed_anew else part.signature
        pieces += _part(part, (own or (STAND_IN_SIGNATURE,)) if turn.is_model else ())
    return [*pieces, b"]}"]


def _part(part: Part, signature: Pieces) -> list[Bytes]:
    end: list[Bytes] = [b',"thoughtSignature":"', *signature, b'"}'] if signature else [b"}"]
    if part.picture is None:
        return [b'{"text":', msgspec.json.encode(part.text), *end]
    start = b'{"inlineData":{"mimeType":"%s","data":"' % (part.picture.mime_type or "").encode()
    return [start, *part.picture.pieces, b'"}', *end]


class CostBasis(Struct, frozen=True):
    """What the most that a call may cost depends on, beside its model.

    Attributes:
        image_sizes: as Google names them, every one that the request can be read to ask for; none is the model's own.
        candidates: how many it asks for.
        text_bytes: of its prompt; no token is less than a byte.
        pictures: how many it starts from.
        tier: the dearest service tier that it can be read to ask for; empty is Google's own.
        may_search: whether the model may search Google.

    """

    image_sizes: Sequence[str] = ()
    candidates: int = 1
    text_bytes: int = 0
    pictures: int = 0
    tier: str = ""
    may_search: bool = False


def cost_basis_of(body: Pieces) -> CostBasis:
    """Return what a caller's own body may cost by: of what it says twice, in two spellings, each is there."""
    parser = LazyJsonParser(lenient=True)
    try:
        for piece in body:
            parser.feed(bytes(piece))
        document = parser.close()
    except InvalidJson:
        return CostBasis(("unknown",), text_bytes=size_of(body))
    said = _settings_in(document) if isinstance(document, dict) else {}
    # A parser keeps one of two fields of one name, and Google perhaps the other.
    for name, value in _TWICE.findall(parser.rest):
        said.setdefault(_plain(name.decode()), []).append(value.decode())
    counts = [count for value in said.get("candidatecount", ()) if (count := _whole_number(value)) is not None]
    sizes = tuple(dict.fromkeys(_size_of(value) for value in said.get("imagesize", ()) if value is not None))
    text_bytes, pictures = _texts_and_pictures(document)
    top = {_plain(name): value for name, value in document.items()} if isinstance(document, dict) else {}
    tools = top.get("tools")
    tiers = [tier_of(value) for value in (top.get("servicetier"), *said.get("servicetier", ()))]
    may_search = any(_plain(name).startswith("googlesearch") for tool in _dicts(tools) for name in tool)
    return CostBasis(sizes, max([1, *counts]), text_bytes, pictures, max(tiers, key=_dearness), may_search)


def _dearness(tier: str) -> int:
    return {"flex": 0, "": 1}.get(tier, 2)


def tier_of(value: object) -> str:
    """Return a service tier of Google's by one of its names: `flex`, `priority`, empty for its own; else what it says."""
    text = value.lower().removeprefix("service_tier_").removeprefix("on_demand_") if isinstance(value, str) else ""
    return (
        ""
        if text in ("", "auto", "standard", "default", "unspecified", "on_demand", "traffic_type_unspecified")
        else text
    )


def _dicts(value: object) -> list[dict[str, Any]]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def _settings_in(document: dict[str, Any]) -> dict[str, list[Any]]:
    """Return what stands in `generationConfig`, however deep: the values by their names, in small letters without marks."""
    found: dict[str, list[Any]] = {}
    left: list[Any] = [value for name, value in document.items() if _plain(name) == "generationconfig"]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            for name, item in value.items():
                found.setdefault(_plain(name), []).append(item)
                left.append(item)
    return found


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _size_of(value: object) -> str:
    """Return a size as the short one of Google's two ways to write it; what is none is unknown, and taken for the dearest."""
    text = value.upper() if isinstance(value, str) else ""
    return _SIZES.get(text.removeprefix("IMAGE_SIZE_"), "unknown")


def _whole_number(value: object) -> int | None:
    """Return a number as protobuf reads it: also one in quotes."""
    try:
        number = float(value) if isinstance(value, int | float | str) else 0
    except (ValueError, OverflowError):
        return None
    return min(int(number), MAX_CANDIDATES) if number == number else None


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
