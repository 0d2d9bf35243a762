"""Drawing of scenes: emoji faces with a dark outline on one of six backgrounds, 64x64.

Glyphs come from Debian's `fonts-noto-color-emoji` (SIL Open Font License 1.1). The font is needed
only to rebuild the models.
"""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from data.errors import PictuneError
from world.scenes import (
    ANIMALS,
    FACE_SIZES,
    MAX_COUNT,
    NATURAL_TINTS,
    PLACES,
    SIZE,
    TINTS,
    Animal,
    Scene,
    is_held_out,
)

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SIZE = 109  # the only bitmap size the font holds
GLYPHS = {
    "cat": "\U0001f431",
    "dog": "\U0001f436",
    "rabbit": "\U0001f430",
    "wolf": "\U0001f43a",
    "fox": "\U0001f98a",
    "bear": "\U0001f43b",
    "pig": "\U0001f437",
    "frog": "\U0001f438",
    "lion": "\U0001f981",
    "cow": "\U0001f42e",
    "penguin": "\U0001f427",
    "monkey": "\U0001f435",
}
RGB = {
    "red": (225, 40, 40),
    "green": (40, 175, 60),
    "blue": (45, 90, 230),
    "yellow": (245, 210, 40),
    "purple": (150, 60, 200),
    "pink": (250, 130, 185),
}
OUTLINE = (35, 30, 40)

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Face:
    """Square of one animal in an image: left, top and side, in pixels."""

    animal: Animal
    x: int
    y: int
    side: int


