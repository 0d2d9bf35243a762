"""The reward model: the probability that a rater calls an image good for its prompt."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json
from data.weights import check_finite
from reward.clip.backbone import ClipBackbone
from reward.files import CONFIG_FILE, MAPS_FILE, WEIGHTS_FILE
from reward.maps.head import MapHead

ROWS = 16_384
"""Rows per pass through the head's layers, which bounds the memory."""


class RewardModelConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Content of `config.json` of a saved reward model."""

    backbone: str
    """Folder or hub name of the CLIP model."""
    backbone_sha256: str
    """`ClipBackbone.fingerprint` of the head's backbone."""
    head_sha256: str
    """SHA-256 of `head.safetensors`, so that files of two trainings are not mixed."""
    embedding_dim: PositiveInt
    """Length of the backbone's embeddings."""
    hidden: tuple[PositiveInt, ...]
    """Widths of the head's hidden layers."""
    members: PositiveInt
    """MLPs in the ensemble."""
    temperature: PositiveFloat
    """Divides the logit before the sigmoid; fitted on validation labels."""
    labels: dict[str, int]
    """Number of training labels of each kind."""
    map_aspects: tuple[str, ...] | None = None
    """Aspects of the maps, in their order; None without a predictor of maps."""
    maps_sha256: str | None = None
    """SHA-256 of `maps.safetensors`."""


class EnsembleHead(nn.Module):
    """`members` MLPs with ReLU on features of image and prompt, plus a slope times cosine.

    All members are computed in one batched product, so k members cost little more than one.
    Differs from Lee et al.'s head (two layers of 1,024 on the embeddings of image and text) in:
    1. the image's pooled patches are also inputs, since the embedding drops details that captions
       seldom mention; 2. the product of the embeddings and their cosine are also inputs, since an
       MLP learns products slowly and not at all for unseen prompts; 3. the image's features are
       standardized over the labeled images, and the other inputs are scaled to about unit size; 4.
       the cosine is added with a slope of its own, so that training starts near the CLIP score and
       new prompts fall back on it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        dim: int,
        features: int,
        hidden: Sequence[int],
        members: int,
        *,
        generator: torch.Generator,
    ) -> None:
        """Make an untrained head.

        Args:
            dim: length D of the embeddings.
            features: length F of an image's features; the first D are its embedding.
            hidden: widths of the hidden layers.
            members: MLPs in the ensemble.
            generator: on the CPU; draws the initial weights.
        """
        super().__init__()
        self.dim, self.hidden, self.members = dim, tuple(hidden), members
        widths = [features + 2 * dim + 1, *hidden, 1]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            bound = 1 / math.sqrt(inputs)
            self.weights.append(
                _uniform((members, inputs, outputs), math.sqrt(3) * bound, generator)
            )
            self.biases.append(_uniform((members, 1, outputs), bound, generator))
        self.slope = nn.Parameter(torch.ones(members, 1))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    @torch.no_grad()
    def center(self, image: Tensor, text: Tensor) -> None:
        """Standardize by these image features [B, F], and shift the logits to a mean of 0.

        At 0 the sigmoid has its largest gradient. `text` are the prompts' embeddings [B, D].
        """
        self.mean.copy_(image.mean(0))
        std = image.std(0, correction=0)
        self.std.copy_(torch.where(std > 1e-4, std, 1.0))  # a constant feature
        self.biases[-1] -= self(image, text).mean(1)[:, None, None]

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Return logits [members, B] of image features [B, F] and prompt embeddings [B, D]."""
        if len(image) > ROWS:
            parts = zip(image.split(ROWS), text.split(ROWS), strict=True)
            return torch.cat([self(*part) for part in parts], dim=1)
        product = image[:, : self.dim] * text
        cosine = math.sqrt(self.dim) * product.sum(-1)
        # Entries of a unit vector are about 1/sqrt(D), entries of a product 1/D, and the cosine
        # of two random vectors about 1/sqrt(D).
        inputs = torch.cat(
            [
                (image - self.mean) / self.std,
                math.sqrt(self.dim) * text,
                self.dim * product,
                cosine[:, None],
            ],
            dim=-1,
        )
        hidden = inputs.expand(self.members, -1, -1)  # [members, B, inputs]
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = hidden if layer == last else torch.relu(hidden)
        return hidden.squeeze(-1) + self.slope * cosine


