"""A picture in another format than it came in, for callers who name one.

Pillow is not imported at the top: few requests need it.
"""

import io

import pybase64

from banana.payload.pictures import EncodedPicture

FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


# Of a JPEG or PNG, more than enough to hold its dimensions, behind what cameras and signers write before them.
_HEAD_BYTES = 256 * 1024


def dimensions_of(picture: EncodedPicture) -> tuple[int, int] | None:
    """Return width and height in pixels, by the head of the file; None where they cannot be read."""
    head = bytearray()
    for block in picture.decoded():
        head += block
        # Of a WebP the library wants all.
        if len(head) >= _HEAD_BYTES and picture.mime_type != FORMATS["webp"]:
            break
    try:
        from PIL import Image

        with Image.open(io.BytesIO(head)) as opened:
            return opened.size
    except Exception:  # whatever Pillow raises: it was paid for, and comes all the same
        return None


def convert(picture: EncodedPicture, output_format: str, quality: int) -> EncodedPicture:
    """Return `picture` as `png`, `jpeg` or `webp`; this takes a thread's time, and a copy of the picture.

    `quality` is from 0 to 100, and without meaning for png. Raises whatever Pillow raises for what it cannot read.
    """
    from PIL import Image

    with Image.open(io.BytesIO(b"".join(picture.decoded()))) as opened:
        out = io.BytesIO()
        image = opened.convert("RGB") if output_format == "jpeg" else opened
        options = {} if output_format == "png" else {"quality": quality}
        image.save(out, output_format, **options)
    converted = out.getvalue()
    return EncodedPicture(FORMATS[output_format], [pybase64.b64encode(converted)], converted[:32])
