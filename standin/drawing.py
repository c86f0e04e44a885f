"""Demo pictures: they follow the prompt's words, in every shape and size, and change with what is asked of them.

A picture holds the scene it shows in a JPEG comment, so that an edit of it is the same place: by night, with snow, wider.
"""

import base64
import hashlib
import io
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

import msgspec
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont, ImageOps, UnidentifiedImageError

from standin.landscape import PALETTES, Scene, add_banana, in_light, landscape

BASE_PIXELS = {"512": 512, "1K": 1024, "2K": 2048, "4K": 4096}
JPEG_QUALITY = 88
COMMENT = b"BananaService scene "
MAX_SOURCES = 14

MOODS = {
    "night": "night|midnight|dark|star|stars|evening|夜|晚|星|黑暗",
    "sunset": "sunset|sunrise|dawn|orange|日落|日出|夕阳|朝霞|晚霞|橙",
    "dusk": "dusk|twilight|purple|violet|黄昏|暮|紫",
    "day": "day|morning|noon|bright|sunny|白天|早晨|正午|晴|明亮",
    "sea": "sea|ocean|beach|lake|river|water|harbour|harbor|boat|海|湖|河|水|船|沙滩",
    "desert": "desert|sand|dune|dunes|beige|沙漠|沙丘",
    "forest": "forest|jungle|wood|woods|green|森林|丛林|绿",
    "blossom": "blossom|spring|cherry|pink|flower|flowers|樱|春|粉|花",
    "snow": "snow|winter|ice|snowy|white|雪|冬|冰|白色",
    "autumn": "autumn|fall|red|brown|秋|红|枫",
    "space": "moon|space|planet|mars|astronaut|月球|太空|行星|火星|宇航员",
}
FEATURES = {
    "banana": "banana|bananas|香蕉",
    "two": "two moons|two suns|second moon|两个月亮|两轮|两个太阳",
    "lighthouse": "lighthouse|灯塔",
    "trees": "tree|trees|forest|woods|jungle|pine|pines|树|森林|丛林|松",
    "city": "city|town|skyline|street|house|houses|village|城|镇|街|房|村",
    "water": "sea|ocean|beach|lake|river|water|harbour|harbor|boat|海|湖|河|水|船|沙滩",
    "snowfall": "snow|snowing|winter|snowy|雪|冬",
    "stars": "night|midnight|star|stars|space|planet|moon|夜|星|太空|月球|宇航员",
    "birds": "bird|birds|sea|beach|morning|鸟|海|早晨",
}


def size_of(aspect_ratio: str, image_size: str) -> tuple[int, int]:
    """Return width and height in pixels: the area of a square of that size, sides in steps of 16."""
    wide, high = map(int, aspect_ratio.split(":"))
    side = BASE_PIXELS[image_size]
    stretch = math.sqrt(wide / high)
    return round(side * stretch / 16) * 16, round(side / stretch / 16) * 16


@lru_cache(maxsize=32)
def draw(prompt: str, aspect_ratio: str, image_size: str, sources: tuple[bytes, ...] = (), variant: int = 0) -> bytes:
    """Return a JPEG; `sources` are the bytes of the pictures it starts from, another `variant` is another picture."""
    size = size_of(aspect_ratio, image_size)
    scene = next((found for source in sources if (found := _scene_in(source))), None)
    wanted = _scene_of(prompt, scene, variant)
    if sources and scene is None:
        picture = _changed(sources, size, wanted, prompt)
    else:
        picture = landscape(size, wanted)
    _mark(picture)
    out = io.BytesIO()
    comment = COMMENT + msgspec.json.encode(wanted)
    picture.save(out, "JPEG", quality=JPEG_QUALITY, comment=comment)
    return out.getvalue()


def draw_base64(
    prompt: str, aspect_ratio: str, image_size: str, sources: Sequence[bytes] = (), variant: int = 0
) -> str:
    """Return the same as standard base64."""
    return base64.b64encode(draw(prompt, aspect_ratio, image_size, tuple(sources), variant)).decode()