class RewardModel(nn.Module):
    """A frozen CLIP backbone and a trained `EnsembleHead`.

    | method | takes | returns |
    |---|---|---|
    | `score` | images, prompts | calibrated probabilities [B] |
    | `score_with_std` | images, prompts | the same, and the spread of the members [B] |
    | `score_features_with_std` | features [B, F], embeddings [B, D] | the same |
    | `member_logits` | the same two | logits of each member [members, B], uncalibrated |

    Features of images and embeddings of prompts, of unit length, come from `backbone`.
    """

    temperature: Tensor

    def __init__(self, backbone: ClipBackbone, head: EnsembleHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.members = head.members
        self.labels: dict[str, int] = {}
        """Number of training labels of each kind; filled by training."""
        self.maps: MapHead | None = None
        """The predictor of maps; None where no label had marks."""
        self.register_buffer("temperature", torch.ones(()))

    @classmethod
    def create(
        cls,
        backbone: ClipBackbone,
        *,
        hidden: Sequence[int],
        members: int,
        generator: torch.Generator,
    ) -> Self:
        """Return an untrained model on the backbone's device.

        `generator` (CPU) draws the head's weights.
        """
        head = EnsembleHead(
            backbone.dim, backbone.feature_dim, hidden, members, generator=generator
        )
        return cls(backbone, head).to(backbone.device)

    def score(
        self, *, images: Tensor, prompts: Sequence[str], reduce: Literal["mean", "lcb"] = "mean"
    ) -> Tensor:
        """Return the probability that a rater calls each image good for its prompt, [B] in (0, 1).

        `images` are [B, 3, H, W] in [0, 1]; the score is differentiable to them, and does not
        depend on the other images of the batch. With `reduce = "lcb"` it is a lower confidence
        bound: the probability at the members' mean logit minus their standard deviation, which is
        harder to exploit.
        """
        logits = self.member_logits(**self._embed(images, prompts))
        mean = logits.mean(0)
        if reduce == "lcb" and self.members > 1:
            mean = mean - logits.std(0, correction=0)
        return torch.sigmoid(mean / self.temperature)

    def score_with_std(self, *, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return `score` and the standard deviation of the members' probabilities, [B] each.

        The deviation of a single member is 0.

        Raises:
            PictuneError: a score is not a number.
        """
        return self.score_features_with_std(**self._embed(images, prompts))

    def score_features_with_std(
        self, *, image_features: Tensor, text_embeddings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the same as `score_with_std`, from features [B, F] and embeddings [B, D].

        Raises:
            PictuneError: a score is not a number.
        """
        logits = self.member_logits(image_features=image_features, text_embeddings=text_embeddings)
        logits = logits / self.temperature
        score = _check_scores(torch.sigmoid(logits.mean(0)))
        return score, torch.sigmoid(logits).std(0, correction=0)

    def member_logits(self, *, image_features: Tensor, text_embeddings: Tensor) -> Tensor:
        """Return the logits of every member, [members, B], before the calibration."""
        logits: Tensor = self.head(image_features, text_embeddings)
        return logits

    def _embed(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        if images.ndim != 4 or images.shape[1] != 3 or len(prompts) != len(images):
            raise ValueError(
                f"wanted images [B, 3, H, W] and B prompts; got {tuple(images.shape)} and "
                f"{len(prompts)} prompts"
            )
        return {
            "image_features": self.backbone.image_features(images),
            "text_embeddings": self.backbone.text_embedding(prompts),
        }

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the weights of the head, then `config.json`, which names the backbone.

        Raises:
            PictuneError: the files cannot be written.
        """
        folder = Path(folder)
        _save(self.head.state_dict(), folder / WEIGHTS_FILE)
        if self.maps is not None:
            _save(self.maps.state_dict(), folder / MAPS_FILE)
        config = RewardModelConfig(
            backbone=self.backbone.name,
            backbone_sha256=self.backbone.fingerprint,
            head_sha256=sha256_of(folder / WEIGHTS_FILE),
            embedding_dim=self.backbone.dim,
            hidden=self.head.hidden,
            members=self.members,
            temperature=float(self.temperature),
            labels=self.labels,
            map_aspects=None if self.maps is None else self.maps.aspects,
            maps_sha256=None if self.maps is None else sha256_of(folder / MAPS_FILE),
        )
        write_json(folder / CONFIG_FILE, config.model_dump(exclude_none=True))

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, backbone: ClipBackbone | None = None) -> Self:
        """Load a saved model with `backbone`, or else with the backbone that its config names.

        Raises:
            PictuneError: files are missing, broken or of two trainings, weights are not numbers, or
                the model was trained on another backbone.
        """
        folder = Path(folder)
        config = _read_config(folder)
        backbone = backbone or ClipBackbone.from_pretrained(config.backbone)
        if backbone.fingerprint != config.backbone_sha256:
            trained_on = f"{config.backbone} ({config.backbone_sha256[:12]})"
            raise PictuneError(
                f"{folder}: trained on {trained_on}, but {backbone.name} is another CLIP model; "
                "give that one, or train again"
            )
        model = cls.create(
            backbone,
            hidden=config.hidden,
            members=config.members,
            generator=torch.Generator(),
        )
        _load(model.head.state_dict(), folder / WEIGHTS_FILE)
        model.temperature.fill_(config.temperature)
        model.labels = dict(config.labels)
        if config.map_aspects is not None:
            model.maps = MapHead(backbone, config.map_aspects, generator=torch.Generator())
            _load(model.maps.state_dict(), folder / MAPS_FILE)
            model.maps.to(backbone.device)
        return model


def _check_scores(scores: Tensor) -> Tensor:
    """Return `scores`; refuse NaN, which shows that numbers in the model overflowed."""
    if not scores.isfinite().all():
        raise PictuneError(
            "reward model: its score of an image is no number; train it with a lower "
            "reward.learning_rate"
        )
    return scores


def _save(weights: Mapping[str, Tensor], path: Path) -> None:
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    with write_atomically(path) as temporary:
        save_file(tensors, temporary)


@torch.no_grad()
def _load(weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy the file's tensors into `weights`, which must have the same names and shapes."""
    try:
        saved = load_file(path)
    except SafetensorError as error:
        raise PictuneError(
            f"{path}: not a whole safetensors file ({error}); remove {path.parent} and run "
            "`make reward`"
        ) from error
    shapes, wanted = (
        {name: each.shape for name, each in tensors.items()} for tensors in (saved, weights)
    )
    if shapes != wanted:
        raise PictuneError(
            f"{path}: does not fit {CONFIG_FILE} beside it; remove {path.parent} and run "
            "`make reward`"
        )
    check_finite(saved, str(path))
    for name, weight in weights.items():
        weight.copy_(saved[name])


def _read_config(folder: Path) -> RewardModelConfig:
    _check_is_there(folder, CONFIG_FILE)
    try:
        config = RewardModelConfig.model_validate_json((folder / CONFIG_FILE).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise PictuneError(
            f"{folder / CONFIG_FILE}: {where}: {first['msg']}; remove {folder} and run "
            "`make reward`"
        ) from error
    for name, digest in ((WEIGHTS_FILE, config.head_sha256), (MAPS_FILE, config.maps_sha256)):
        if digest is None:
            continue
        _check_is_there(folder, name)
        if sha256_of(folder / name) != digest:
            raise PictuneError(
                f"{folder}: {name} and {CONFIG_FILE} are of two trainings; remove {folder} and run "
                "`make reward`"
            )
    return config


def _check_is_there(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise PictuneError(
            f"{folder}: no {name} in this folder; give the folder of a trained reward model, or "
            "run `make reward`"
        )


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
