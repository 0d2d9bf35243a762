"""Image files that others made, opened only where their pixels fit into memory: a file of 20 KB may hold a gigabyte of them."""

from pathlib import Path

from PIL import Image

from data.errors import PictuneError

MOST_PIXELS = 4096 * 4096
"""Width times height; decoded, such an image takes 64 MiB."""

Image.MAX_IMAGE_PIXELS = (
    None  # Pillow's own bound is five times as high, and its warning would come before our line
)


def open_image(path: Path) -> Image.Image:
    """The image of a file, of which only the header has been read; to be closed after use.

    Raises:
        PictuneError: it has too many pixels.
        OSError: the file is missing or is no image.
    """
    image = Image.open(path)
    reason = excess(image)
    if reason is not None:
        image.close()
        raise PictuneError(f"{path}: {reason}")
    return image


def excess(image: Image.Image) -> str | None:
    """What is too much about an image of too many pixels, and what to do; None for others."""
    if image.width * image.height <= MOST_PIXELS:
        return None
    return f"has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,} (as 4096 x 4096); make it smaller"
