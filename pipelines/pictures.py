"""Pictures between tensors [B, 3, H, W] in [0, 1], PNG files and contact sheets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from data.errors import PictuneError
from data.files import write_atomically
from data.image_files import open_image

GAP = 2
"""Pixels between the pictures of a sheet."""


def to_pil(picture: Tensor) -> Image.Image:
    """One picture [3, H, W] in [0, 1] as 8-bit RGB."""
    pixels = (
        (picture.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    )
    return Image.fromarray(pixels)


def save_png(picture: Tensor, path: Path) -> None:
    """Writes one picture [3, H, W] atomically; equal pictures give equal bytes."""
    _write_png(to_pil(picture), path)


def load_picture(path: Path) -> Tensor:
    """The picture of a file as [3, H, W] in [0, 1].

    Raises:
        PictuneError: the file is missing, is no picture or has too many pixels.
    """
    return _to_tensor(_open(path))


def load_fitted(path: Path, size: tuple[int, int]) -> Tensor:
    """The picture of a file as [3, *size] in [0, 1]: of another size, it is scaled to cover that one, and its middle is kept.

    Raises:
        PictuneError: the file is missing, is no picture or has too many pixels.
    """
    image, (height, width) = _open(path), size
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return _to_tensor(image)


def _open(path: Path) -> Image.Image:
    try:
        with open_image(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise PictuneError(
            f"{path}: cannot be read as a picture; remove it and run `make images` again"
        ) from error


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)


def load_pictures(paths: Sequence[Path]) -> Tensor:
    """The pictures of files of one size as [B, 3, H, W]."""
    return torch.stack([load_picture(path) for path in paths])


def save_sheet(rows: Sequence[Tensor], path: Path, *, scale: int = 1) -> None:
    """Writes a contact sheet: one row [B, 3, H, W] below the other on white, each pixel drawn `scale` times as wide and high."""
    height, width = rows[0].shape[-2:]
    columns = max(len(row) for row in rows)
    sheet = Image.new(
        "RGB", (columns * (width + GAP) + GAP, len(rows) * (height + GAP) + GAP), "white"
    )
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(to_pil(picture), (GAP + x * (width + GAP), GAP + y * (height + GAP)))
    _write_png(
        sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST), path
    )


def _write_png(image: Image.Image, path: Path) -> None:
    with (
        write_atomically(path) as temporary,
        temporary.open("wb") as file,
    ):  # given a path, Pillow leaves the file open after Ctrl-C
        image.save(file, format="PNG")
