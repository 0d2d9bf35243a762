"""A Stable Diffusion pipeline as the fine-tuning methods see it.

It predicts with guidance, has a LoRA, and is its own untouched reference: the same weights with the
adapters off, so the reference costs no memory. One path for every `StableDiffusionPipeline` folder
(SD 1.x, SD 2.x and the embedded model) and every `StableDiffusionXLPipeline` folder.

A prompt is one tensor [L, D] for all of them. SDXL (Podell et al. 2023, arXiv 2307.01952) also
gives its UNet a pooled embedding of the whole prompt: it is the last row, filled up with zeros, so
that code that stores, repeats or mixes prompts need not know. The sizes that SDXL is conditioned on
are those of the image that is drawn, not cropped.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from data.errors import PictuneError
from finetune import lora
from finetune.model_folder import Pipeline, ddim_scheduler, open_pipeline
from finetune.processes import SINGLE_PROCESS, Processes
from finetune.settings.model import LoraSettings, Precision, UNetSettings

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_VAE_PIXELS = 4 * 64 * 64
"""Latent pixels that the VAE takes at once: four images of 512x512, one of 1024x1024."""


class DiffusionModel:
    """A frozen Stable Diffusion pipeline with, after `add_lora`, trainable adapters on its UNet."""

    def __init__(self, pipeline: Pipeline, *, precision: Precision = "fp32") -> None:
        """Freeze the pipeline.

        With precision "bf16" or "fp16" the UNet runs under its autocast, while weights stay as
        they are.
        """
        self.pipeline = pipeline
        self.precision: Precision = precision
        self.variant: str | None = None
        """Variant of the weights that it was opened from, in the words of diffusers; None for the
        plain ones."""
        self.processes: Processes = SINGLE_PROCESS
        """The processes that share the work on this model."""
        self.device = torch.device(pipeline.device)
        self._embeddings: dict[str, Tensor] = {}
        self._is_compiled = False
        self._is_xl = isinstance(pipeline, StableDiffusionXLPipeline)
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        if self.device.type == "cpu":
            # On CPU the backward pass of bf16 SDPA is slower than plain products.
            pipeline.unet.set_attn_processor(AttnProcessor())
        pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        precision: Precision = "fp32",
    ) -> "DiffusionModel":
        """Open a diffusers folder or a model of the Hugging Face hub ("owner/name").

        Raises:
            PictuneError: there is no such model, it is not a complete Stable Diffusion 1.x, 2.x or
                XL, or it would draw NaN.
        """
        pipeline, variant = open_pipeline(str(path_or_id), device=device, dtype=dtype)
        model = cls(pipeline, precision=precision)
        model.variant = variant
        return model

    def set_up(
        self, settings: UNetSettings, *, compiler: str | Callable[..., Any] = "inductor"
    ) -> None:
        """Run the UNet in this way from now on; `compiler` is a backend of torch.compile.

        Raises:
            PictuneError: it should be compiled, which cannot be done here.
        """
        unet = self.pipeline.unet
        if settings.gradient_checkpointing:
            for part in (unet, self.pipeline.vae):
                # diffusers' own draws warnings from torch.compile
                part.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False))
        if settings.channels_last:
            unet.to(memory_format=torch.channels_last)
        if settings.compile:
            # Or programs of an earlier model would count against torch's limit for a function.
            torch.compiler.reset()
            _check_compiler(compiler, self.device)
            # A program's numbers must not depend on the shapes that came before.
            unet.compile(backend=compiler, dynamic=False)
            self._is_compiled = True

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of the model's own image size."""
        config = self.pipeline.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that those latents stand for, in pixels."""
        _, height, width = self.latent_shape
        factor = self.pipeline.vae_scale_factor
        return height * factor, width * factor

    def scheduler(self, steps: int) -> DDIMScheduler:
        """Return the pipeline's noise schedule as a DDIM sampler with `steps` steps."""
        scheduler = ddim_scheduler(self.pipeline)
        scheduler.set_timesteps(steps, device=self.device)
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(self.device)
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.to(self.device)
        return scheduler

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return embeddings [B, L, D] as the stock pipeline makes them.

        Each different prompt is encoded once and kept.
        """
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._embeddings]
        if new:
            encoded = self._encode_xl(new) if self._is_xl else self._encode(new)
            self._embeddings.update(zip(new, encoded, strict=True))
        return torch.stack([self._embeddings[prompt] for prompt in prompts])

    def forget_prompts(self) -> None:
        """Drop the embeddings that are kept, for those who draw ever new prompts."""
        self._embeddings.clear()

    def _encode(self, prompts: Sequence[str]) -> Tensor:
        encoded: Tensor = self.pipeline.encode_prompt(list(prompts), self.device, 1, False)[0]
        return encoded

    def _encode_xl(self, prompts: Sequence[str]) -> Tensor:
        """Return the tokens' embeddings and, as the last row, the pooled one."""
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        row = functional.pad(pooled, (0, tokens.shape[-1] - pooled.shape[-1])).unsqueeze(1)
        encoded = torch.cat([tokens, row], dim=1)
        if self.pipeline.config.force_zeros_for_empty_prompt:  # how SDXL learned to draw without
            encoded[[prompt == "" for prompt in prompts]] = 0
        return encoded

    def predict(
        self, latents: Tensor, timesteps: Tensor, cond: Tensor, uncond: Tensor, guidance: float
    ) -> Tensor:
        """Return the UNet's output [B, C, h, w], in float32, with classifier-free guidance.

        Guidance is that of Ho & Salimans 2022, arXiv 2207.12598.

        Args:
            latents: [B, C, h, w].
            timesteps: training timesteps [B]; they may differ within the batch.
            cond: embeddings [B, L, D] of the prompts.
            uncond: embeddings [B, L, D] of the empty prompt.
            guidance: scale; 1 is the plain conditional model and costs half as much.
        """
        if guidance == 1:
            return self._unet(latents, timesteps, cond)
        twice = torch.cat([timesteps, timesteps])
        both = self._unet(torch.cat([latents, latents]), twice, torch.cat([uncond, cond]))
        without, with_prompt = both.chunk(2)
        return without + guidance * (with_prompt - without)

    def _unet(self, latents: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        unet = self.pipeline.unet
        embeddings = embeddings.to(unet.dtype)
        extra = {}
        if self._is_xl:
            pooled = embeddings[:, -1, : self.pipeline.text_encoder_2.config.projection_dim]
            factor = self.pipeline.vae_scale_factor
            height, width = (side * factor for side in latents.shape[-2:])
            # Sizes of the original, of its crop's corner, and of the image that is drawn.
            sizes = embeddings.new_tensor([height, width, 0, 0, height, width])
            time_ids = sizes.expand(len(latents), -1)
            extra["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": time_ids}
            embeddings = embeddings[:, :-1]
        # A rollout runs the very program of training, or the first importance ratio would not be 1.
        with_gradient = torch.is_grad_enabled() or self._is_compiled
        with self.autocast(), torch.set_grad_enabled(with_gradient):
            latents = latents.to(unet.dtype)
            output: Tensor = unet(latents, timesteps.contiguous(), embeddings, **extra).sample
        return output.float() if torch.is_grad_enabled() else output.detach().float()

    def autocast(self) -> torch.autocast:
        """Return the context in which arithmetic is in the model's precision."""
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    @property
    def differentiable_images(self) -> int:
        """Number of images to decode with gradient at a time, which bounds the memory."""
        return max(1, _VAE_PIXELS // 4 // math.prod(self.latent_shape[1:]))

    def decode(self, latents: Tensor, *, batch: int = 16) -> Tensor:
        """Return images [N, 3, H, W] in [0, 1], float32, of latents [N, C, h, w].

        They have a gradient where the latents have one.
        """
        vae = self.pipeline.vae
        scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
        batch = min(batch, max(1, _VAE_PIXELS // latents[0, 0].numel()))
        images = torch.cat([vae.decode(part).sample.float() for part in scaled.split(batch)])
        return (images / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_images(self, images: Tensor, *, batch: int = 16) -> Tensor:
        """Return latents [N, C, h, w] of images [N, 3, H, W] in [0, 1].

        They are the mode of the VAE's posterior.
        """
        vae, factor = self.pipeline.vae, self.pipeline.vae_scale_factor
        batch = min(batch, max(1, _VAE_PIXELS * factor**2 // images[0, 0].numel()))
        scaled = ((2 * part - 1).to(self.device, vae.dtype) for part in images.split(batch))
        latents = [vae.encode(part).latent_dist.mode().float() for part in scaled]
        return torch.cat(latents) * float(vae.config.scaling_factor)

    def add_lora(self, settings: LoraSettings, *, generator: torch.Generator) -> None:
        """Add trainable adapters to the UNet, see `finetune.lora.add_lora`."""
        lora.add_lora(self.pipeline.unet, settings, generator=generator)
        self._leave_casts_to_autocast()

    def lora_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name; none before `add_lora`."""
        return lora.lora_parameters(self.pipeline.unet)

    def lora_state(self) -> dict[str, Tensor]:
        """Return a copy of the adapters' weights by name, on the CPU."""
        return lora.lora_state(self.pipeline.unet)

    def set_lora_state(self, state: dict[str, Tensor]) -> None:
        """Put weights from `lora_state` of the same settings in place."""
        lora.set_lora_state(self.pipeline.unet, state)

    def with_lora(self, state: dict[str, Tensor]) -> AbstractContextManager[None]:
        """Have weights from `lora_state` inside the block, and the present ones after it."""
        return lora.with_lora(self.pipeline.unet, state)

    def save_lora(self, folder: str | Path) -> Path:
        """Write the adapters in diffusers' own format; return the file's path."""
        return lora.save_lora(self.pipeline, folder)

    def load_lora(self, folder: str | Path) -> None:
        """Put a saved LoRA in place of the present one, if any, for drawing."""
        lora.load_lora(self.pipeline.unet, folder)
        self._leave_casts_to_autocast()

    def adapters_off(self) -> AbstractContextManager[None]:
        """Make the model the reference model inside the block: the pretrained weights."""
        return lora.adapters_off(self.pipeline.unet)

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """Scale the adapters' update inside the block: 0 is the base, 1 the LoRA as trained."""
        return lora.at_strength(self.pipeline.unet, strength)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Run the UNet without autocast inside the block, in the precision of its weights."""
        before, self.precision = self.precision, "fp32"
        self._leave_casts_to_autocast()
        try:
            yield
        finally:
            self.precision = before
            self._leave_casts_to_autocast()

    def _leave_casts_to_autocast(self) -> None:
        """Keep peft from casting inputs up to fp32 where autocast casts them down again.

        The numbers are the same, and it is quicker.
        """
        for layer in lora.lora_layers(self.pipeline.unet):
            layer.cast_input_dtype_enabled = self.precision == "fp32"


def _check_compiler(compiler: str | Callable[..., Any], device: torch.device) -> None:
    """Refuse, in one line, what would fail with pages of text at the first step."""
    try:
        torch.compile(torch.neg, backend=compiler)(torch.zeros(1, device=device))
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        advice = "install a C++ compiler (g++), or set it to false"
        raise PictuneError(
            f"finetune.compile: torch.compile does not work here ({reason}); {advice}"
        ) from error
