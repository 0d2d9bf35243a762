"""Images as raters get them: only pixels, so that nothing tells which model drew them."""

import io
from pathlib import Path

from PIL import Image, ImageOps

from data.image_files import open_image


def bare_png(path: Path) -> bytes:
    """Return the image, turned upright, as PNG without the file's metadata.

    Metadata are EXIF, prompts and names of models.

    Raises:
        OSError: the file is missing or is no image.
        PictuneError: it has too many pixels.
    """
    pixels = _upright(path)
    pixels.info.clear()
    out = io.BytesIO()
    pixels.save(out, "PNG", compress_level=1)  # a rater waits for this: size matters less than time
    return out.getvalue()


def _upright(path: Path) -> Image.Image:
    with open_image(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
