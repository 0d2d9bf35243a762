"""Opens the models of a run on its device."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from data.errors import PictuneError
from data.files import sha256_of
from data.runs import RunFolder
from finetune.diffusion import DiffusionModel, Precision
from finetune.monitors import Monitor
from finetune.reward_fn import RewardFn
from pipelines.config import RunConfig
from reward.backbone import ClipBackbone
from reward.cache import EmbeddingCache
from reward.model import CONFIG_FILE, RewardModel

REWARD_METRICS = "metrics.json"
"""The last file that the training of a reward writes."""


def device_of(config: RunConfig) -> torch.device:
    """The run's device.

    Raises:
        PictuneError: torch does not know it, or this machine does not have it.
    """
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise PictuneError(
            f"run.device: {config.device!r} cannot be used here ({reason}); set it to cpu, or to a device that is there"
        ) from error
    return device


def open_model(config: RunConfig, *, precision: Precision = "fp32") -> DiffusionModel:
    """The diffusion model of the run."""
    return DiffusionModel.from_pretrained(
        config.model, device=device_of(config), precision=precision
    )


def open_backbone(folder_or_id: str, config: RunConfig) -> ClipBackbone:
    """The reward's frozen CLIP on the run's device."""
    return ClipBackbone.from_pretrained(folder_or_id).to(device_of(config))


def embedding_bar(batches: range) -> Iterable[int]:
    """Shows how far the encoding of pictures is."""
    bar: Iterable[int] = tqdm(batches, desc="embed", unit="batch", disable=None)
    return bar


def open_reward_model(folder: Path, config: RunConfig) -> RewardModel:
    """The trained reward model on the run's device."""
    return RewardModel.from_pretrained(folder).to(device_of(config)).eval()


def reward_hash(folder: Path) -> str:
    """Tells a reward that was trained in `folder` from another.

    Raises:
        PictuneError: there is none.
    """
    if not all((folder / name).exists() for name in (REWARD_METRICS, CONFIG_FILE)):
        raise PictuneError(f"{folder}: no trained reward model; run `make reward` first")
    return sha256_of(folder / CONFIG_FILE)


def open_cache(run: RunFolder) -> EmbeddingCache:
    """The embeddings that all runs share."""
    return EmbeddingCache(run.embeddings_dir)


def open_reward(folder: Path, config: RunConfig) -> RewardFn:
    """The trained reward model as the function that fine-tuning wants."""
    return as_reward_fn(open_reward_model(folder, config))


def as_reward_fn(model: RewardModel) -> RewardFn:
    """From images [B, 3, H, W] in [0, 1] and prompts to rewards [B]."""

    @torch.no_grad()
    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.cat(
            [
                model.score(images=i, prompts=prompts[n * 64 : n * 64 + 64])
                for n, i in enumerate(images.split(64))
            ]
        )

    return score


def as_monitor(model: RewardModel) -> Monitor:
    """What fine-tuning watches beside the reward: the spread of the backbone's embeddings, and of the ensemble's members if it has some."""

    def disagreement(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return model.score_with_std(images=images, prompts=prompts)[1]

    return Monitor(model.backbone.image_embedding, disagreement if model.members > 1 else None)
