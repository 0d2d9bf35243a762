"""The reward model: how likely a rater is to call a picture good for its prompt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json
from reward.backbone import ClipBackbone
from reward.head import EnsembleHead

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "head.safetensors"


class RewardModelConfig(BaseModel, frozen=True, extra="forbid"):
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
    members: PositiveInt
    """MLPs in the ensemble."""
    temperature: PositiveFloat
    """Divides the logit before the sigmoid; fitted on validation labels."""
    labels: dict[str, int]
    """How many labels of each kind it learned from."""


class RewardModel(nn.Module):
    """A frozen CLIP backbone and a trained `EnsembleHead`."""

    temperature: Tensor

    def __init__(self, backbone: ClipBackbone, head: EnsembleHead, *, hidden: Sequence[int], members: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.hidden = tuple(hidden)
        self.members = members
        self.labels: dict[str, int] = {}
        """How many labels of each kind it learned from; filled by training."""
        self.register_buffer("temperature", torch.ones(()))

    @classmethod
    def create(cls, backbone: ClipBackbone, *, hidden: Sequence[int], members: int, generator: torch.Generator) -> Self:
        """An untrained model on the backbone's device; `generator` (CPU) draws the head's weights."""
        head = EnsembleHead(backbone.dim, hidden, members, generator=generator)
        return cls(backbone, head, hidden=hidden, members=members).to(backbone.device)

    def score(self, *, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Probability that a rater calls each picture good for its prompt, [B] in (0, 1).

        `images` [B, 3, H, W] in [0, 1], to which it is differentiable; a picture's score does not depend on the others in its batch.
        """
        return torch.sigmoid(self._member_logits_of(images, prompts).mean(0) / self.temperature)

    def score_with_std(self, *, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """`score` and the standard deviation of the members' own probabilities, both [B]; 0 for a single member."""
        logits = self._member_logits_of(images, prompts) / self.temperature
        return torch.sigmoid(logits.mean(0)), torch.sigmoid(logits).std(0, correction=0)

    def logit(self, *, image_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
        """Mean logit of the members before the temperature, [B], from unit-length embeddings [B, D]."""
        return self.member_logits(image_embeddings=image_embeddings, text_embeddings=text_embeddings).mean(0)

    def member_logits(self, *, image_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
        """Logits of every member before the temperature, [members, B], from unit-length embeddings [B, D]."""
        logits: Tensor = self.head(image_embeddings, text_embeddings)
        return logits

    def _member_logits_of(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or len(prompts) != len(images):
            raise ValueError(f"wanted images [B, 3, H, W] and B prompts; got {tuple(images.shape)} and {len(prompts)} prompts")
        image_embeddings = self.backbone.image_embedding(images)
        return self.member_logits(image_embeddings=image_embeddings, text_embeddings=self.backbone.text_embedding(prompts))

    def save_pretrained(self, folder: Path) -> None:
        """Writes `head.safetensors`, then `config.json`; the backbone is named in it, not copied.

        Raises:
            PictuneError: the files cannot be written.
        """
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.head.state_dict().items()}
        with write_atomically(folder / WEIGHTS_FILE) as temporary:
            save_file(weights, temporary)
        config = RewardModelConfig(
            backbone=self.backbone.name,
            backbone_sha256=self.backbone.fingerprint,
            head_sha256=sha256_of(folder / WEIGHTS_FILE),
            embedding_dim=self.backbone.dim,
            hidden=self.hidden,
            members=self.members,
            temperature=float(self.temperature),
            labels=self.labels,
        )
        write_json(folder / CONFIG_FILE, config.model_dump())

    @classmethod
    def from_pretrained(cls, folder: Path, *, backbone: ClipBackbone | None = None) -> Self:
        """Loads what `save_pretrained` wrote, on `backbone` or else on the one that its config names.

        Raises:
            PictuneError: files are missing, broken or of two trainings, or the backbone is not the one it was trained on.
        """
        config = _read_config(folder)
        backbone = backbone or ClipBackbone.from_pretrained(config.backbone)
        if backbone.fingerprint != config.backbone_sha256:
            trained_on = f"{config.backbone} ({config.backbone_sha256[:12]})"
            raise PictuneError(
                f"{folder}: trained on {trained_on}, but {backbone.name} is another CLIP model; give that one, or train again"
            )
        model = cls.create(backbone, hidden=config.hidden, members=config.members, generator=torch.Generator())
        try:
            model.head.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (SafetensorError, RuntimeError) as error:
            raise PictuneError(f"{folder / WEIGHTS_FILE}: does not fit {CONFIG_FILE} beside it; train the reward again") from error
        model.temperature.fill_(config.temperature)
        model.labels = dict(config.labels)
        return model


def _read_config(folder: Path) -> RewardModelConfig:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise PictuneError(f"{folder}: no {name} in this folder; give the folder of a trained reward model, or run `make reward`")
    try:
        config = RewardModelConfig.model_validate_json((folder / CONFIG_FILE).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise PictuneError(f"{folder / CONFIG_FILE}: {where}: {first['msg']}; train the reward again") from error
    if sha256_of(folder / WEIGHTS_FILE) != config.head_sha256:
        raise PictuneError(f"{folder}: {WEIGHTS_FILE} and {CONFIG_FILE} are of two trainings; train the reward again")
    return config
