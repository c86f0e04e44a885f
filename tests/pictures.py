"""Small pictures for tests."""

import base64
import io
from typing import Any

from PIL import Image


def png(colour: str = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    """A PNG file of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def encoded(picture: bytes) -> str:
    """A picture as standard base64."""
    return base64.b64encode(picture).decode()


def opened(picture: bytes | str) -> Image.Image:
    """A file, or its base64, decoded to the last pixel."""
    image = Image.open(io.BytesIO(base64.b64decode(picture, validate=True) if isinstance(picture, str) else picture))
    image.load()
    return image


def signed(part: dict[str, Any]) -> dict[str, Any]:
    """A part of the model's with the value that stands for a signature that is not known."""
    return part | {"thoughtSignature": "skip_thought_signature_validator"}
