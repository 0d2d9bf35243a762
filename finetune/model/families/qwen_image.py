"""Qwen-Image (Wu et al. 2025, arXiv 2508.02324)."""

from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from finetune.model.families.flow import TEXT_LENGTH, LanguageFlow, lengths_of, packed, unpacked
from finetune.model.schedule import FLOW_TIMESTEPS

_EMPTY = " "
"""Prompt of the pass without a prompt, as its authors draw."""


class QwenImage(LanguageFlow):
    """Qwen-Image: two streams, for the tokens of the prompt (Qwen2.5-VL) and of the image.

    Its VAE is one of videos, with one frame here. The number of prompt tokens is read from the
    device once per call of the network.
    """

    pipeline_class = QwenImagePipeline
    token_side = 2

    @override
    def stock_arguments(self, guidance: float) -> dict[str, Any]:
        """Return arguments for a call of the stock pipeline, see `Family`."""
        arguments = super().stock_arguments(guidance)
        arguments["true_cfg_scale"] = arguments.pop("guidance_scale")
        return arguments | ({} if guidance == 1 else {"negative_prompt": _EMPTY})

    @property
    @override
    def vae_channels(self) -> int:
        channels: int = self.pipeline.vae.config.z_dim
        return channels

    @override
    def _encode(self, prompt: str, device: torch.device) -> Tensor:
        encode = self.pipeline.encode_prompt
        found: Tensor = encode(prompt or _EMPTY, device, max_sequence_length=TEXT_LENGTH)[0][0]
        return found

    @override
    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        lengths, (height, width) = lengths_of(embeddings), latents.shape[-2:]
        tokens = embeddings[:, : max(lengths)]
        sides = (1, height // self.token_side, width // self.token_side)
        found: Tensor = self.network(
            hidden_states=packed(latents, self.token_side),
            timestep=timesteps / FLOW_TIMESTEPS,
            encoder_hidden_states=tokens,
            encoder_hidden_states_mask=None if len(set(lengths)) == 1 else tokens.any(-1),
            img_shapes=[[sides]] * len(latents),
        ).sample
        return unpacked(found, sides[1], self.token_side)

    @override
    def guided(self, without: Tensor, with_prompt: Tensor, guidance: float) -> Tensor:
        """Return the guided output, with each token as long as in the output with the prompt."""
        found = super().guided(without, with_prompt, guidance)
        wanted, own = (
            functional.pixel_unshuffle(one, self.token_side).norm(dim=1, keepdim=True)
            for one in (with_prompt, found)
        )
        return found * functional.interpolate(wanted / own, scale_factor=self.token_side)

    @override
    def _latent_scale(self) -> tuple[Tensor, Tensor]:
        vae = self.pipeline.vae
        mean, deviation = (
            torch.tensor(one).view(-1, 1, 1).to(vae.device, non_blocking=True)
            for one in (vae.config.latents_mean, vae.config.latents_std)
        )
        return 1 / deviation, mean

    @override
    def _to_image(self, latents: Tensor) -> Tensor:
        return super()._to_image(latents.unsqueeze(2)).squeeze(2)

    @override
    def _from_image(self, images: Tensor) -> Tensor:
        return super()._from_image(images.unsqueeze(2)).squeeze(2)