def nearest_ratio(source: bytes, ratios: Sequence[str]) -> str | None:
    """Return which of `ratios` a picture has most nearly; None where it cannot be opened."""
    with suppress(OSError, Image.DecompressionBombError), Image.open(io.BytesIO(source)) as picture:
        shape = math.log(picture.width / picture.height)
        return min(ratios, key=lambda ratio: abs(math.log(int(ratio.split(":")[0]) / int(ratio.split(":")[1])) - shape))
    return None


def _named(prompt: str, patterns: dict[str, str]) -> list[str]:
    """Return which of `patterns` a prompt names: whole words, or Chinese ones anywhere."""
    words = "|".join
    found = []
    for name, pattern in patterns.items():
        latin = words(word for word in pattern.split("|") if word.isascii())
        other = words(word for word in pattern.split("|") if not word.isascii())
        if re.search(rf"\b(?:{latin})\b|{other}", prompt, re.IGNORECASE):
            found.append(name)
    return found


def _scene_of(prompt: str, before: Scene | None, variant: int) -> Scene:
    """Return the scene that a prompt asks for; with `before`, how it changes that one."""
    seed = int.from_bytes(hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()[:6]) + variant
    moods = _named(prompt, MOODS)
    features = frozenset(_named(prompt, FEATURES))
    if before is None:
        return Scene(seed, moods[0] if moods else sorted(PALETTES)[seed % len(PALETTES)], features)
    mood = moods[0] if moods else before.mood
    kept = before.features - ({"stars", "snowfall"} if moods else set())
    return Scene(before.seed + variant, mood, kept | features)


def _scene_in(source: bytes) -> Scene | None:
    """Return the scene of a picture that was drawn here."""
    with suppress(OSError, msgspec.MsgspecError, Image.DecompressionBombError):
        with Image.open(io.BytesIO(source)) as picture:
            comment = picture.info.get("comment", b"")
        if isinstance(comment, bytes) and comment.startswith(COMMENT):
            scene = msgspec.json.decode(comment[len(COMMENT) :], type=Scene)
            return scene if scene.mood in PALETTES else None
    return None


def _changed(sources: Sequence[bytes], size: tuple[int, int], scene: Scene, prompt: str) -> Image.Image:
    """Return the pictures that were given, whole and side by side, in the light that the prompt asks for."""
    opened = [_opened(source) for source in sources[:MAX_SOURCES]]
    picture = ImageOps.fit(opened[0], size).filter(ImageFilter.GaussianBlur(math.sqrt(size[0] * size[1]) / 24))
    columns = math.ceil(math.sqrt(len(opened) * size[0] / size[1])) if len(opened) > 1 else 1
    columns = min(columns, len(opened))
    rows = math.ceil(len(opened) / columns)
    cell = (size[0] // columns, size[1] // rows)
    for number, source in enumerate(opened):
        row, column = divmod(number, columns)
        part = ImageOps.contain(source, cell, Image.Resampling.LANCZOS)
        corner = (column * cell[0] + (cell[0] - part.width) // 2, row * cell[1] + (cell[1] - part.height) // 2)
        picture.paste(part, corner)
    if _named(prompt, MOODS):
        picture = in_light(picture, scene)
    if "banana" in scene.features:
        add_banana(picture, scene)
    return picture


def _opened(source: bytes) -> Image.Image:
    try:
        return ImageOps.exif_transpose(Image.open(io.BytesIO(source))).convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return Image.new("RGB", (512, 512), "grey")  # HEIC, which Pillow cannot open


def _mark(picture: Image.Image) -> None:
    """Say in a corner that it is no picture of Google's."""
    side = min(picture.size)
    font = ImageFont.load_default(max(10, side / 34))
    place = (picture.width - side // 40, picture.height - side // 44)
    brush = ImageDraw.Draw(picture, "RGBA")
    brush.text(place, "DEMO", (*ImageColor.getrgb("#ffffff"), 190), font, anchor="rs")
