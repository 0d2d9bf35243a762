"""Images as tensors [B, 3, H, W] in [0, 1], as PNG files and on contact sheets."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from data.files import write_atomically
from data.image_files import THREADS, read_image

GAP = 2
"""Number of pixels between the images of a sheet."""


def to_pil(image: Tensor) -> Image.Image:
    """Return one image [3, H, W] in [0, 1] as 8-bit RGB."""
    return Image.fromarray(_pixels(image))


def _pixels(images: Tensor) -> np.ndarray[Any, Any]:
    """Return images [..., 3, H, W] in [0, 1] as bytes [..., H, W, 3], by one copy to the CPU."""
    pixels = (images.detach().float().clamp(0, 1) * 255).round().byte()
    return pixels.movedim(-3, -1).cpu().numpy()


def save_png(image: Tensor, path: Path) -> None:
    """Write one image [3, H, W] atomically; equal images give equal bytes."""
    _write_png(to_pil(image), path)


class ImageWriter:
    """Writes PNG files in threads while the next images are drawn.

    All files exist when its block ends.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS)
        self._writing: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def write(self, images: Tensor, paths: Sequence[Path]) -> None:
        """Start to write images [B, 3, H, W] as `save_png` does, after earlier images are written.

        Raises:
            PictuneError: an earlier image could not be written.
        """
        self._finish()
        # As bytes on the CPU: a quarter of the memory, and no GPU memory.
        pairs = zip(map(Image.fromarray, _pixels(images)), paths, strict=True)
        self._writing = [self._pool.submit(_write_png, one, path) for one, path in pairs]

    def _finish(self) -> None:
        for one in self._writing:
            one.result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._pool:
            if kind is None:
                self._finish()


def load_image(path: Path) -> Tensor:
    """Return the image of a file as [3, H, W] in [0, 1].

    Raises:
        PictuneError: the file is missing, is no image or has too many pixels.
    """
    return _to_tensor(_open(path))


def load_fitted(path: Path, size: tuple[int, int]) -> Tensor:
    """Return the image of a file as [3, *size] in [0, 1], where `size` is (height, width).

    An image of another size is scaled to cover `size` and cropped to its center.

    Raises:
        PictuneError: the file is missing, is no image or has too many pixels.
    """
    image, (height, width) = _open(path), size
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return _to_tensor(image)


def _open(path: Path) -> Image.Image:
    return read_image(path, "remove it and run `make images` again").convert("RGB")


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)


def load_images(paths: Sequence[Path]) -> Tensor:
    """Return the images of files, all of one size, as [B, 3, H, W]."""
    with ThreadPoolExecutor(THREADS) as pool:
        return torch.stack(list(pool.map(load_image, paths)))


def save_sheet(rows: Sequence[Tensor], path: Path, *, scale: int = 1) -> None:
    """Write a contact sheet: rows [B, 3, H, W] on white, one below the other.

    Each pixel is drawn `scale` times as wide and high.
    """
    height, width = rows[0].shape[-2:]
    columns = max(len(row) for row in rows)
    size = (columns * (width + GAP) + GAP, len(rows) * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(to_pil(image), (GAP + x * (width + GAP), GAP + y * (height + GAP)))
    scaled = (sheet.width * scale, sheet.height * scale)
    _write_png(sheet.resize(scaled, Image.Resampling.NEAREST), path)


def _write_png(image: Image.Image, path: Path) -> None:
    # with a path, Pillow leaves the file open after Ctrl-C
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        image.save(file, format="PNG")
