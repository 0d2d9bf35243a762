"""Stable Diffusion 1.x and 2.x, the embedded model, and Stable Diffusion XL: UNets."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from typing_extensions import override

from data.errors import PictuneError
from finetune.model.family import Family, Sizes, split_pooled, with_pooled
from finetune.model.schedule import DiffusionSchedule

DDIM = "DDIMScheduler"
"""Name of the sampler in diffusers."""


class StableDiffusion(Family):
    """Stable Diffusion 1.x or 2.x (Rombach et al. 2022, arXiv 2112.10752)."""

    pipeline_class = StableDiffusionPipeline
    network_name = "unet"
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    largest_parts: ClassVar[tuple[str, ...]] = ("unet",)
    sampler_name = DDIM

    def _sizes(self) -> Sizes:
        size, levels = self.network.config.sample_size, self.network.config.block_out_channels
        height, width = (size, size) if isinstance(size, int) else size
        return Sizes((height, width), 1 << (len(levels) - 1))

    @override
    def check(self, source: str) -> None:
        """Refuse noise prediction with a schedule that ends in pure noise."""
        scheduler = self._scheduler()
        if scheduler.config.prediction_type == "epsilon" and scheduler.alphas_cumprod[-1] == 0:
            raise PictuneError(
                f"{source}: its schedule ends in pure noise (rescale_betas_zero_snr), from which "
                "predicted noise (epsilon) leads nowhere; set rescale_betas_zero_snr to false in "
                "its scheduler_config.json, or give a model with v_prediction"
            )

    @override
    def suit_device(self, device: torch.device) -> None:
        if device.type == "cpu":
            # On CPUs the backward pass of bf16 SDPA is slower than plain matrix products.
            self.network.set_attn_processor(AttnProcessor())

    @override
    def encode(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        encoded: Tensor = self.pipeline.encode_prompt(list(prompts), device, 1, False)[0]
        return encoded

    @override
    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        return self._output(latents, timesteps, embeddings)

    @override
    def schedule(self, steps: int, device: torch.device) -> DiffusionSchedule:
        scheduler = self._scheduler()
        most = scheduler.config.num_train_timesteps
        if steps > most:
            raise PictuneError(f"sampler.steps: {steps}; this model has {most}, give no more")
        scheduler.set_timesteps(steps)
        return DiffusionSchedule.of(scheduler, device)

    def _output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, **extra: Any
    ) -> Tensor:
        found: Tensor = self.network(latents, timesteps.contiguous(), embeddings, **extra).sample
        return found

    def _scheduler(self) -> DDIMScheduler:
        """Return the pipeline's sampler as DDIM without clipping, since latents are not bounded."""
        config = self.pipeline.scheduler.config
        scheduler: DDIMScheduler = DDIMScheduler.from_config(
            config, clip_sample=False, thresholding=False
        )
        return scheduler


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952), drawing whole images."""

    pipeline_class = StableDiffusionXLPipeline
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")

    @override
    def encode(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts),
            device=device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        encoded = with_pooled(tokens, pooled)
        if self.pipeline.config.force_zeros_for_empty_prompt:  # as SDXL was trained
            encoded[[prompt == "" for prompt in prompts]] = 0
        return encoded

    @override
    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        width = self.pipeline.text_encoder_2.config.projection_dim
        tokens, pooled = split_pooled(embeddings, width)
        factor = self.pipeline.vae_scale_factor
        height, width = (side * factor for side in latents.shape[-2:])
        # Original size, corner of the crop, and size of the drawn image.
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=embeddings.dtype)
        sizes = sizes.to(embeddings.device, non_blocking=True)
        added = {"text_embeds": pooled, "time_ids": sizes.expand(len(latents), -1)}
        return self._output(latents, timesteps, tokens, added_cond_kwargs=added)
