"""Stable Diffusion 3 and 3.5, and FLUX.1: transformers that predict the velocity of a flow."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, StableDiffusion3Pipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from finetune.model.family import Family, Sizes, split_pooled, with_pooled
from finetune.model.schedule import FLOW_TIMESTEPS, FlowSchedule

_PATCH = 2
"""Side of the square of latent pixels that makes one token."""


class StableDiffusion3(Family):
    """Stable Diffusion 3 or 3.5 (Esser et al. 2024, arXiv 2403.03206)."""

    pipeline_class = StableDiffusion3Pipeline
    network_name = "transformer"
    text_encoders: ClassVar[tuple[str, ...]] = (
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
    )
    largest_parts: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder_3")
    optional_encoders: ClassVar[tuple[str, ...]] = ("text_encoder_3",)
    sampler_name = "FlowMatchEulerDiscreteScheduler"

    def _sizes(self) -> Sizes:
        side, config = self.pipeline.default_sample_size, self.network.config
        return Sizes((side, side), config.patch_size, config.pos_embed_max_size)

    @override
    def encode(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), None, None, device=device, do_classifier_free_guidance=False
        )
        return with_pooled(tokens, pooled)

    @override
    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        tokens, pooled = split_pooled(embeddings, self.network.config.pooled_projection_dim)
        found: Tensor = self.network(
            hidden_states=latents,
            timestep=timesteps,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
        ).sample
        return found

    @override
    def schedule(self, steps: int, device: torch.device) -> FlowSchedule:
        config = self.pipeline.scheduler.config
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
        # Larger images get more steps at high noise.
        shift = {"mu": self._mu(config)} if config.use_dynamic_shifting else {}
        trained = config.num_train_timesteps
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / trained, trained), **shift)
        training_sigmas = scheduler.sigmas[:-1].flip(0)
        scheduler.set_timesteps(steps, sigmas=self._sigmas(steps), **shift)
        return FlowSchedule.of(scheduler, training_sigmas, device)

    def _sigmas(self, steps: int) -> np.ndarray[Any, Any] | None:  # noqa: ARG002
        """Return the shares of noise [T] before the shift; None for the scheduler's default."""
        return None

    def _mu(self, config: Any) -> float:
        height, width = (side // self.sizes.patch for side in self.latent_size)
        shift: float = calculate_shift(
            height * width,
            config.base_image_seq_len,
            config.max_image_seq_len,
            config.base_shift,
            config.max_shift,
        )
        return shift


class Flux(StableDiffusion3):
    """FLUX.1 (Black Forest Labs 2024).

    Its network takes squares of 2x2 latents as tokens. The guidance-distilled variants take the
    guidance scale as an input.
    """

    pipeline_class = FluxPipeline
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")
    largest_parts: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder_2")
    optional_encoders: ClassVar[tuple[str, ...]] = ()

    def __init__(self, pipeline: Any, image_size: int | None = None) -> None:
        """Take the pipeline, see `Family`."""
        super().__init__(pipeline, image_size)
        self.embeds_guidance = bool(self.network.config.guidance_embeds)

    @property
    @override
    def latent_channels(self) -> int:
        channels: int = self.network.config.in_channels
        return channels // _PATCH**2

    @override
    def stock_arguments(self, guidance: float) -> dict[str, Any]:
        """Return arguments for a call of the stock pipeline, see `Family`."""
        arguments = super().stock_arguments(guidance)
        if not self.embeds_guidance and guidance != 1:
            del arguments["guidance_scale"]
            arguments |= {"true_cfg_scale": guidance, "negative_prompt": ""}
        return arguments

    @override
    def _sizes(self) -> Sizes:
        side = self.pipeline.default_sample_size
        return Sizes((side, side), _PATCH)

    @override
    def encode(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        tokens, pooled, _ = self.pipeline.encode_prompt(list(prompts), None, device=device)
        return with_pooled(tokens, pooled)

    @override
    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        tokens, pooled = split_pooled(embeddings, self.network.config.pooled_projection_dim)
        count, _, height, width = latents.shape
        rows, columns = height // _PATCH, width // _PATCH
        sides = (torch.arange(side, device=latents.device) for side in (1, rows, columns))
        places = torch.cartesian_prod(*sides).to(latents.dtype)
        scale = latents.new_full((count,), guidance, dtype=torch.float32)
        found = self.network(
            hidden_states=functional.pixel_unshuffle(latents, _PATCH).flatten(2).transpose(1, 2),
            timestep=timesteps / FLOW_TIMESTEPS,
            guidance=scale if self.embeds_guidance else None,
            pooled_projections=pooled,
            encoder_hidden_states=tokens,
            txt_ids=places.new_zeros(tokens.shape[1], places.shape[1]),
            img_ids=places,
        ).sample
        return functional.pixel_shuffle(found.transpose(1, 2).unflatten(2, (rows, columns)), _PATCH)

    @override
    def _sigmas(self, steps: int) -> np.ndarray[Any, Any] | None:
        uses_own = self.pipeline.scheduler.config.get("use_flow_sigmas", False)
        return None if uses_own else np.linspace(1, 1 / steps, steps)
