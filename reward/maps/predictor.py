"""The predictor of maps: the share of raters who would mark each place of an image.

A small head reads the patch tokens of the reward's frozen CLIP and the prompt's embedding. It is
trained on marks as RichHF's heatmaps are (Liang et al. 2024, arXiv 2312.10240). That model reads
all words beside the patches; here the prompt scales and shifts the patches' channels (FiLM, Perez
et al. 2018, arXiv 1709.07871).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from data.errors import PictuneError
from data.files import sha256_of, write_json
from data.ids import Identifier
from data.quality.regions import MAP_SIZE
from data.regions import Box
from reward.clip.backbone import ClipBackbone, Preprocessing
from reward.files import MAPS_FILE, MAPS_WEIGHTS
from reward.model import load_weights, save_weights

WIDTH = 64
"""Channels of the head."""


class MapsConfig(BaseModel):
    """Content of `maps.json` beside a saved reward."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone_sha256: str
    """`ClipBackbone.fingerprint` of the head's backbone."""
    head_sha256: str
    """SHA-256 of `maps.safetensors`, so that files of two trainings are not mixed."""
    aspects: tuple[Identifier, ...] = Field(min_length=1)
    """What the marks speak of; the head makes a map of each."""
    width: PositiveInt
    """Channels of the head."""


class MapHead(nn.Module):
    """Linear layer and two 3x3 convolutions on the patches' square, with FiLM by the prompt.

    With tokens of length 1,024 and prompts of length 768 it has 0.24M parameters.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, dim: int, tokens: int, aspects: int, *, width: int, generator: torch.Generator
    ) -> None:
        """Make an untrained head; `generator` (CPU) draws its weights.

        Args:
            dim: length D of a prompt's embedding.
            tokens: length W of a patch's token.
            aspects: number A of maps.
            width: channels of the layers between.
            generator: on the CPU.
        """
        super().__init__()
        self.width = width
        empty = nn.utils.skip_init  # torch's own weights would be drawn from its global generator
        self.enter = empty(nn.Linear, tokens, width)
        self.film = empty(nn.Linear, dim, 2 * width)
        self.convolutions = nn.ModuleList(
            empty(nn.Conv2d, width, width, 3, padding=1, padding_mode="replicate")
            for _ in range(2)  # zeros would fade maps at the edges
        )
        self.leave = empty(nn.Conv2d, width, aspects, 1)
        for weight in self.parameters():
            bound = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0
            nn.init.uniform_(weight, -bound, bound, generator=generator)
        self.register_buffer("mean", torch.zeros(tokens))
        self.register_buffer("std", torch.ones(tokens))

    @torch.no_grad()
    def center(self, tokens: Tensor, share: Tensor) -> None:
        """Standardize by tokens [B, P, W] of images, and begin at the mean `share` [A] of marks."""
        std, mean = torch.std_mean(tokens, dim=(0, 1), correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-4, std, 1.0))  # a constant channel
        self.leave.bias.copy_(torch.logit(share, eps=1e-4))

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Return maps [B, A, MAP_SIZE, MAP_SIZE] in (0, 1) of tokens [B, P, W], prompts [B, D]."""
        side = round(tokens.shape[1] ** 0.5)
        hidden = self.enter((tokens - self.mean) / self.std).mT.unflatten(2, (side, side))
        scale, shift = self.film(text * text.shape[1] ** 0.5)[..., None, None].chunk(2, dim=1)
        hidden = torch.relu(hidden * (1 + scale) + shift)
        for convolution in self.convolutions:
            hidden = torch.relu(convolution(hidden))
        maps = functional.interpolate(
            self.leave(hidden), size=MAP_SIZE, mode="bilinear", align_corners=False
        )
        return torch.sigmoid(maps)


