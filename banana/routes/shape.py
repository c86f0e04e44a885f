"""How callers of OpenAI's API formats say what an image is to be: size, aspect ratio, quality, thinking, seed.

Clients put it in many places, because OpenAI's own formats have no room for most of it: in fields of Google's names, in
OpenRouter's `image_config`, in Google's `generationConfig`, in an `extra_body`. Each of them is honoured, the plainest first.
"""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from banana.google.capabilities import SIZES, THINKING_LEVELS, WIDE_RATIOS
from banana.routes.fields import Integer, Text

# Of what no model makes, but a caller may ask for the nearest there is.
MAX_SIDE_PIXELS = 16_384
_PIXELS = re.compile(r"([0-9]{1,5})\s*[x×*]\s*([0-9]{1,5})", re.IGNORECASE)
MAX_SEED = (1 << 31) - 1
_OTHER_NAMES = {
    "aspectRatio": "aspect_ratio",
    "imageSize": "image_size",
    "resolution": "image_size",
    "imageConfig": "image_config",
    "thinkingLevel": "thinking_level",
}
_SHAPE = ("size", "aspect_ratio", "image_size", "image_config", "quality", "thinking_level", "seed", *_OTHER_NAMES)
# Objects around it, and what of their content is looked at: none has itself in it, so that they do not nest for ever.
_AROUND: dict[str, tuple[str, ...]] = {
    "extra_body": (*_SHAPE, "google", "generation_config", "generationConfig", "thinking_config", "thinkingConfig"),
    "google": (*_SHAPE, "generation_config", "generationConfig", "thinking_config", "thinkingConfig"),
    "generation_config": ("image_config", "thinking_config", "seed"),
    "generationConfig": ("imageConfig", "thinkingConfig", "seed"),
    "thinking_config": ("thinking_level", "thinkingLevel"),
    "thinkingConfig": ("thinking_level", "thinkingLevel"),
}
# What Google's own `imageConfig` may have beside them, and changes nothing here.
_OF_GOOGLE_ALONE = ("personGeneration", "person_generation", "outputMimeType", "outputCompressionQuality")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_IN_FORM = re.compile(r"(image_config|imageConfig)\[(\w{1,50})\]")


def _seed(value: object) -> object:
    """Return a seed as Google takes it; -1 is how applications say that any will do."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):  # of a form
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or -MAX_SEED <= value <= MAX_SEED:
        return None if value == -1 else value
    if abs(value) >= 1 << 64:
        raise ValueError("must be a whole number of at most 64 bits")
    return value & MAX_SEED


def one_of(names: Sequence[str], read: Callable[[str], str] | None = None) -> BeforeValidator:
    """Return what checks that a value is one of these names, or None.

    `read` writes a value as one of the names; without it nothing else will do, and else "" and `auto` say nothing.
    """

    def check(value: object) -> object:
        if value is None or (read and value in ("", "auto")):
            return None
        name = read(str(value)) if read and isinstance(value, str | int) else value
        if name not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return name

    return BeforeValidator(check)


def listed(names: Sequence[str]) -> Any:
    """Return what tells the OpenAPI document the names that `one_of` takes."""
    return Field(json_schema_extra={"enum": [*names, None]})


def _size_name(value: str) -> str:
    """Return a size as Google names it."""
    return value.upper().replace("0.5K", "512")


AspectRatio = Annotated[str | None, one_of(WIDE_RATIOS, str), listed(WIDE_RATIOS)]
ImageSize = Annotated[str | None, one_of(SIZES, _size_name), listed(SIZES)]
ThinkingLevel = Annotated[str | None, one_of(THINKING_LEVELS, str.lower), listed(THINKING_LEVELS)]
Seed = Annotated[
    Integer | None,
    BeforeValidator(_seed),
    Field(
        description="The same seed gives similar images where the model keeps to it. Each further image of n has the next."
    ),
]
Quality = Literal["auto", "standard", "low", "medium", "high", "hd", "xhigh", "max"]


class ImageConfig(BaseModel):
    """The shape of an image, as OpenRouter has it, and Google."""

    model_config = ConfigDict(extra="forbid")

    aspect_ratio: AspectRatio = None
    image_size: ImageSize = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        value = _decoded(value)
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if name not in _OF_GOOGLE_ALONE}
        return (
            {_OTHER_NAMES.get(name, name): item for name, item in value.items()} if isinstance(value, dict) else value
        )


class ImageShape(BaseModel):
    """What a body says of the shape of an image, wherever it does."""

    size: Text | None = Field(
        default="auto",
        description="Width x height in pixels, such as 1536x1024: the nearest that the model makes. Or auto.",
    )
    aspect_ratio: AspectRatio = None
    image_size: ImageSize = None
    image_config: ImageConfig | None = Field(default=None, description="Another way to send both.")
    quality: Quality | None = Field(
        default=None,
        description="Sets the size if nothing else does: low is 512, high, hd and xhigh are 2K, max is 4K, where the model supports it.",
    )
    thinking_level: ThinkingLevel = Field(
        default=None, description="How long the model thinks before it draws; GET /v1/models lists `thinking_levels`."
    )
    seed: Seed = None

    @model_validator(mode="before")
    @classmethod
    def _found(cls, value: object) -> object:
        return _with_shape(value, cls.model_fields) if isinstance(value, dict) else value

    @field_validator("size")
    @classmethod
    def _is_a_size(cls, value: str | None) -> str | None:
        if value and value != "auto" and value not in WIDE_RATIOS and value.upper() not in SIZES:
            pixels = _PIXELS.fullmatch(value)
            if pixels is None:
                raise ValueError("must be auto, or width x height in pixels, such as 1024x1024")
            if not all(0 < int(side) <= MAX_SIDE_PIXELS for side in pixels.groups()):
                raise ValueError(f"must have sides from 1 to {MAX_SIDE_PIXELS} pixels")
        return value

    def shape(self) -> dict[str, Any]:
        """Return what is said as fields of an `Order`; None where nothing is."""
        config, size = self.image_config or ImageConfig(), self.size or "auto"
        pixels = _PIXELS.fullmatch(size)
        return {
            "aspect_ratio": self.aspect_ratio or config.aspect_ratio or (size if size in WIDE_RATIOS else None),
            "image_size": self.image_size or config.image_size or (size.upper() if size.upper() in SIZES else None),
            "pixels": (int(pixels[1]), int(pixels[2])) if pixels else None,
            "quality": self.quality,
            "thinking_level": self.thinking_level,
            "seed": self.seed,
        }


def _with_shape(body: Mapping[str, Any], fields: Container[str]) -> dict[str, Any]:
    """Return a body with what it says of a shape under the names of `ImageShape`; what is nearer goes before.

    Names in `fields` stay as they are.
    """
    found: dict[str, Any] = {}
    around: list[Mapping[str, Any]] = []
    for name, value in body.items():
        if name in _AROUND and isinstance(value, dict):
            around.append({one: value[one] for one in _AROUND[name] if one in value})
        elif in_form := _IN_FORM.fullmatch(name):
            config = found.get("image_config")
            found["image_config"] = {**(config if isinstance(config, dict) else {}), in_form[2]: value}
        elif value is None and name in _SHAPE:
            continue  # it says nothing, and hides nothing
        elif name in fields or name not in _OTHER_NAMES:
            found[name] = value
        else:
            found.setdefault(_OTHER_NAMES[name], value)
    for one in around:
        found = _with_shape(one, fields) | found
    return found


def _decoded(value: object) -> object:
    """Return an object that a form holds as JSON; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            raise ValueError("is not JSON") from None
    return value
