"""A picture in another format than it came in, for those who ask for one by name."""

import io

from PIL import Image

FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def convert(picture: bytes, output_format: str, quality: int) -> bytes:
    """Return the picture as `png`, `jpeg` or `webp`; `quality` is from 1 to 100 and not for png. Raises OSError."""
    with Image.open(io.BytesIO(picture)) as opened:
        out = io.BytesIO()
        image = opened.convert("RGB") if output_format == "jpeg" else opened
        options = {} if output_format == "png" else {"quality": quality}
        image.save(out, output_format, **options)
        return out.getvalue()