class MapPredictor(nn.Module):
    """A frozen CLIP backbone and a trained `MapHead`."""

    def __init__(self, backbone: ClipBackbone, head: MapHead, aspects: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.head, self.aspects = backbone, head, tuple(aspects)

    @classmethod
    def create(
        cls,
        backbone: ClipBackbone,
        aspects: Sequence[str],
        *,
        generator: torch.Generator,
        width: int = WIDTH,
    ) -> Self:
        """Return an untrained predictor on the backbone's device."""
        _, tokens = backbone.patch_shape
        head = MapHead(backbone.dim, tokens, len(aspects), width=width, generator=generator)
        return cls(backbone, head.to(backbone.device), aspects)

    @torch.no_grad()
    def predict(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return maps [B, A, H, W] in [0, 1] of images [B, 3, H, W] in [0, 1] for their prompts.

        A map is 0 where CLIP does not see the image, as at the ends of one that is not square.
        """
        backbone = self.backbone
        tokens = backbone.patch_tokens(backbone.preprocess(images.to(backbone.device).float()))
        maps = self.head(tokens, backbone.text_embedding(prompts))
        height, width = images.shape[-2:]
        return on_image(maps, seen_part(backbone.preprocess, height, width), height, width)

    def save_pretrained(self, folder: Path) -> None:
        """Write the weights of the head beside the reward, then `maps.json`.

        Raises:
            PictuneError: the files cannot be written.
        """
        save_weights(self.head.state_dict(), folder / MAPS_WEIGHTS)
        config = MapsConfig(
            backbone_sha256=self.backbone.fingerprint,
            head_sha256=sha256_of(folder / MAPS_WEIGHTS),
            aspects=self.aspects,
            width=self.head.width,
        )
        write_json(folder / MAPS_FILE, config.model_dump(mode="json"))

    @classmethod
    def from_pretrained(cls, folder: Path, backbone: ClipBackbone) -> Self:
        """Load the predictor beside a saved reward, with the reward's backbone.

        Raises:
            PictuneError: the reward has no predictor, files are broken or of two trainings, or it
                was trained on another backbone.
        """
        config, weights = read_maps_config(folder), folder / MAPS_WEIGHTS
        if not weights.is_file() or sha256_of(weights) != config.head_sha256:
            raise PictuneError(
                f"{folder}: {MAPS_WEIGHTS} and {MAPS_FILE} are of two trainings; remove {folder} "
                "and run `make reward`"
            )
        if backbone.fingerprint != config.backbone_sha256:
            raise PictuneError(
                f"{folder / MAPS_FILE}: trained on another CLIP model than {backbone.name}; remove "
                f"{folder} and run `make reward`"
            )
        created = cls.create(
            backbone, config.aspects, generator=torch.Generator(), width=config.width
        )
        load_weights(created.head.state_dict(), weights)
        return created


def read_maps_config(folder: Path) -> MapsConfig:
    """Return the settings of the predictor beside a saved reward.

    Raises:
        PictuneError: the file is missing or broken.
    """
    path = folder / MAPS_FILE
    try:
        return MapsConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise PictuneError(
            f"{path}: not the settings of a predictor of maps ({reason}); remove {folder} and run "
            "`make reward` on labels with marks"
        ) from error


def seen_part(steps: Preprocessing, height: int, width: int) -> Box:
    """Return the part of an image that CLIP sees, in fractions of the image."""
    if steps.shortest_edge is None:
        return 0, 0, 1, 1
    shorter = min(height, width) * steps.crop / steps.shortest_edge
    left, top = ((1 - shorter / side) / 2 for side in (width, height))
    return left, top, 1 - left, 1 - top


def on_image(maps: Tensor, part: Box, height: int, width: int) -> Tensor:
    """Return maps [B, A, S, S] of a part of images at the images' size, [B, A, H, W]."""
    left, top, right, bottom = (
        round(edge * side) for edge, side in zip(part, (width, height) * 2, strict=True)
    )
    size = (bottom - top, right - left)
    inside = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return functional.pad(inside, (left, width - right, top, height - bottom))
