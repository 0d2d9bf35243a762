"""The reward model: how likely a rater is to call a picture good for its prompt."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json
from data.weights import check_finite
from reward.backbone import ClipBackbone
from reward.calibration import with_slips
from reward.head import EnsembleHead

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "head.safetensors"
BACKBONE_FILE = "backbone.safetensors"
"""The trained weights of the backbone, where `tune_last` trained any."""


class RewardModelConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What `config.json` of a saved reward model says."""

    backbone: str
    """Folder or hub name of the CLIP model."""
    backbone_sha256: str
    """`ClipBackbone.fingerprint` of the backbone that the head was trained on."""
    head_sha256: str
    """SHA-256 of `head.safetensors`, so that files of two trainings are never mixed."""
    embedding_dim: PositiveInt
    """Length of the backbone's embeddings."""
    hidden: tuple[PositiveInt, ...]
    """Widths of the head's hidden layers."""
    tune_last: NonNegativeInt = 0
    """Blocks at the end of the backbone's vision tower whose weights are in `backbone.safetensors`."""
    lora_rank: NonNegativeInt = 0
    """Rank of the updates that are in `backbone.safetensors` in the place of weights; 0 where there are none."""
    tuned_sha256: str | None = None
    """SHA-256 of `backbone.safetensors`; None where the backbone is as it was."""
    members: PositiveInt
    """MLPs in the ensemble."""
    temperature: PositiveFloat
    """Divides the logit before the sigmoid; fitted on validation labels."""
    slip: float = Field(default=0.0, ge=0, lt=0.5)
    """How often raters answer the wrong way round; fitted on validation labels where the settings asked for it."""
    labels: dict[str, int]
    """How many labels of each kind it learned from."""


