"""Images for raters: only pixels, so that nothing reveals the model that drew them."""

import io
from collections.abc import Callable
from pathlib import Path

from fastapi import HTTPException
from PIL import Image, ImageOps

from data.errors import PictuneError
from data.image_files import open_image

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
    except (
        OSError,
        SyntaxError,
        ValueError,
    ) as error:  # Pillow raises SyntaxError for a broken PNG
        raise HTTPException(404, "the image's file is missing or damaged") from error
    except PictuneError as error:
        raise HTTPException(404, "the image has too many pixels to be shown") from error


def thumbnail(path: Path) -> bytes:
    """Return the image as a small WebP; errors as of `bare_png`."""
    pixels = _upright(path)
    pixels.thumbnail((THUMBNAIL, THUMBNAIL))
    pixels.info.clear()
    out = io.BytesIO()
    pixels.save(out, "WEBP", quality=85)
    return out.getvalue()


def bare_png(path: Path) -> bytes:
    """Return the image, turned upright, as PNG without the file's metadata.

    Metadata are EXIF, prompts and names of models.

    Raises:
        OSError: the file is missing or is not an image.
        PictuneError: the image has too many pixels.
    """
    pixels = _upright(path)
    pixels.info.clear()
    out = io.BytesIO()
    pixels.save(
        out, "PNG", compress_level=1
    )  # a rater waits for this: speed matters more than size
    return out.getvalue()


def _upright(path: Path) -> Image.Image:
    with open_image(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