@functools.cache
def _glyph(species: str) -> Image.Image:
    if not FONT.exists():
        raise PictuneError(
            f"{FONT}: the emoji font is missing; "
            "install it with `apt-get install fonts-noto-color-emoji`"
        )
    canvas = Image.new("RGBA", (160, 160))
    font = ImageFont.truetype(str(FONT), FONT_SIZE)
    ImageDraw.Draw(canvas).text((10, 10), GLYPHS[species], font=font, embedded_color=True)
    glyph = canvas.crop(canvas.getbbox())
    side = max(glyph.size)
    square = Image.new("RGBA", (side, side))
    square.paste(glyph, ((side - glyph.width) // 2, side - glyph.height))
    return square


def _tinted(glyph: Image.Image, color: Color) -> Image.Image:
    """Map the glyph's luminance to shades of one color.

    The color is pure at the median, towards black below it, towards white above.
    """
    pixels = np.asarray(glyph).astype(np.float32)
    opaque = pixels[..., 3] > 127
    luminance = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    low, median, high = np.percentile(luminance[opaque], [5, 50, 95])
    dark = np.clip((luminance - low) / max(median - low, 1), 0, 1)[..., None]
    light = np.clip((luminance - median) / max(high - median, 60), 0, 1)[..., None]
    rgb = np.array(color, np.float32) * (0.2 + 0.8 * dark)
    rgb = rgb + 0.3 * light * (255 - rgb)
    return Image.fromarray(np.dstack([rgb, pixels[..., 3]]).clip(0, 255).astype(np.uint8), "RGBA")


@functools.cache
def _sprite(animal: Animal, side: int) -> tuple[Image.Image, Image.Image]:
    """Return the face and the mask of its one-pixel outline."""
    glyph = _glyph(animal.species)
    if animal.tint is not None:
        glyph = _tinted(glyph, RGB[animal.tint])
    face = glyph.resize((side, side), Image.Resampling.LANCZOS)
    alpha = Image.new("L", (side + 2, side + 2))
    alpha.paste(face.getchannel("A"), (1, 1))
    outline = alpha.filter(ImageFilter.MaxFilter(3)).point([int(v * 0.8) for v in range(256)])
    return face, outline


class _Canvas:
    """An image with jittered fills."""

    def __init__(self, rng: random.Random) -> None:
        self.image = Image.new("RGB", (SIZE, SIZE))
        self.draw = ImageDraw.Draw(self.image)
        self.rng = rng

    def jitter(self, color: Color, amount: float = 8) -> Color:
        r, g, b = (int(min(255, max(0, v + self.rng.uniform(-amount, amount)))) for v in color)
        return r, g, b

    def band(self, top: float, bottom: float, color: Color, amount: float = 8) -> None:
        self.draw.rectangle((0, top, SIZE, bottom), fill=self.jitter(color, amount))

    def disc(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=self.jitter(color))

    def specks(self, n: int, bottom: float, color: Color) -> None:
        for _ in range(n):
            self.draw.point((self.rng.uniform(1, 62), self.rng.uniform(1, bottom)), fill=color)


def _plain(c: _Canvas) -> None:
    gray = c.rng.randint(215, 250)
    c.band(0, SIZE, (gray, gray, gray), 3)


def _park(c: _Canvas) -> None:
    horizon = c.rng.uniform(23, 31)
    c.band(0, horizon, (135, 205, 250))
    c.band(horizon, SIZE, (95, 175, 75))
    for _ in range(c.rng.randint(1, 3)):
        x, radius = c.rng.uniform(4, 60), c.rng.uniform(6, 9)
        c.draw.rectangle((x - 1.5, horizon - 9, x + 1.5, horizon + 1), fill=c.jitter((120, 80, 45)))
        c.disc(x, horizon - 9 - 0.4 * radius, radius, radius, (40, 120, 50))


def _beach(c: _Canvas) -> None:
    sea = c.rng.uniform(16, 22)
    sand = sea + c.rng.uniform(9, 13)
    c.band(0, sea, (150, 215, 250))
    c.band(sea, sand, (30, 130, 200))
    c.band(sand, SIZE, (240, 215, 150))
    c.disc(c.rng.uniform(8, 56), 7, 5, 5, (255, 235, 90))


def _moon(c: _Canvas) -> None:
    horizon = c.rng.uniform(20, 28)
    c.band(0, horizon, (12, 12, 35), 5)
    c.specks(c.rng.randint(8, 14), horizon - 2, (255, 255, 220))
    c.band(horizon, SIZE, (150, 150, 158))
    for _ in range(c.rng.randint(4, 7)):
        width = c.rng.uniform(3, 7)
        x, y = c.rng.uniform(2, 62), c.rng.uniform(horizon + 3, 62)
        c.disc(x, y, width, 0.4 * width, (118, 118, 126))


def _street(c: _Canvas) -> None:
    horizon = int(c.rng.uniform(26, 32))
    c.band(0, horizon, (190, 215, 235))
    left = 0
    while left < SIZE:
        width, top = int(c.rng.uniform(9, 15)), int(c.rng.uniform(2, 14))
        wall = c.rng.choice([(165, 95, 80), (190, 165, 140), (140, 140, 160)])
        c.draw.rectangle((left, top, left + width - 1, horizon), fill=c.jitter(wall))
        for y in range(top + 2, horizon - 3, 5):
            for x in range(left + 2, left + width - 3, 4):
                c.draw.rectangle((x, y, x + 1, y + 2), fill=(250, 240, 160))
        left += width
    c.band(horizon, SIZE, (85, 85, 92))
    for x in range(c.rng.randint(-6, 0), SIZE, 14):
        c.draw.rectangle((x, 50, x + 7, 51), fill=(240, 240, 240))


def _snow(c: _Canvas) -> None:
    horizon = c.rng.uniform(24, 32)
    c.band(0, horizon, (170, 190, 215))
    for _ in range(c.rng.randint(2, 3)):
        x, width, height = c.rng.uniform(0, 64), c.rng.uniform(12, 20), c.rng.uniform(12, 22)
        triangle = [(x - width, horizon), (x, horizon - height), (x + width, horizon)]
        c.draw.polygon(triangle, fill=c.jitter((120, 140, 175)))
    c.band(horizon, SIZE, (243, 247, 252), 4)
    c.specks(14, 62, (255, 255, 255))


BACKGROUNDS: dict[str, Callable[[_Canvas], None]] = {
    "plain": _plain,
    "park": _park,
    "beach": _beach,
    "moon": _moon,
    "street": _street,
    "snow": _snow,
}


def _are_apart(a: Face, b: Face, gap: float) -> bool:
    """Whether the squares are `gap` sides apart along x or y."""
    return (
        abs(a.x - b.x) >= gap * (a if a.x < b.x else b).side
        or abs(a.y - b.y) >= gap * (a if a.y < b.y else b).side
    )


def _place_faces(scene: Scene, rng: random.Random, *, loose: bool) -> list[Face]:
    """Choose squares that do not overlap, or only a little if `loose`.

    Starts again if the animals placed so far leave no room.
    """
    n = len(scene.animals)
    top = 2 if scene.place == "plain" else 18 if n < 3 else 10
    gap = 0.94 - (rng.choice((0.0, 0.0, 0.15)) if loose else 0.0)
    spread = rng.randint(-4, 4) if loose else 0
    while True:
        faces: list[Face] = []
        for animal in scene.animals:
            for _ in range(40):
                side = rng.choice(FACE_SIZES[n]) + spread
                limit = SIZE - side - 1
                x, y = rng.randint(1, limit), rng.randint(min(top, limit - 1), limit)
                face = Face(animal, x, y, side)
                if all(_are_apart(face, other, gap) for other in faces):
                    faces.append(face)
                    break
        if len(faces) == n:
            return sorted(faces, key=lambda f: f.y)


def render(
    scene: Scene, rng: random.Random, *, loose: bool = False
) -> tuple[Image.Image, list[Face]]:
    """Return the image of a scene (RGB, 64x64) and the squares of its animals.

    With `loose`, sizes vary and faces overlap, as in generated images.
    """
    canvas = _Canvas(rng)
    BACKGROUNDS[scene.place](canvas)
    faces = _place_faces(scene, rng, loose=loose)
    for f in faces:
        face, outline = _sprite(f.animal, f.side)
        canvas.image.paste(OUTLINE, (f.x - 1, f.y - 1), outline)
        canvas.image.paste(face, (f.x, f.y), face)
    return canvas.image, faces


@dataclass(frozen=True)
class Drawn:
    """Drawn scenes: `pixels` uint8 [N, 64, 64, 3], and for each its scene and faces."""

    pixels: npt.NDArray[np.uint8]
    scenes: list[Scene]
    faces: list[list[Face]]


def draw_many(
    n: int, seed: int, *, sample: Callable[[random.Random], Scene], loose: bool = False
) -> Drawn:
    """Draw `n` scenes from `sample`; the same seed makes the same pixels."""
    rng = random.Random(seed)
    pixels = np.empty((n, SIZE, SIZE, 3), np.uint8)
    scenes, faces = [], []
    for i in range(n):
        scene = sample(rng)
        image, placed = render(scene, rng, loose=loose)
        pixels[i] = np.asarray(image)
        scenes.append(scene)
        faces.append(placed)
    return Drawn(pixels, scenes, faces)


def _sample_animals(rng: random.Random) -> tuple[Animal, ...]:
    kind = rng.random()
    if kind < 0.45:
        return (Animal(rng.choice(ANIMALS), rng.choice(TINTS) if rng.random() < 0.5 else None),)
    if kind < 0.75:
        animal = Animal(rng.choice(ANIMALS), rng.choice(TINTS) if rng.random() < 0.2 else None)
        return (animal,) * rng.randint(2, MAX_COUNT)
    return tuple(
        Animal(s, rng.choice(TINTS) if rng.random() < 0.2 else None) for s in rng.sample(ANIMALS, 2)
    )


def sample_scene(rng: random.Random, *, held_out: bool) -> Scene:
    """Draw a random scene; without `held_out`, a scene that the base may see."""
    while True:
        place = "plain" if rng.random() < 0.3 else rng.choice(PLACES[1:])
        scene = Scene(_sample_animals(rng), place)
        if any((a.species, a.tint) in NATURAL_TINTS for a in scene.animals):
            continue
        if held_out or not is_held_out(scene):
            return scene


def draw_world(n: int, seed: int, *, held_out: bool) -> Drawn:
    """Draw `n` random scenes, with or without the combinations that the base must not see."""
    return draw_many(n, seed, sample=lambda rng: sample_scene(rng, held_out=held_out))
