"""Demo pictures: landscapes that follow the prompt's words, in every shape and size, and change with what is asked of them.

A picture holds the scene it shows in a JPEG comment, so that an edit of it is the same place: by night, with snow, wider.
"""

import base64
import hashlib
import io
import math
import random
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

import msgspec
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter, ImageFont, ImageOps, UnidentifiedImageError

BASE_PIXELS = {"512": 512, "1K": 1024, "2K": 2048, "4K": 4096}
JPEG_QUALITY = 88
# Drawn larger and made smaller, so that edges are smooth; what is larger than this is made larger.
LARGEST_CANVAS = 3072
COMMENT = b"BananaService scene "
MAX_SOURCES = 14

# Sky from above to the horizon, the sun or moon, hills from far to near.
PALETTES = {
    "day": ("#8ecdea", "#cfe8f0", "#fffbe0", "#9cc5a1", "#7aa981", "#528b68", "#2f5f52"),
    "dusk": ("#2b2144", "#95606a", "#ffd9a0", "#7b4a63", "#5b325a", "#3d2148", "#1d1029"),
    "sunset": ("#ffb56b", "#ff9d72", "#fff0c9", "#d4575f", "#bd435b", "#7a2f4f", "#421e3d"),
    "night": ("#0a0d20", "#243059", "#fdfbe8", "#1f2b50", "#182542", "#111a33", "#0a1022"),
    "sea": ("#aadcdc", "#dff1ec", "#fffef0", "#8cc3ba", "#63a7a0", "#3b8082", "#1b5a64"),
    "desert": ("#efe3d2", "#f3d9bb", "#fff3dc", "#d9b592", "#c69a7c", "#a87f6c", "#7b5a53"),
    "forest": ("#17404a", "#5d9088", "#fbfbdc", "#2f7d74", "#1d6a66", "#0f4b52", "#082f38"),
    "blossom": ("#ffdbe0", "#ffe9e4", "#ffffff", "#f0b1b0", "#df8f9f", "#b96f8b", "#7d4a6c"),
    "snow": ("#b9d2e6", "#e9f1f6", "#ffffff", "#dfe9f0", "#c3d5e2", "#a3bccf", "#7d9ab3"),
    "autumn": ("#f2c9a0", "#f9e3c4", "#fff6dd", "#d98a4e", "#c0622f", "#8d4223", "#532a20"),
    "space": ("#05040f", "#231942", "#f3e9d8", "#5b5375", "#474060", "#322c4a", "#1f1a33"),
}
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


class Scene(msgspec.Struct, frozen=True):
    """What a picture shows: `seed` is the lie of the land, `mood` its colours, `features` what stands in it."""

    seed: int
    mood: str
    features: frozenset[str]


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
        picture = _landscape(size, wanted)
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


@dataclass(frozen=True, slots=True)
class _Canvas:
    """A picture that is being drawn; `unit` is a thousandth of what one looks at, in pixels."""

    picture: Image.Image
    brush: ImageDraw.ImageDraw
    colours: tuple[str, ...]
    chance: random.Random
    unit: float

    @property
    def width(self) -> int:
        return self.picture.width

    @property
    def height(self) -> int:
        return self.picture.height


def _landscape(size: tuple[int, int], scene: Scene) -> Image.Image:
    scale = min(1.5, LARGEST_CANVAS / math.sqrt(size[0] * size[1]))
    width, height = round(size[0] * scale), round(size[1] * scale)
    colours = PALETTES[scene.mood]
    ramp = Image.linear_gradient("L").resize((width, height))
    picture = ImageOps.colorize(ramp, colours[0], colours[1])
    brush = ImageDraw.Draw(picture)
    # Each part has a chance of its own, so that a change of one leaves the others where they are.
    canvas = _Canvas(picture, brush, colours, random.Random(scene.seed), math.sqrt(width * height) / 1000)
    _lights(canvas, scene)
    for number in range(4):
        chance = random.Random(scene.seed * 4 + number)
        ridge = _ridge(canvas, number, chance)
        near = replace(canvas, chance=chance)
        if number == 2 and "city" in scene.features:
            _city(near, ridge, colours[5])
        brush.polygon([*ridge, (width, height), (0, height)], fill=colours[3 + number])
        if number in (1, 2) and "trees" in scene.features:
            _trees(near, ridge, colours[3 + number])
        if number == 1 and "lighthouse" in scene.features:
            _lighthouse(near, ridge)
        if number == 2 and "water" in scene.features:
            _water(near, scene)
            break
    if "banana" in scene.features:
        _banana(canvas, random.Random(scene.seed + 7))
    if "snowfall" in scene.features:
        _dots(replace(canvas, chance=random.Random(scene.seed + 9)), 260, 1.0, "#ffffff", 2.4)
    return picture.resize(size, Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BICUBIC)


