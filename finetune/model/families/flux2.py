"""FLUX.2 klein (Black Forest Labs 2026), base and distilled."""

from typing import Any

import torch
from diffusers import Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from finetune.model.families.flow import LanguageFlow, packed, places, unpacked
from finetune.model.family import Sizes
from finetune.model.schedule import FLOW_TIMESTEPS


class Flux2Klein(LanguageFlow):
    """FLUX.2 klein: the tokens of the prompt are states of three layers of Qwen3.

    A latent is a square of 2x2 latents of the VAE, normalized by the statistics that the VAE holds.
    The distilled models ignore the guidance scale.
    """

    pipeline_class = Flux2KleinPipeline
    vae_patch = 2

    def __init__(self, pipeline: Any, image_size: int | None = None) -> None:
        """Take the pipeline, see `Family`."""
        super().__init__(pipeline, image_size)
        self.embeds_guidance = bool(pipeline.config.is_distilled)

    @override
    def _sizes(self) -> Sizes:
        side = self.pipeline.default_sample_size // self.vae_patch
        return Sizes((side, side), 1)

    @override
    def _mu(self, steps: int) -> float:
        height, width = self.latent_size
        shift: float = compute_empirical_mu(height * width, steps)
        return shift

    @override
    def _encode(self, prompt: str, device: torch.device) -> Tensor:
        found: Tensor = self.pipeline.encode_prompt(prompt, device)[0][0]
        return found

    @override
    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        height, width = latents.shape[-2:]
        found: Tensor = self.network(
            hidden_states=packed(latents, self.token_side),
            timestep=timesteps / FLOW_TIMESTEPS,
            encoder_hidden_states=embeddings,
            txt_ids=places(latents, 1, 1, 1, embeddings.shape[1]),
            img_ids=places(latents, 1, height, width, 1),
        ).sample
        return unpacked(found, height, self.token_side)

    @override
    def _latent_scale(self) -> tuple[Tensor, Tensor]:
        vae = self.pipeline.vae
        variance = vae.bn.running_var.float() + vae.config.batch_norm_eps
        return variance.rsqrt().view(-1, 1, 1), vae.bn.running_mean.float().view(-1, 1, 1)

    @override
    def _to_image(self, latents: Tensor) -> Tensor:
        return super()._to_image(functional.pixel_shuffle(latents, self.vae_patch))

    @override
    def _from_image(self, images: Tensor) -> Tensor:
        return functional.pixel_unshuffle(super()._from_image(images), self.vae_patch)
