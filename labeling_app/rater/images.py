"""Images for raters: only pixels, so that nothing reveals the model that drew them."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from fastapi import HTTPException
from PIL import Image, ImageDraw, ImageOps

from data.errors import PictuneError
from data.image_files import read_image
from data.regions import POINT_RADIUS

THUMBNAIL = 320
"""Pixels of the longer side of a thumbnail: 160 CSS pixels on screens of double density."""


def encoded(path: Path | None, encode: Callable[[Path], bytes]) -> bytes:
    """Return an image as `encode` makes it.

    Raises:
        HTTPException: 404, the image does not exist or its file is unusable.
    """
    if path is None:
        raise HTTPException(404, "no such image")
    try:
        return encode(path)
    except PictuneError as error:
        raise HTTPException(404, "the image's file is missing, damaged or too large") from error


def thumbnail(path: Path, edges: Sequence[float] = ()) -> bytes:
    """Return the image as a small WebP with outlines of marks; errors as of `bare_png`.

    `edges` has the left, upper, right and lower edge of each mark, as fractions of the image; those
    of a point are the same twice.
    """
    pixels = _upright(path)
    pixels.thumbnail((THUMBNAIL, THUMBNAIL))
    pen = ImageDraw.Draw(pixels)
    width, height = pixels.size
    radius = POINT_RADIUS * max(width, height)
    for x0, y0, x1, y1 in zip(*[iter(edges)] * 4, strict=False):
        start, end = (x0 * width, y0 * height), (x1 * width, y1 * height)
        if start == end:
            pen.circle(start, radius, outline="red", width=2)
        else:
            pen.rectangle((start, end), outline="red", width=2)
    pixels.info.clear()
    out = io.BytesIO()
    pixels.save(out, "WEBP", quality=85)
    return out.getvalue()


def bare_png(path: Path) -> bytes:
    """Return the image, turned upright, as PNG without the file's metadata.

    Metadata are EXIF, prompts and names of models.

    Raises:
        PictuneError: the file is missing or is not an image, or has too many pixels.
    """
    pixels = _upright(path)
    pixels.info.clear()
    out = io.BytesIO()
    pixels.save(
        out, "PNG", compress_level=1
    )  # a rater waits for this: speed matters more than size
    return out.getvalue()


def _upright(path: Path) -> Image.Image:
    image = read_image(path, "put the file back")
    ImageOps.exif_transpose(image, in_place=True)
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