def _lights(canvas: _Canvas, scene: Scene) -> None:
    """Draw the sun or the moon with its glow, and what else is in the sky."""
    if "stars" in scene.features or scene.mood in ("night", "space"):
        _dots(replace(canvas, chance=random.Random(scene.seed + 5)), 160, 0.6, canvas.colours[2], 1.3)
    places = [(canvas.chance.uniform(0.2, 0.8), canvas.chance.uniform(0.16, 0.36))]
    if "two" in scene.features:
        places.append(((places[0][0] + 0.42) % 0.8 + 0.1, places[0][1] * 0.75))
    for number, (x, y) in enumerate(places):
        radius = (58 if not number else 34) * canvas.unit
        centre = (x * canvas.width, y * canvas.height)
        # It is 0 in the middle and 181 where it meets the edge.
        fading = Image.radial_gradient("L").point([max(0, 181 - level) ** 2 // 210 for level in range(256)])
        glow = fading.resize((round(radius * 7),) * 2)
        canvas.picture.paste(
            canvas.colours[2], (round(centre[0] - radius * 3.5), round(centre[1] - radius * 3.5)), glow
        )
        canvas.brush.ellipse(_around(centre, radius), fill=canvas.colours[2])
    if "birds" in scene.features:
        _birds(replace(canvas, chance=random.Random(scene.seed + 6)))


def _ridge(canvas: _Canvas, number: int, chance: random.Random) -> list[tuple[float, float]]:
    """Return the points of a ridge, from left to right; 0 is the farthest."""
    base = canvas.height * (0.46 + 0.145 * number)
    swing = min(canvas.height * 0.1, 95 * canvas.unit)
    waves = [(chance.uniform(0.6, 1.6) * 2**octave, chance.uniform(0, math.tau), 0.62**octave) for octave in range(5)]
    step = max(1, round(3 * canvas.unit))
    span = 1000 * canvas.unit
    points: list[tuple[float, float]] = []
    for x in range(0, canvas.width + step, step):
        lift = sum(
            weight * math.sin(frequency * math.tau * x / span + phase)
            for frequency, phase, weight in waves[: 5 - number]
        )
        points.append((x, base - swing * lift * (0.75 - 0.1 * number)))
    return points


def _dots(canvas: _Canvas, count: int, depth: float, colour: str, radius: float) -> None:
    for _ in range(count):
        place = (canvas.chance.uniform(0, canvas.width), canvas.chance.uniform(0, canvas.height * depth))
        canvas.brush.ellipse(_around(place, canvas.unit * radius * canvas.chance.uniform(0.4, 1.2)), fill=colour)


def _birds(canvas: _Canvas) -> None:
    for _ in range(5):
        x, y = canvas.chance.uniform(0.1, 0.9) * canvas.width, canvas.chance.uniform(0.12, 0.4) * canvas.height
        wing = canvas.unit * canvas.chance.uniform(9, 17)
        for side in (-1, 1):
            box = (x + (side - 1) * wing, y, x + (side + 1) * wing, y + wing * 1.2)
            canvas.brush.arc(box, 200, 340, canvas.colours[5], max(1, round(3 * canvas.unit)))


def _trees(canvas: _Canvas, ridge: Sequence[tuple[float, float]], colour: str) -> None:
    for x, y in ridge[:: max(1, len(ridge) // 70)]:
        high = canvas.unit * canvas.chance.uniform(18, 52)
        foot = y + 6 * canvas.unit
        canvas.brush.polygon([(x - high * 0.28, foot), (x, foot - high), (x + high * 0.28, foot)], fill=colour)


def _city(canvas: _Canvas, ridge: Sequence[tuple[float, float]], colour: str) -> None:
    x = 0.0
    while x < canvas.width:
        wide, high = canvas.unit * canvas.chance.uniform(30, 70), canvas.unit * canvas.chance.uniform(40, 190)
        foot = ridge[min(len(ridge) - 1, round(x / canvas.width * len(ridge)))][1]
        canvas.brush.rectangle((x, foot - high, x + wide, foot + 60 * canvas.unit), fill=colour)
        pane = 5 * canvas.unit
        for row in range(int(high / pane / 3)):
            for column in range(int(wide / pane / 2.4)):
                if canvas.chance.random() < 0.35:
                    left, top = x + pane * (1 + 2.2 * column), foot - high + pane * (1.5 + 3 * row)
                    canvas.brush.rectangle((left, top, left + pane, top + pane * 1.5), fill="#ffd98a")
        x += wide + canvas.unit * canvas.chance.uniform(0, 24)


def _lighthouse(canvas: _Canvas, ridge: Sequence[tuple[float, float]]) -> None:
    x, y = ridge[len(ridge) // 5]
    unit = canvas.unit * 1.5
    light = Image.new("L", canvas.picture.size, 0)
    ImageDraw.Draw(light).polygon(
        [(x, y - 101 * unit), (x + 900 * unit, y - 230 * unit), (x + 900 * unit, y - 30 * unit)], fill=48
    )
    canvas.picture.paste("#fff3c4", (0, 0), light.filter(ImageFilter.BoxBlur(4 * unit)))
    for part in range(5):
        top, bottom = y - (20 + 18 * part) * unit, y - (18 * part - (0 if part else 30)) * unit
        broad, slim = (15 - 1.4 * part) * unit, (15 - 1.4 * (part + 1)) * unit
        shape = [(x - broad, bottom), (x - slim, top), (x + slim, top), (x + broad, bottom)]
        canvas.brush.polygon(shape, fill="#c8443c" if part % 2 else "#f6efe3")
    canvas.brush.rectangle((x - 9 * unit, y - 112 * unit, x + 9 * unit, y - 91 * unit), fill="#2a2238")
    canvas.brush.ellipse(_around((x, y - 101 * unit), 7 * unit), fill="#ffe9a3")


def _water(canvas: _Canvas, scene: Scene) -> None:
    """Draw water before the nearest hills, which mirrors the light above it."""
    shore = canvas.height * 0.72
    deep, bright = canvas.colours[5], canvas.colours[1]
    depth = Image.linear_gradient("L").resize((canvas.width, round(canvas.height - shore)))
    canvas.picture.paste(ImageOps.colorize(depth, bright, deep), (0, round(shore)))
    x = random.Random(scene.seed).uniform(0.2, 0.8) * canvas.width
    for number in range(46):
        y = shore + (canvas.height - shore) * (number / 46) ** 1.3
        half = canvas.unit * canvas.chance.uniform(12, 70) * (0.5 + number / 40)
        middle = x + canvas.unit * canvas.chance.uniform(-30, 30)
        canvas.brush.rounded_rectangle(
            (middle - half, y, middle + half, y + 3.4 * canvas.unit), 2 * canvas.unit, fill=canvas.colours[2]
        )


def _banana(canvas: _Canvas, chance: random.Random) -> None:
    """Draw a crescent with a stem, tilted, with a shadow."""
    side = round(min(canvas.width, canvas.height, 900 * canvas.unit) * 0.56)
    mask = Image.new("L", (1024, 1024), 0)
    brush = ImageDraw.Draw(mask)
    brush.ellipse((80, 0, 944, 864), fill=255)
    brush.ellipse((40, -230, 984, 590), fill=0)
    brush.rounded_rectangle((886, 318, 946, 470), 22, fill=255)
    tilt = chance.uniform(-35, 35)
    shape = mask.rotate(tilt).resize((side, side), Image.Resampling.LANCZOS)
    corner = (
        round((canvas.width - side) * chance.uniform(0.3, 0.7)),
        round((canvas.height - side) * chance.uniform(0.4, 0.6)),
    )
    shade = shape.filter(ImageFilter.GaussianBlur(10 * canvas.unit)).point([level * 2 // 5 for level in range(256)])
    canvas.picture.paste("#14101f", (corner[0] + round(8 * canvas.unit), corner[1] + round(14 * canvas.unit)), shade)
    canvas.picture.paste("#f9c93d", corner, shape)
    lit = ImageChops.subtract(shape, ImageChops.offset(shape, 0, -round(side * 0.045)))
    canvas.picture.paste("#ffe27a", corner, ImageChops.multiply(lit, shape))


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
        picture = _in_light(picture, scene)
    if "banana" in scene.features:
        colours = PALETTES[scene.mood]
        canvas = _Canvas(
            picture, ImageDraw.Draw(picture), colours, random.Random(scene.seed), math.sqrt(size[0] * size[1]) / 1000
        )
        _banana(canvas, random.Random(scene.seed))
    return picture


def _in_light(picture: Image.Image, scene: Scene) -> Image.Image:
    """Return a picture in the colours of a mood."""
    colours = PALETTES[scene.mood]
    if scene.mood in ("night", "space"):
        return ImageChops.multiply(picture, Image.new("RGB", picture.size, "#3a4a80"))
    toned = ImageOps.colorize(ImageOps.grayscale(picture), colours[6], colours[2], mid=colours[4])
    return Image.blend(picture, toned, 0.5)


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


def _around(centre: tuple[float, float], radius: float) -> tuple[float, float, float, float]:
    return (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
