"""Families of models: the part that is particular to the pipelines of one architecture.

`finetune.model.diffusion.DiffusionModel` asks its family, and nothing else knows which one it is.
The families are in `family_sd.py` (SD 1.x, SD 2.x and SDXL) and `family_flow.py` (SD3 and FLUX).

A prompt is one tensor [L, D] for all of them. Where a network also takes a pooled embedding of the
whole prompt, it is the last row or, where it is wider than D, rows, filled up with zeros, so that
code that stores, repeats or mixes prompts need not know.
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
    """Sizes of latents that a network takes."""

    own: tuple[int, int]
    """Height and width for the model's own image size."""
    patch: int
    """The sides must be multiples of this number."""
    most_patches: int | None = None
    """Largest number of patches on a side; None without a bound."""


class Family(ABC):
    """A pipeline of one architecture, opened."""

    pipeline_class: ClassVar[type[DiffusionPipeline]]
    network_name: ClassVar[str]
    """Name of the denoising network among the pipeline's parts."""
    text_encoders: ClassVar[tuple[str, ...]]
    """Names of the text encoders; each has a tokenizer of the same number."""
    largest_parts: ClassVar[tuple[str, ...]]
    """Names of the parts with most of the weights: the network, and T5 where there is one."""
    spared: ClassVar[tuple[str, ...]] = ()
    """Those of the text encoders that a folder may leave out to save memory."""
    embeds_guidance: bool = False
    """Whether the network takes the guidance scale as an input, and so needs no second pass."""
    sampler_name: ClassVar[str]
    """Sampler of diffusers that steps as our sampler of eta 0."""
    variant: str | None = None
    """Variant of the weights in the words of diffusers; None for the plain weights."""

    def __init__(self, pipeline: Any, image_size: int | None = None) -> None:
        """Take the pipeline; its images have the model's own size, or this side in pixels."""
        self.pipeline = pipeline
        self.sizes = self._sizes()
        self.latent_size = self.sizes.own
        if image_size is not None:
            step, most = pipeline.vae_scale_factor * self.sizes.patch, self.sizes.most_patches
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
            side = image_size // pipeline.vae_scale_factor
            self.latent_size = (side, side)

    @classmethod
    def left_out(cls, about: Mapping[str, Any]) -> list[str]:
        """Return the text encoders that a folder's `model_index.json` leaves out."""
        return [name for name in cls.spared if about.get(name) in (None, [None, None])]

    @property
    def network(self) -> Any:
        """The denoising network."""
        return getattr(self.pipeline, self.network_name)

    @property
    def latent_channels(self) -> int:
        """Number of channels of the latents that the network takes."""
        channels: int = self.network.config.in_channels
        return channels

    @abstractmethod
    def _sizes(self) -> Sizes:
        """Return the sizes of latents that the network takes."""

    def check(self, source: str) -> None:  # noqa: B027
        """Refuse a pipeline that would draw NaN, in words that begin with `source`."""

    def suit_device(self, device: torch.device) -> None:  # noqa: B027
        """Choose the arithmetic that is quickest on the device."""

    def stock_arguments(self, guidance: float) -> dict[str, Any]:
        """Return arguments of the stock pipeline that draw with this guidance and image size."""
        arguments: dict[str, Any] = {"guidance_scale": guidance}
        if self.latent_size != self.sizes.own:
            height, width = (side * self.pipeline.vae_scale_factor for side in self.latent_size)
            arguments |= {"height": height, "width": width}
        return arguments

    @abstractmethod
    def encode(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Return embeddings [B, L, D] as the stock pipeline makes them."""

    @abstractmethod
    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        """Return the network's output [B, C, h, w] for timesteps [B] and embeddings [B, L, D].

        `guidance` is for a network that takes the scale as an input.
        """

    @abstractmethod
    def schedule(self, steps: int, device: torch.device) -> NoiseSchedule:
        """Return the pipeline's noise schedule with a sampler of `steps` steps."""


def with_pooled(tokens: Tensor, pooled: Tensor) -> Tensor:
    """Return tokens' embeddings [B, L, D] with the pooled one [B, P] as last rows."""
    width = tokens.shape[-1]
    rows = functional.pad(pooled, (0, -pooled.shape[-1] % width)).unflatten(1, (-1, width))
    return torch.cat([tokens, rows.to(tokens.dtype)], dim=1)


def split_pooled(embeddings: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return tokens' embeddings [B, L, D] and the pooled one [B, width] of `with_pooled`."""
    rows = math.ceil(width / embeddings.shape[-1])
    return embeddings[:, :-rows], embeddings[:, -rows:].flatten(1)[:, :width]


def tokenizer_of(text_encoder: str) -> str:
    """Return the name of a text encoder's tokenizer among a pipeline's parts."""
    return text_encoder.replace("text_encoder", "tokenizer")


def modules_of(pipeline: Any) -> dict[str, nn.Module]:
    """Return the networks among a pipeline's parts, by name."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
