"""The landscapes of the demo: a `Scene` painted in any shape, from far to near."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

# Drawn larger and made smaller, so that edges are smooth; what is larger than this is made larger.
LARGEST_CANVAS = 3072

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


class Scene(msgspec.Struct, frozen=True):
    """What a picture shows: `seed` is the lie of the land, `mood` its colours, `features` what stands in it."""

    seed: int
    mood: str
    features: frozenset[str]


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


def landscape(size: tuple[int, int], scene: Scene) -> Image.Image:
    """Return a scene as a picture of `size`, in pixels."""
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


def add_banana(picture: Image.Image, scene: Scene) -> None:
    """Draw a banana into a picture that came from elsewhere."""
    unit = math.sqrt(picture.width * picture.height) / 1000
    brush = ImageDraw.Draw(picture)
    canvas = _Canvas(picture, brush, PALETTES[scene.mood], random.Random(scene.seed), unit)
    _banana(canvas, random.Random(scene.seed))


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


def in_light(picture: Image.Image, scene: Scene) -> Image.Image:
    """Return a picture in the colours of a mood."""
    colours = PALETTES[scene.mood]
    if scene.mood in ("night", "space"):
        return ImageChops.multiply(picture, Image.new("RGB", picture.size, "#3a4a80"))
    toned = ImageOps.colorize(ImageOps.grayscale(picture), colours[6], colours[2], mid=colours[4])
    return Image.blend(picture, toned, 0.5)


def _around(centre: tuple[float, float], radius: float) -> tuple[float, float, float, float]:
    return (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
