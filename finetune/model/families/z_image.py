"""Z-Image and Z-Image-Turbo (Tongyi Lab 2025, arXiv 2511.22699)."""

from typing import Any

import torch
from diffusers import ZImagePipeline
from torch import Tensor
from typing_extensions import override

from finetune.model.families.flow import LanguageFlow, lengths_of
from finetune.model.family import Sizes
from finetune.model.schedule import FLOW_TIMESTEPS

_SIDE = 1024
"""Side in pixels of the images that the stock pipeline draws; no folder names it."""


class ZImage(LanguageFlow):
    """Z-Image: one transformer for the tokens of the prompt (Qwen3) and of the image.

    Its network takes the share of image as the time, and returns image - noise. The number of
    prompt tokens is read from the device once per call of the network.
    """

    pipeline_class = ZImagePipeline

    @override
    def _sizes(self) -> Sizes:
        side, patch = _SIDE // self.pipeline.vae_scale_factor, self.network.config.all_patch_size[0]
        return Sizes((side, side), patch, self.network.config.axes_lens[1])

    @override
    def stock_arguments(self, guidance: float) -> dict[str, Any]:
        """Return arguments for a call of the stock pipeline, whose scale 0 is no guidance."""
        return super().stock_arguments(guidance) | {"guidance_scale": guidance - 1}

    @override
    def _encode(self, prompt: str, device: torch.device) -> Tensor:
        found: list[Tensor] = self.pipeline.encode_prompt([prompt], device, False)[0]
        return found[0]

    @override
    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        rows = lengths_of(embeddings)
        found: list[Tensor] = self.network(
            list(latents.unsqueeze(2)),
            1 - timesteps / FLOW_TIMESTEPS,
            [one[:length] for one, length in zip(embeddings, rows, strict=True)],
        ).sample
        return -torch.stack(found).squeeze(2)
