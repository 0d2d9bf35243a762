"""Image files made by others: the one place that opens them, checks their size and decodes them.

A file of 20 KB may hold a gigabyte of pixels, so its size is checked by the header before decoding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image

from data.errors import PictuneError

THREADS = 4
"""Image files that are read or written at a time, while Pillow leaves the interpreter free."""

MOST_PIXELS = 4096 * 4096
"""Width times height; decoded, such an image takes 64 MiB."""

IMAGE_FORMATS = {"PNG": "png", "WEBP": "webp", "JPEG": "jpeg", "MPO": "jpeg"}
"""Our names by Pillow's; a phone's photo may be MPO, which every reader of JPEG opens."""

# Pillow's own bound is five times as high, and its warning would come before our error.
Image.MAX_IMAGE_PIXELS = None


class ImageFault(ValueError):
    """Reason why an image cannot be used, without the name of its file."""


class TooManyPixels(ImageFault):
    """The image has more than `MOST_PIXELS`; the message says what to do."""


def read_image(path: Path, advice: str) -> Image.Image:
    """Open an image file, check its size and decode all of it.

    Raises:
        PictuneError: the file is missing, damaged or no image (ends with `advice`), or has too
            many pixels.
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
    """Read an image of one of `IMAGE_FORMATS`, check its size, and decode all of it.

    Raises:
        ImageFault: it is damaged, no image, of another format, or has too many pixels.
    """
    with _opened(file) as image:
        if image.format not in IMAGE_FORMATS:
            raise ImageFault("is an image, but neither PNG, WebP nor JPEG")
        image.load()
        return image


def open_image(path: Path) -> Image.Image:
    """Open an image file that its header shows to be small enough; the caller closes it.

    It is not decoded yet.

    Raises:
        PictuneError: it has too many pixels.
        OSError: the file is missing or is no image.
    """
    image = Image.open(path)
    try:
        _check_size(image)
    except TooManyPixels as error:
        image.close()
        raise PictuneError(f"{path}: {error}") from error
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
    """Yield an image that its header shows to be small enough; all faults are ImageFaults."""
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
