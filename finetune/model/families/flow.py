"""Transformers that predict the velocity of a flow; Stable Diffusion 3 and 3.5, and FLUX.1."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, StableDiffusion3Pipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from data.errors import PictuneError
from finetune.model.family import Family, Sizes, split_pooled, with_pooled
from finetune.model.schedule import FLOW_TIMESTEPS, FlowSchedule

TEXT_LENGTH = 512
"""Tokens that the stock pipelines keep of a prompt that a language model reads."""


class Flow(Family):
    """A transformer that predicts the velocity of a flow."""

    network_name = "transformer"
    sampler_name = "FlowMatchEulerDiscreteScheduler"
    token_side: ClassVar[int] = 1
    """Side of the square of latents that one token of the network's input holds."""

    @property
    @override
    def latent_channels(self) -> int:
        channels: int = self.network.config.in_channels
        return channels // self.token_side**2

    @override
    def _sizes(self) -> Sizes:
        side = self.pipeline.default_sample_size
        return Sizes((side, side), self.token_side)

    @override
    def schedule(self, steps: int, device: torch.device) -> FlowSchedule:
        config = self.pipeline.scheduler.config
        if steps == 1 and config.get("shift_terminal"):
            raise PictuneError("sampler.steps: 1; this model needs 2 or more")
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
        # Larger images get more steps at high noise.
        shift = {"mu": self._mu(steps)} if config.use_dynamic_shifting else {}
        trained = config.num_train_timesteps
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / trained, trained), **shift)
        training_sigmas = scheduler.sigmas[:-1].flip(0)
        scheduler.set_timesteps(steps, sigmas=self._sigmas(steps), **shift)
        return FlowSchedule.of(scheduler, training_sigmas, device)

    def _sigmas(self, steps: int) -> np.ndarray[Any, Any] | None:
        """Return the shares of noise [T] before the shift; None for the scheduler's default."""
        uses_own = self.pipeline.scheduler.config.get("use_flow_sigmas", False)
        return None if uses_own else np.linspace(1, 1 / steps, steps)

    def _mu(self, steps: int) -> float:  # noqa: ARG002
        """Return the shift for images of this size and a sampler of `steps` steps."""
        config = self.pipeline.scheduler.config
        height, width = (side // self.sizes.patch for side in self.latent_size)
        shift: float = calculate_shift(
            height * width,
            config.base_image_seq_len,
            config.max_image_seq_len,
            config.base_shift,
            config.max_shift,
        )
        return shift


class StableDiffusion3(Flow):
    """Stable Diffusion 3 or 3.5 (Esser et al. 2024, arXiv 2403.03206)."""

    pipeline_class = StableDiffusion3Pipeline
    text_encoders: ClassVar[tuple[str, ...]] = (
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
    )
    largest_parts: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder_3")
    optional_encoders: ClassVar[tuple[str, ...]] = ("text_encoder_3",)

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
    def _sigmas(self, steps: int) -> None:
        """Leave the shares of noise to the scheduler."""


class Flux(Flow):
    """FLUX.1 (Black Forest Labs 2024).

    Its network takes squares of 2x2 latents as tokens. The guidance-distilled variants take the
    guidance scale as an input.
    """

    pipeline_class = FluxPipeline
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")
    largest_parts: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder_2")
    token_side = 2

    def __init__(self, pipeline: Any, image_size: int | None = None) -> None:
        """Take the pipeline, see `Family`."""
        super().__init__(pipeline, image_size)
        self.embeds_guidance = bool(self.network.config.guidance_embeds)

    @override
    def stock_arguments(self, guidance: float) -> dict[str, Any]:
        """Return arguments for a call of the stock pipeline, see `Family`."""
        arguments = super().stock_arguments(guidance)
        if not self.embeds_guidance and guidance != 1:
            del arguments["guidance_scale"]
            arguments |= {"true_cfg_scale": guidance, "negative_prompt": ""}
        return arguments

    @override
    def encode(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        tokens, pooled, _ = self.pipeline.encode_prompt(list(prompts), None, device=device)
        return with_pooled(tokens, pooled)

    @override
    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        tokens, pooled = split_pooled(embeddings, self.network.config.pooled_projection_dim)
        height, width = (side // self.token_side for side in latents.shape[-2:])
        scale = latents.new_full((len(latents),), guidance, dtype=torch.float32)
        found: Tensor = self.network(
            hidden_states=packed(latents, self.token_side),
            timestep=timesteps / FLOW_TIMESTEPS,
            guidance=scale if self.embeds_guidance else None,
            pooled_projections=pooled,
            encoder_hidden_states=tokens,
            txt_ids=latents.new_zeros(tokens.shape[1], 3),
            img_ids=places(latents, 1, height, width),
        ).sample
        return unpacked(found, height, self.token_side)


class LanguageFlow(Flow):
    """A flow whose prompts are read by a language model.

    Rows of zeros fill a prompt's embeddings up to `TEXT_LENGTH`; `lengths_of` counts the others.
    """

    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    largest_parts: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder")

    @override
    def encode(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Return embeddings [B, L, D]; one by one, since the states of all layers take memory."""
        found = [self._encode(prompt, device) for prompt in prompts]
        return torch.stack(
            [functional.pad(one, (0, 0, 0, TEXT_LENGTH - len(one))) for one in found]
        )

    @abstractmethod
    def _encode(self, prompt: str, device: torch.device) -> Tensor:
        """Return the embeddings [l, D] of a prompt, as the stock pipeline's."""


def lengths_of(embeddings: Tensor) -> list[int]:
    """Return for each of B prompts the number of rows [B, L, D] that are not padding."""
    found: list[int] = embeddings.any(-1).sum(1).tolist()
    return found


def packed(latents: Tensor, side: int) -> Tensor:
    """Return latents [B, C, h, w] as tokens [B, h w / side^2, C side^2], one for each square."""
    return functional.pixel_unshuffle(latents, side).flatten(2).transpose(1, 2)


def unpacked(tokens: Tensor, rows: int, side: int) -> Tensor:
    """Return the latents of `packed` tokens, which fill `rows` rows of squares."""
    return functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (rows, -1)), side)


def places(latents: Tensor, *sides: int) -> Tensor:
    """Return the positions in a grid of these sides, one row each, with type of the latents."""
    ranges = (torch.arange(side, device=latents.device) for side in sides)
    return torch.cartesian_prod(*ranges).to(latents.dtype)
