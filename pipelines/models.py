"""Opens the models of a run on its device."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.diffusion import DiffusionModel, Precision
from finetune.reward_fn import RewardFn
from pipelines.config import RunConfig
from reward.backbone import ClipBackbone
from reward.model import RewardModel


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
    return DiffusionModel.from_pretrained(config.model, device=device_of(config), precision=precision)


def open_backbone(folder_or_id: str, config: RunConfig) -> ClipBackbone:
    """The reward's frozen CLIP on the run's device."""
    return ClipBackbone.from_pretrained(folder_or_id).to(device_of(config))


def open_reward(folder: Path, config: RunConfig) -> RewardFn:
    """The trained reward model as the function that fine-tuning wants: images [B, 3, H, W] in [0, 1] and prompts to [B]."""
    model = RewardModel.from_pretrained(folder).to(device_of(config)).eval()

    @torch.no_grad()
    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.cat([model.score(images=i, prompts=prompts[n * 64 : n * 64 + 64]) for n, i in enumerate(images.split(64))])

    return score
