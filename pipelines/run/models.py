"""Opens the models of a run on its device.

Importing this module turns off the libraries' progress bars, which appear even if the output is no
terminal.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers.utils import logging as transformers_logging

from data.errors import PictuneError
from data.runs import RunFolder
from finetune.learning.monitors import Monitor
from finetune.learning.reward_fn import RewardFn
from finetune.model.diffusion import DiffusionModel
from pipelines.progress import progress
from pipelines.settings.run import RunConfig
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.model import RewardModel

diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()


def device_of(config: RunConfig) -> torch.device:
    """Return the run's device.

    Raises:
        PictuneError: torch does not know the device, or this machine does not have it.
    """
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise PictuneError(
            f"run.device: {config.device!r} cannot be used here ({reason}); "
            "set it to cpu, or to a device that is there"
        ) from error
    return device


def open_model(config: RunConfig) -> DiffusionModel:
    """Return the diffusion model of the run."""
    return DiffusionModel.from_pretrained(
        config.model,
        device=device_of(config),
        weights=config.weights,
        precision=config.precision,
        image_size=config.image_size,
        offload_encoders=config.offload_encoders,
    )


def open_backbone(folder_or_id: str, config: RunConfig) -> ClipBackbone:
    """Return a frozen CLIP on the run's device."""
    return ClipBackbone.from_pretrained(folder_or_id).to(device_of(config))


def embedding_bar(batches: range) -> Iterable[int]:
    """Yield the numbers of batches and show the progress of encoding images."""
    return progress(batches, "embed", "batch")


def open_reward_model(folder: Path, config: RunConfig) -> RewardModel:
    """Return the trained reward model on the run's device."""
    return RewardModel.from_pretrained(folder).to(device_of(config)).eval()


def open_cache(run: RunFolder) -> EmbeddingCache:
    """Return the cache of embeddings that all runs share."""
    return EmbeddingCache(run.embeddings_dir)


def as_reward_fn(model: RewardModel) -> RewardFn:
    """Return the function from images [B, 3, H, W] in [0, 1] and prompts to rewards [B].

    The rewards have a gradient to the pixels if the images require one.
    """

    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            return model.score(images=images, prompts=prompts)

    return score


def as_monitor(model: RewardModel) -> Monitor:
    """Return a monitor that uses the reward's CLIP and the members of its ensemble.

    It measures the diversity of the CLIP's embeddings, and the members' disagreement.
    """

    def disagreement(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return model.score_with_std(images=images, prompts=prompts)[1]

    return Monitor(model.backbone.image_embedding, disagreement if model.members > 1 else None)
