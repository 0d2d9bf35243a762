"""Pictures as raters get them: pixels only, so that nothing tells which model drew them."""

import io
from pathlib import Path

from PIL import Image, ImageOps


def bare_png(path: Path) -> bytes:
    """The picture turned upright, as PNG without any of the file's metadata (EXIF, prompts, model names).

    Raises:
        OSError: the file is missing or is no picture.
    """
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        pixels = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    pixels.info.clear()
    out = io.BytesIO()
    pixels.save(out, "PNG", compress_level=1)  # a rater waits for this: size matters less than time
    return out.getvalue()
