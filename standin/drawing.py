"""Demo pictures: a banana whose colours come from the prompt, with the pictures it was made from, marked DEMO."""

import base64
import hashlib
import io
import math
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

BASE_PIXELS = {"512": 512, "1K": 1024, "2K": 2048, "4K": 4096}
JPEG_QUALITY = 88


def size_of(aspect_ratio: str, image_size: str) -> tuple[int, int]:
    """Return width and height in pixels: the area of a square of that size, sides in steps of 16."""
    wide, high = map(int, aspect_ratio.split(":"))
    side = BASE_PIXELS[image_size]
    stretch = math.sqrt(wide / high)
    return round(side * stretch / 16) * 16, round(side / stretch / 16) * 16


@lru_cache(maxsize=32)
def draw(prompt: str, aspect_ratio: str, image_size: str, sources: tuple[bytes, ...] = ()) -> bytes:
    """Return a JPEG; `sources` are the bytes of the pictures it starts from."""
    width, height = size_of(aspect_ratio, image_size)
    seed = hashlib.sha256(prompt.encode("utf-8", "surrogatepass") + b"".join(sources)).digest()
    picture = _sky(width, height, seed)
    _banana(picture, seed)
    _paste_sources(picture, sources)
    _caption(picture, prompt)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def draw_base64(prompt: str, aspect_ratio: str, image_size: str, sources: Sequence[bytes]) -> str:
    """Return the same as standard base64."""
    return base64.b64encode(draw(prompt, aspect_ratio, image_size, tuple(sources))).decode()


def _sky(width: int, height: int, seed: bytes) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((width, height)).rotate(0)
    top = f"hsl({seed[0] * 360 // 256}, 55%, 28%)"
    bottom = f"hsl({(seed[0] + 40 + seed[1] // 4) * 360 // 256 % 360}, 65%, 72%)"
    return ImageOps.colorize(ramp, top, bottom)


def _banana(picture: Image.Image, seed: bytes) -> None:
    """Draw a crescent, turned and tinted by the seed, smooth at the edges."""
    side = min(picture.size)
    scale = 4
    canvas = Image.new("L", (256 * scale, 256 * scale), 0)
    brush = ImageDraw.Draw(canvas)
    brush.ellipse((20 * scale, 0, 236 * scale, 216 * scale), fill=255)
    brush.ellipse((10 * scale, -50 * scale, 246 * scale, 156 * scale), fill=0)
    brush.rounded_rectangle((222 * scale, 84 * scale, 236 * scale, 118 * scale), 5 * scale, fill=255)
    mask = canvas.rotate(seed[2] * 360 // 256).resize((side * 3 // 4, side * 3 // 4), Image.Resampling.LANCZOS)
    corner = ((picture.width - mask.width) // 2, (picture.height - mask.height) // 2)
    shadow = (corner[0] + side // 60, corner[1] + side // 60)
    picture.paste((20, 20, 30), shadow, mask.point([level // 3 for level in range(256)]))
    picture.paste((250, 210 - seed[3] // 8, 40 + seed[4] // 8), corner, mask)


def _paste_sources(picture: Image.Image, sources: Sequence[bytes]) -> None:
    edge = min(picture.size) // 5
    for number, source in enumerate(sources[:14]):
        try:
            thumbnail = ImageOps.fit(Image.open(io.BytesIO(source)).convert("RGB"), (edge, edge))
        except (UnidentifiedImageError, OSError):
            thumbnail = Image.new("RGB", (edge, edge), "grey")  # HEIC, which Pillow cannot open
        frame = ImageOps.expand(thumbnail, max(2, edge // 40), "white")
        per_row = max(1, picture.width // (edge * 9 // 8))
        row, column = divmod(number, per_row)
        picture.paste(frame, (edge // 8 + column * edge * 9 // 8, edge // 8 + row * edge * 9 // 8))


def _caption(picture: Image.Image, prompt: str) -> None:
    brush = ImageDraw.Draw(picture)
    side = min(picture.size)
    # The built-in font knows Latin letters only.
    words = prompt if prompt.isascii() else ""
    line = " ".join(words.split())[:60]
    margin = side // 24
    font = ImageFont.load_default(side / 26)
    brush.text((margin, picture.height - margin), line, "white", font, anchor="ls", stroke_width=1, stroke_fill="black")
    brush.text(
        (picture.width - margin, margin), "DEMO", "white", ImageFont.load_default(side / 12), anchor="rt",
        stroke_width=max(1, side // 200), stroke_fill="black",
    )  # fmt: skip
