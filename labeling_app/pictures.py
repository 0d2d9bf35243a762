"""Pictures as raters get them: pixels only, so that nothing tells which model drew them."""

import io
from pathlib import Path

from PIL import Image, ImageOps

from data.image_files import open_image


def bare_png(path: Path) -> bytes:
    """The picture turned upright, as PNG without any of the file's metadata (EXIF, prompts, model names).

    Raises:
        OSError: the file is missing or is no picture.
        PictuneError: it has too many pixels.
    """
    pixels = _upright(path)
    pixels.info.clear()
    out = io.BytesIO()
    pixels.save(out, "PNG", compress_level=1)  # a rater waits for this: size matters less than time
    return out.getvalue()


def _upright(path: Path) -> Image.Image:
    with open_image(path) as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