class RewardModel(nn.Module):
    """A CLIP backbone, frozen or with trained last blocks, and a trained `EnsembleHead`."""

    temperature: Tensor
    slip: Tensor

    def __init__(
        self, backbone: ClipBackbone, head: EnsembleHead, *, hidden: Sequence[int], members: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.hidden = tuple(hidden)
        self.members = members
        self.labels: dict[str, int] = {}
        """How many labels of each kind it learned from; filled by training."""
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("slip", torch.zeros(()))

    @classmethod
    def create(
        cls,
        backbone: ClipBackbone,
        *,
        hidden: Sequence[int],
        members: int,
        generator: torch.Generator,
        tune_last: int = 0,
        lora_rank: int = 0,
    ) -> Self:
        """An untrained model on the backbone's device; `generator` (CPU) draws the head's weights.

        With `tune_last` it has its own copy of the last blocks of the vision tower, or of updates of rank `lora_rank` to them; `backbone`
        stays as it is.

        Raises:
            PictuneError: the vision tower has fewer than `tune_last` blocks.
        """
        head = EnsembleHead(backbone.dim, hidden, members, generator=generator)
        backbone = (
            backbone.tunable(tune_last, lora_rank=lora_rank, generator=generator)
            if tune_last
            else backbone
        )
        return cls(backbone, head, hidden=hidden, members=members).to(backbone.device)

    def score(
        self, *, images: Tensor, prompts: Sequence[str], reduce: Literal["mean", "lcb"] = "mean"
    ) -> Tensor:
        """Probability that a rater calls each picture good for its prompt, [B] in (0, 1).

        `images` [B, 3, H, W] in [0, 1], to which it is differentiable; a picture's score does not depend on the others in its batch. With
        `reduce = "lcb"` it is a lower bound: the probability at the mean logit of the members less its standard deviation, which is harder
        to gain by fooling some of them.
        """
        logits = self.member_logits(**self._embed(images, prompts))
        mean = logits.mean(0)
        if reduce == "lcb" and self.members > 1:
            mean = mean - logits.std(0, correction=0)
        return with_slips(torch.sigmoid(mean / self.temperature), self.slip)

    def score_with_std(self, *, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """`score` and the standard deviation of the members' own probabilities, both [B]; 0 for a single member."""
        return self.embeddings_score_with_std(**self._embed(images, prompts))

    def embeddings_score_with_std(
        self, *, image_embeddings: Tensor, text_embeddings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`score_with_std` from unit-length embeddings [B, D]."""
        logits = (
            self.member_logits(image_embeddings=image_embeddings, text_embeddings=text_embeddings)
            / self.temperature
        )
        score = _checked(with_slips(torch.sigmoid(logits.mean(0)), self.slip))
        return score, with_slips(torch.sigmoid(logits), self.slip).std(0, correction=0)

    def logit(self, *, image_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
        """Mean logit of the members before the temperature, [B], from unit-length embeddings [B, D]."""
        return self.member_logits(
            image_embeddings=image_embeddings, text_embeddings=text_embeddings
        ).mean(0)

    def member_logits(self, *, image_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
        """Logits of every member before the temperature, [members, B], from unit-length embeddings [B, D]."""
        logits: Tensor = self.head(image_embeddings, text_embeddings)
        return logits

    def _embed(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        if images.ndim != 4 or images.shape[1] != 3 or len(prompts) != len(images):
            raise ValueError(
                f"wanted images [B, 3, H, W] and B prompts; got {tuple(images.shape)} and {len(prompts)} prompts"
            )
        return {
            "image_embeddings": self.backbone.image_embedding(images),
            "text_embeddings": self.backbone.text_embedding(prompts),
        }

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `head.safetensors`, `backbone.safetensors` if blocks of it were trained, then `config.json`.

        The rest of the backbone is named in `config.json`, not copied.

        Raises:
            PictuneError: the files cannot be written.
        """
        folder = Path(folder)
        _save(self.head.state_dict(), folder / WEIGHTS_FILE)
        tuned = self.backbone.tuned_weights()
        if tuned:
            _save(tuned, folder / BACKBONE_FILE)
        config = RewardModelConfig(
            backbone=self.backbone.name,
            backbone_sha256=self.backbone.fingerprint,
            head_sha256=sha256_of(folder / WEIGHTS_FILE),
            embedding_dim=self.backbone.dim,
            hidden=self.hidden,
            tune_last=self.backbone.tuned_blocks,
            lora_rank=self.backbone.lora_rank,
            tuned_sha256=sha256_of(folder / BACKBONE_FILE) if tuned else None,
            members=self.members,
            temperature=float(self.temperature),
            slip=float(self.slip),
            labels=self.labels,
        )
        write_json(folder / CONFIG_FILE, config.model_dump(exclude_none=True))
        if not tuned:
            (folder / BACKBONE_FILE).unlink(missing_ok=True)  # of an earlier training

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, backbone: ClipBackbone | None = None) -> Self:
        """Loads what `save_pretrained` wrote, on `backbone` or else on the one that its config names.

        Raises:
            PictuneError: files are missing, broken or of two trainings, weights are no numbers, or the backbone is not the
                one it was trained on.
        """
        folder = Path(folder)
        config = _read_config(folder)
        backbone = backbone or ClipBackbone.from_pretrained(config.backbone)
        if backbone.fingerprint != config.backbone_sha256:
            trained_on = f"{config.backbone} ({config.backbone_sha256[:12]})"
            raise PictuneError(
                f"{folder}: trained on {trained_on}, but {backbone.name} is another CLIP model; give that one, or train again"
            )
        shape = {
            "members": config.members,
            "tune_last": config.tune_last,
            "lora_rank": config.lora_rank,
        }
        model = cls.create(backbone, hidden=config.hidden, generator=torch.Generator(), **shape)
        _load(model.head.state_dict(), folder / WEIGHTS_FILE)
        if config.tune_last:
            _load(model.backbone.tuned_weights(), folder / BACKBONE_FILE)
        model.temperature.fill_(config.temperature)
        model.slip.fill_(config.slip)
        model.labels = dict(config.labels)
        return model


def _checked(scores: Tensor) -> Tensor:
    """Refuses what nobody may take for a score.

    Raises:
        PictuneError: a score is no number, as where numbers inside the model grew too large.
    """
    if not scores.isfinite().all():
        raise PictuneError(
            "reward model: its score of an image is no number; train it with a lower reward.learning_rate"
        )
    return scores


def _save(weights: Mapping[str, Tensor], path: Path) -> None:
    with write_atomically(path) as temporary:
        save_file(
            {name: weight.detach().cpu().contiguous() for name, weight in weights.items()},
            temporary,
        )


@torch.no_grad()
def _load(weights: Mapping[str, Tensor], path: Path) -> None:
    """Copies the file's tensors into `weights`, which must have the same names and shapes."""
    try:
        saved = load_file(path)
    except SafetensorError as error:
        raise PictuneError(
            f"{path}: not a whole safetensors file ({error}); remove {path.parent} and run `make reward`"
        ) from error
    if {name: each.shape for name, each in saved.items()} != {
        name: each.shape for name, each in weights.items()
    }:
        raise PictuneError(
            f"{path}: does not fit {CONFIG_FILE} beside it; remove {path.parent} and run `make reward`"
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
            f"{folder / CONFIG_FILE}: {where}: {first['msg']}; remove {folder} and run `make reward`"
        ) from error
    weights = {WEIGHTS_FILE: config.head_sha256} | (
        {BACKBONE_FILE: config.tuned_sha256} if config.tune_last else {}
    )
    for name, wanted in weights.items():
        _check_is_there(folder, name)
        if sha256_of(folder / name) != wanted:
            raise PictuneError(
                f"{folder}: {name} and {CONFIG_FILE} are of two trainings; remove {folder} and run `make reward`"
            )
    return config


def _check_is_there(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise PictuneError(
            f"{folder}: no {name} in this folder; give the folder of a trained reward model, or run `make reward`"
        )
