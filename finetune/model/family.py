"""Families of models: the code for one architecture's pipelines.

`finetune.model.diffusion.DiffusionModel` calls its family; no other code depends on the
architecture. The families are in `finetune/model/families/`.

For all families a prompt is one tensor [L, D]. A pooled embedding of the whole prompt, if the
network takes one, fills the last row, or several rows if it is wider than D, padded with zeros. So
code that stores, repeats or mixes prompts is the same for all families.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.nn import functional

from data.errors import PictuneError
from finetune.model.schedule import NoiseSchedule


class Sizes(NamedTuple):
    """Latent sizes that a network accepts."""

    own: tuple[int, int]
    """Height and width of the latents at the model's default image size."""
    patch: int
    """Height and width must be multiples of this number."""
    most_patches: int | None = None
    """Largest number of patches per side; None without a limit."""


class Family(ABC):
    """An open pipeline of one architecture."""

    pipeline_class: ClassVar[type[DiffusionPipeline]]
    network_name: ClassVar[str]
    """Name of the denoising network among the pipeline's parts."""
    text_encoders: ClassVar[tuple[str, ...]]
    """Names of the text encoders; `tokenizer_of` names their tokenizers."""
    largest_parts: ClassVar[tuple[str, ...]]
    """Names of the largest parts: the network, and T5 if the pipeline has it."""
    optional_encoders: ClassVar[tuple[str, ...]] = ()
    """Names of the text encoders that a folder may omit to save memory."""
    embeds_guidance: bool = False
    """Whether the network has guidance built in, with the scale as an input or fixed, and so needs
    no second pass."""
    vae_patch: ClassVar[int] = 1
    """Side of the square of the VAE's latents that makes one latent of the network."""
    sampler_name: ClassVar[str]
    """Sampler of diffusers that equals our sampler at eta 0."""
    variant: str | None = None
    """Variant of the weights as diffusers names it; None for the default weights."""

    def __init__(self, pipeline: Any, image_size: int | None = None) -> None:
        """Take the pipeline; `image_size` is the side in pixels (default: the model's).

        Raises:
            PictuneError: the network cannot draw images of this size.
        """
        self.pipeline = pipeline
        self.sizes = self._sizes()
        self.latent_size = self.sizes.own
        if image_size is not None:
            step, most = self.pixels_per_latent * self.sizes.patch, self.sizes.most_patches
            if image_size % step:
                raise PictuneError(
                    f"run.image_size: {image_size} pixels cannot be drawn by this model; "
                    f"give a multiple of {step}"
                )
            if most is not None and image_size > most * step:
                raise PictuneError(
                    f"run.image_size: {image_size} pixels are more than this model can draw; "
                    f"give at most {most * step}"
                )
            side = image_size // self.pixels_per_latent
            self.latent_size = (side, side)

    @classmethod
    def left_out(cls, about: Mapping[str, Any]) -> list[str]:
        """Return the text encoders that a folder's `model_index.json` omits."""
        return [name for name in cls.optional_encoders if about.get(name) in (None, [None, None])]

    @property
    def network(self) -> Any:
        """The denoising network."""
        return getattr(self.pipeline, self.network_name)

    @property
    def latent_channels(self) -> int:
        """Number of channels of the latents that the network takes."""
        channels: int = self.network.config.in_channels
        return channels

    @property
    def vae_channels(self) -> int:
        """Number of channels of the latents that the VAE gives."""
        channels: int = self.pipeline.vae.config.latent_channels
        return channels * self.vae_patch**2

    @property
    def pixels_per_latent(self) -> int:
        """Side in pixels of the square that one latent stands for."""
        factor: int = self.pipeline.vae_scale_factor
        return factor * self.vae_patch

    @abstractmethod
    def _sizes(self) -> Sizes:
        """Return the latent sizes that the network accepts."""

    def check(self, source: str) -> None:  # noqa: B027
        """Refuse a pipeline that would draw NaN.

        Raises:
            PictuneError: the pipeline would draw NaN. The message begins with `source`.
        """

    def suit_device(self, device: torch.device) -> None:  # noqa: B027
        """Choose the fastest arithmetic of the device."""

    def stock_arguments(self, guidance: float) -> dict[str, Any]:
        """Return arguments for a call of the stock pipeline with this guidance and image size."""
        arguments: dict[str, Any] = {"guidance_scale": guidance}
        if self.latent_size != self.sizes.own:
            height, width = (side * self.pixels_per_latent for side in self.latent_size)
            arguments |= {"height": height, "width": width}
        return arguments

    @abstractmethod
    def encode(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Return embeddings [B, L, D] equal to the stock pipeline's."""

    @abstractmethod
    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        """Return the network's output [B, C, h, w] for latents [B, C, h, w].

        Timesteps are [B] and embeddings [B, L, D]. `guidance` is the scale, for a network that
        takes it as an input.
        """

    def guided(self, without: Tensor, with_prompt: Tensor, guidance: float) -> Tensor:
        """Return the guided output [B, C, h, w] of outputs without and with the prompt."""
        return without + guidance * (with_prompt - without)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images [B, 3, H, W] in [-1, 1] of latents [B, C, h, w]."""
        factor, shift = self._latent_scale()
        return self._to_image((latents / factor + shift).to(self.pipeline.vae.dtype))

    def encode_images(self, images: Tensor) -> Tensor:
        """Return latents [B, C, h, w] (the posterior's modes) of images [B, 3, H, W] in [-1, 1]."""
        factor, shift = self._latent_scale()
        latents: Tensor = (self._from_image(images).float() - shift) * factor
        return latents

    def _latent_scale(self) -> tuple[Any, Any]:
        """Return factor and shift: the network's latents are factor * (latents - shift)."""
        config = self.pipeline.vae.config
        return float(config.scaling_factor), config.get("shift_factor") or 0.0

    def _to_image(self, latents: Tensor) -> Tensor:
        image: Tensor = self.pipeline.vae.decode(latents).sample
        return image

    def _from_image(self, images: Tensor) -> Tensor:
        latents: Tensor = self.pipeline.vae.encode(images).latent_dist.mode()
        return latents

    @abstractmethod
    def schedule(self, steps: int, device: torch.device) -> NoiseSchedule:
        """Return the pipeline's noise schedule with a sampler of `steps` steps."""


def with_pooled(tokens: Tensor, pooled: Tensor) -> Tensor:
    """Append the pooled embeddings [B, P] to the tokens' embeddings [B, L, D] as last rows."""
    width = tokens.shape[-1]
    rows = functional.pad(pooled, (0, -pooled.shape[-1] % width)).unflatten(1, (-1, width))
    return torch.cat([tokens, rows.to(tokens.dtype)], dim=1)


def split_pooled(embeddings: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Split the output of `with_pooled` into token embeddings [B, L, D] and pooled [B, width]."""
    rows = math.ceil(width / embeddings.shape[-1])
    return embeddings[:, :-rows], embeddings[:, -rows:].flatten(1)[:, :width]


def tokenizer_of(text_encoder: str) -> str:
    """Return the name of a text encoder's tokenizer among a pipeline's parts."""
    return text_encoder.replace("text_encoder", "tokenizer")


def modules_of(pipeline: Any) -> dict[str, nn.Module]:
    """Return the networks among a pipeline's parts, by name."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
