"""The one module that opens, checks and decodes image files.

A file of 20 KB may hold a gigabyte of pixels, so the size in the header is checked before decoding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image

from data.errors import PictuneError

THREADS = 4
"""Number of threads that read or write image files; Pillow releases the interpreter's lock."""

MOST_PIXELS = 4096 * 4096
"""Largest width times height; such an image takes 64 MiB of memory."""

IMAGE_FORMATS = {"PNG": "png", "WEBP": "webp", "JPEG": "jpeg", "MPO": "jpeg"}
"""Pictune's names of formats by Pillow's names. A phone's photo may be MPO, which every JPEG reader
opens."""

# Pillow's own limit is five times as high, and its warning would come before Pictune's error.
Image.MAX_IMAGE_PIXELS = None


class ImageFault(ValueError):
    """Error that says why an image cannot be used, without the name of its file."""


class TooManyPixels(ImageFault):
    """The image has more than `MOST_PIXELS`; the message says what to do."""


def read_image(path: Path, advice: str) -> Image.Image:
    """Open an image file, check its size, and decode it completely.

    Raises:
        PictuneError: the file is missing, damaged or not an image (the message ends with `advice`),
            or has too many pixels.
    """
    with _named(path, advice), _opened(path) as image:
        image.load()
        return image


def check_image(path: Path, advice: str) -> None:
    """Check an image file's size and checksums without decoding its pixels.

    Raises:
        PictuneError: as `read_image`.
    """
    with _named(path, advice), _opened(path) as image:
        image.verify()


def decode_image(file: IO[bytes]) -> Image.Image:
    """Read an image in one of `IMAGE_FORMATS`, check its size, and decode it completely.

    Raises:
        ImageFault: the file is damaged, is not an image, has another format, or has too many
            pixels.
    """
    with _opened(file) as image:
        if image.format not in IMAGE_FORMATS:
            raise ImageFault("is an image, but neither PNG, WebP nor JPEG")
        image.load()
        return image


@contextmanager
def _named(path: Path, advice: str) -> Iterator[None]:
    """Turn an `ImageFault` into a line that names the file."""
    try:
        yield
    except ImageFault as error:
        hint = "" if isinstance(error, TooManyPixels) else f"; {advice}"
        raise PictuneError(f"{path}: {error}{hint}") from error


@contextmanager
def _opened(file: Path | IO[bytes]) -> Iterator[Image.Image]:
    """Yield an opened image if its header has an allowed size; raise ImageFault on all errors."""
    try:
        with Image.open(file) as image:
            _check_size(image)
            yield image
    except ImageFault:
        raise
    except (OSError, SyntaxError, ValueError) as error:  # a broken PNG is a SyntaxError
        raise ImageFault("cannot be read as an image") from error


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise TooManyPixels(
            f"has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,} "
            "(as 4096 x 4096); make it smaller"
        )
