"""The oracle, which reads an image back into animals, tints and place.

It judges, and it drives simulated raters; no training ever sees it. It is a detector (after
CenterNet, Zhou et al. 2019, arXiv 1904.07850): a heatmap of face centers on a 16x16 grid, the
species and the tint at each center, and one place for the image. It counts peaks and does not
classify counts, which is why it works on generated images.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import PictuneError
from data.files import write_atomically, write_json
from data.weights import check_finite
from world.scenes import ANIMALS, PLACES, TINTS, Reading, SeenFace

GRID = 16
"""Number of cells on a side of the heatmap; a cell is 4 pixels wide."""


class OracleConfig(BaseModel, frozen=True, extra="forbid"):
    """Shape of the network and the bounds between "read" and "unreadable"."""

    width: int = 32
    min_center: float = 0.7
    """Least probability of a peak, together with the cell beside it, that is a face."""
    doubtful_center: float = 0.5
    """A peak from this probability up to `min_center` may be a face, so the image is unreadable."""
    min_species: float = 0.6
    """Least probability of a face's species; a smaller one makes the image unreadable."""
    min_place: float = 0.6
    """Least probability of the place; a smaller one makes the image unreadable."""


@dataclass(frozen=True)
class Heads:
    """Logits of all heads."""

    center: Tensor
    """[B, 16, 16]"""
    species: Tensor
    """[B, 12, 16, 16]"""
    tint: Tensor
    """[B, 7, 16, 16], the first for the natural color."""
    place: Tensor
    """[B, 6]"""


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Oracle(nn.Module):
    """The detector; expects images [B, 3, 64, 64] in [0, 1]."""

    def __init__(self, config: OracleConfig) -> None:
        super().__init__()
        w = config.width
        self.config = config
        widths = (2 * w, 3 * w, 3 * w, 3 * w, 3 * w)
        self.body = nn.Sequential(
            _block(3, w, 2),
            _block(w, w, 1),
            _block(w, 2 * w, 2),
            *(_block(inputs, 3 * w, 1) for inputs in widths),
        )
        self.cells = nn.Conv2d(3 * w, 1 + len(ANIMALS) + 1 + len(TINTS), 1)
        self.place = nn.Linear(6 * w, len(PLACES))

    def forward(self, images: Tensor) -> Heads:
        """Return the logits of all heads."""
        hidden = self.body(images * 2 - 1)
        pooled = torch.cat([hidden.mean((2, 3)), hidden.amax((2, 3))], 1)
        cells = self.cells(hidden)
        center, species, tint = cells.split([1, len(ANIMALS), 1 + len(TINTS)], dim=1)
        return Heads(center[:, 0], species, tint, self.place(pooled))

    @torch.no_grad()
    def read(self, images: Tensor) -> list[Reading]:
        """Read images, float [B, 3, H, W] in [0, 1]; other sizes than 64x64 are resized."""
        if images.shape[-2:] != (64, 64):
            images = F.interpolate(images, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
        parts = images.split(256)
        return [reading for part in parts for reading in self._read_part(part)]

    def _read_part(self, images: Tensor) -> list[Reading]:
        heads = self(images)
        center = heads.center.sigmoid()
        around = F.pad(center, (1, 1, 1, 1))
        beside = torch.stack(
            [around[:, :-2, 1:-1], around[:, 2:, 1:-1], around[:, 1:-1, :-2], around[:, 1:-1, 2:]]
        ).amax(0)
        # a center on the border of two cells shares its probability between them
        is_peak = center == F.max_pool2d(center[:, None], 3, 1, 1)[:, 0]
        peaks = (center + beside).clamp(max=1) * is_peak
        heads_of = (heads.species, heads.tint, heads.place)
        species, tint, place = (logits.softmax(1) for logits in heads_of)
        return [self._reading(*one) for one in zip(peaks, species, tint, place, strict=True)]

    def _reading(self, peaks: Tensor, species: Tensor, tint: Tensor, place: Tensor) -> Reading:
        """Return the reading of one image from probabilities.

        Peaks are [16, 16], species [12, 16, 16], tint [7, 16, 16], place [6].
        """
        c = self.config
        rows, columns = (peaks >= c.doubtful_center).nonzero(as_tuple=True)
        order = peaks[rows, columns].argsort(descending=True)
        readable = bool(place.max() >= c.min_place)
        counts: dict[str, int] = {}
        tints: dict[str, str | None] = {}
        faces = []
        for y, x in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
            certainty, index = species[:, y, x].max(0)
            middle = (x + 0.5) / GRID, (y + 0.5) / GRID
            if peaks[y, x] < c.min_center or certainty < c.min_species:
                readable = False
                faces.append(SeenFace(None, None, *middle))
                continue
            name = ANIMALS[int(index)]
            counts[name] = counts.get(name, 0) + 1
            shade = int(tint[:, y, x].argmax())
            faces.append(SeenFace(name, TINTS[shade - 1] if shade else None, *middle))
            tints.setdefault(name, faces[-1].tint)
        known = readable and bool(counts)
        return Reading(counts, tints, PLACES[int(place.argmax())], known, tuple(faces))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (fp16)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", self.config.model_dump())
        weights = {
            k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()
        }
        with write_atomically(folder / "model.safetensors") as path:
            save_file(weights, path)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Oracle":
        """Open a folder written by `save_pretrained`.

        Raises:
            PictuneError: the folder has no oracle.
        """
        folder = Path(folder)
        try:
            oracle = cls(OracleConfig(**json.loads((folder / "config.json").read_text())))
            weights = load_file(folder / "model.safetensors")
            check_finite(weights, str(folder))
            oracle.load_state_dict(
                {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
            )
        except (OSError, ValueError, ValidationError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise PictuneError(
                f"{folder}: not an oracle folder ({reason}); `make models` builds it"
            ) from error
        return oracle.eval().requires_grad_(False)
