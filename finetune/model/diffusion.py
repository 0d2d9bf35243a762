"""The interface of a text-to-image pipeline for the fine-tuning methods.

The model predicts with guidance and has an adapter. With the adapter off, the same weights are the
reference model, which costs no further memory. Code for one architecture alone is in its
`finetune.model.family.Family`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from data.errors import PictuneError
from finetune.model.adapter import Adapter, adapter_class, steps_share_of
from finetune.model.family import Family, modules_of
from finetune.model.mix import Mix
from finetune.model.model_folder import Weights, open_family
from finetune.model.processes import SINGLE_PROCESS, Processes
from finetune.model.schedule import NoiseSchedule
from finetune.settings.adapter_kinds import ADAPTERS, kind_of
from finetune.settings.model import AdapterSettings, Arithmetic, NetworkSettings, Precision

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_VAE_PIXELS = 4 * 64 * 64
"""Latent pixels per VAE call: four images of 512x512, or one image of 1024x1024."""


class DiffusionModel:
    """A frozen pipeline with, after `add_adapter`, a trainable adapter on its network."""

    def __init__(self, family: Family, *, precision: Precision = "fp32") -> None:
        """Freeze the pipeline; with precision "bf16" or "fp16" the network runs under autocast."""
        self.family = family
        self.pipeline = family.pipeline
        self.processes: Processes = SINGLE_PROCESS
        """The processes of the training."""
        self._adapter: Adapter | Mix | None = None
        self.sampling_guidance = 1.0
        """Scale of guidance of the training's sampler, for `predict_denoising`."""
        self.device = torch.device(self.network.device)
        self.precision = arithmetic(precision, self.device)
        self._embeddings: dict[str, Tensor] = {}
        self._is_compiled = False
        for part in modules_of(self.pipeline).values():
            part.requires_grad_(False).eval()
        family.suit_device(self.device)
        self.pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        device: str | torch.device = "cpu",
        weights: Weights = "fp32",
        precision: Precision = "fp32",
        image_size: int | None = None,
        offload_encoders: bool = False,
    ) -> "DiffusionModel":
        """Open a diffusers folder or a model of the hub, as `model_folder.open_family` does.

        Raises:
            PictuneError: as `model_folder.open_family`.
        """
        family = open_family(
            str(path_or_id),
            device=device,
            weights=weights,
            image_size=image_size,
            offload_encoders=offload_encoders,
        )
        return cls(family, precision=precision)

    def set_up(
        self, settings: NetworkSettings, *, compiler: str | Callable[..., Any] = "inductor"
    ) -> None:
        """Apply the settings to the network; `compiler` is a backend of torch.compile.

        Raises:
            PictuneError: `settings.compile` is on, but torch.compile does not work here.
        """
        network = self.network
        if settings.channels_last:
            network.to(memory_format=torch.channels_last)
        if settings.compile:
            # Otherwise programs of an earlier model count against torch's limit per function.
            torch.compiler.reset()
            _check_compiler(compiler, self.device)
            # A program's results must not depend on earlier shapes.
            network.compile(backend=compiler, dynamic=False)
            self._is_compiled = True

    def checkpoint_gradients(self) -> None:
        """Turn on gradient checkpointing, which recomputes activations in the backward pass."""
        for part in (self.network, self.pipeline.vae):
            if part._supports_gradient_checkpointing:  # noqa: SLF001 # not Qwen-Image's VAE
                # the function of diffusers causes warnings from torch.compile
                part.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False))

    @property
    def network(self) -> Any:
        """The denoising network: a UNet or a transformer."""
        return self.family.network

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents."""
        return self.family.latent_channels, *self.family.latent_size

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        _, height, width = self.latent_shape
        factor = self.family.pixels_per_latent
        return height * factor, width * factor

    def schedule(self, steps: int) -> NoiseSchedule:
        """Return the pipeline's noise schedule with a sampler of `steps` steps."""
        return self.family.schedule(steps, self.device)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return embeddings [B, L, D]; each distinct prompt is encoded once and cached."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._embeddings]
        if new:
            with self._encoders_here():
                encoded = self.family.encode(new, self.device)
            self._embeddings.update(zip(new, encoded, strict=True))
        return torch.stack([self._embeddings[prompt] for prompt in prompts])

    @contextmanager
    def _encoders_here(self) -> Iterator[None]:
        """Move text encoders that wait on another device to the model's inside the block."""
        found = (getattr(self.pipeline, name, None) for name in self.family.text_encoders)
        away = [one for one in found if one is not None and one.device != self.device]
        places = [one.device for one in away]
        try:
            for one in away:
                one.to(self.device)
            yield
        finally:
            for one, place in zip(away, places, strict=True):
                one.to(place)

    def forget_prompts(self) -> None:
        """Clear the cache of embeddings, which grows with every new prompt."""
        self._embeddings.clear()

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        cond: Tensor,
        uncond: Tensor,
        guidance: float,
        *,
        choices: Tensor | None = None,
    ) -> Tensor:
        """Return the network's output [B, C, h, w], in float32, with guidance.

        Guidance is classifier-free (Ho & Salimans 2022, arXiv 2207.12598), unless the network has
        it built in. A scale of 1 is the conditional model and needs one pass.

        Args:
            latents: [B, C, h, w].
            timesteps: of the schedule, [B]; they may differ within the batch.
            cond: embeddings [B, L, D] of the prompts.
            uncond: embeddings [B, L, D] of the empty prompt; not used with scale 1.
            guidance: the scale.
            choices: of a mix of one adapter a step, see `Mix.predicted`.
        """
        mix, given = self._adapter, (latents, timesteps, cond, uncond)
        if not isinstance(mix, Mix):
            return self._corrected(mix, given, guidance)

        def alone(part: Adapter | None, rows: Tensor | slice) -> Tensor:
            with mix.alone(part):
                return self._corrected(part, tuple(one[rows] for one in given), guidance)

        return mix.predicted(alone, latents, choices)

    def _corrected(
        self, adapter: Adapter | None, given: tuple[Tensor, ...], guidance: float
    ) -> Tensor:
        """Return the network's guided output, with the adapter's correction of it."""
        latents, timesteps, cond, uncond = given
        if guidance == 1 or self.family.embeds_guidance:
            output = self._output(latents, timesteps, cond, guidance)
        else:
            twice, prompts = torch.cat([timesteps, timesteps]), torch.cat([uncond, cond])
            both = self._output(torch.cat([latents, latents]), twice, prompts, 1.0)
            without, with_prompt = both.chunk(2)
            output = self.family.guided(without, with_prompt, guidance)
        if adapter is None:
            return output
        return adapter.corrected(output, latents, timesteps, cond)

    def predict_denoising(self, latents: Tensor, timesteps: Tensor, cond: Tensor) -> Tensor:
        """Return the output [B, C, h, w] that a denoising loss compares with its target.

        It has no guidance, except for an adapter that corrects the guided prediction: then it has
        the guidance of the training's sampler. The arguments are as in `predict`.
        """
        if self._adapter is None or not self._adapter.corrects_guided:
            return self.predict(latents, timesteps, cond, cond, 1.0)
        uncond = self.encode_prompts([""]).expand_as(cond)
        return self.predict(latents, timesteps, cond, uncond, self.sampling_guidance)

    def _output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        dtype = self.network.dtype
        # Rollout and training must run the same program, so that the first importance ratio is 1.
        with_gradient = torch.is_grad_enabled() or self._is_compiled
        with self.autocast(), torch.set_grad_enabled(with_gradient):
            output = self.family.output(
                latents.to(dtype), timesteps, embeddings.to(dtype), guidance
            )
        return output.float() if torch.is_grad_enabled() else output.detach().float()

    def autocast(self) -> torch.autocast:
        """Return the autocast context of the model's precision."""
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    @property
    def differentiable_images(self) -> int:
        """Number of images per decoder call with gradient; bounds the memory."""
        return max(1, _VAE_PIXELS // 4 // self._vae_pixels(self.latent_shape))

    def _vae_pixels(self, shape: Sequence[int]) -> int:
        """Return the number of pixels that an image's latents [..., h, w] have in the VAE."""
        return math.prod(shape[-2:]) * self.family.vae_patch**2

    def decode(self, latents: Tensor, *, batch: int = 16) -> Tensor:
        """Return images [N, 3, H, W] in [0, 1] of latents [N, C, h, w], with their gradient."""
        batch = min(batch, max(1, _VAE_PIXELS // self._vae_pixels(latents.shape)))
        images = torch.cat([self.family.decode(part).float() for part in latents.split(batch)])
        return (images / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_images(self, images: Tensor, *, batch: int = 16) -> Tensor:
        """Return latents [N, C, h, w], modes of the posterior, of images [N, 3, H, W] in [0, 1]."""
        vae, factor = self.pipeline.vae, self.pipeline.vae_scale_factor
        batch = min(batch, max(1, _VAE_PIXELS * factor**2 // images[0, 0].numel()))
        scaled = ((2 * part - 1).to(self.device, vae.dtype) for part in images.split(batch))
        return torch.cat([self.family.encode_images(part) for part in scaled])

    @property
    def adapter(self) -> Adapter:
        """Trainable weights beside the frozen network.

        Raises:
            ValueError: the model has no adapter; call `add_adapter` or `load_adapter` first.
        """
        if self._adapter is None or isinstance(self._adapter, Mix):
            raise ValueError("the model has no adapter; call add_adapter or load_adapter first")
        return self._adapter

    def adapter_off(self) -> AbstractContextManager[None]:
        """Use the pretrained weights alone (the reference model) inside the block."""
        return nullcontext() if self._adapter is None else self._adapter.off()

    def add_adapter(self, settings: AdapterSettings, *, generator: torch.Generator) -> None:
        """Add a trainable adapter to the network, see `finetune.model.adapter.Adapter.add`."""
        kind = adapter_class(ADAPTERS[settings.kind])
        self._adapter = kind.add(self.family, settings, generator=generator)
        self._adapter.steps_share = settings.steps_share
        self._leave_casts_to_autocast()

    def load_adapter(self, folder: str | Path) -> None:
        """Replace the current adapter, if any, by a saved one, for drawing."""
        (self._adapter,) = self._loaded([Path(folder)])
        self._leave_casts_to_autocast()

    def load_mix(self, weights: Mapping[Path, float], *, one_a_step: bool = False) -> None:
        """Replace the current adapter by a mix of saved ones, see `finetune.model.mix`.

        `weights` are by folder, at least 0; with one adapter a step their sum is at most 1.
        """
        parts = self._loaded(list(weights))
        weighted = list(zip(parts, weights.values(), strict=True))
        self._adapter = Mix(weighted, one_a_step=one_a_step)
        self._leave_casts_to_autocast()

    def _loaded(self, folders: Sequence[Path]) -> list[Adapter]:
        """Return saved adapters, added to the network in place of the current one."""
        kinds = [adapter_class(kind_of(folder)) for folder in folders]
        if self._adapter is not None:
            self._adapter.remove()
        self._adapter, found = None, list[Adapter]()
        with ExitStack() as failed:
            for kind, folder in zip(kinds, folders, strict=True):
                found.append(kind.load(self.family, folder))
                failed.callback(found[-1].remove)
                found[-1].steps_share = steps_share_of(folder)
            failed.pop_all()
        return found

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """Scale the update of the adapter, or of the mix, inside the block; 0 gives the base."""
        return nullcontext() if self._adapter is None else self._adapter.at_strength(strength)

    def at_step(self, step: int, steps: int) -> AbstractContextManager[None]:
        """Draw a step, counted from 0, inside the block: as the base where the adapter rests."""
        return nullcontext() if self._adapter is None else self._adapter.at_step(step, steps)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Run the network without autocast inside the block, in the precision of its weights."""
        before, self.precision = self.precision, "fp32"
        self._leave_casts_to_autocast()
        try:
            yield
        finally:
            self.precision = before
            self._leave_casts_to_autocast()

    def _leave_casts_to_autocast(self) -> None:
        if self._adapter is not None:
            self._adapter.leave_casts_to_autocast(self.precision != "fp32")


def arithmetic(precision: Precision, device: torch.device) -> Arithmetic:
    """Return the precision; for "auto", bf16 if the device computes in bf16, else fp32.

    GPUs since Ampere and CPUs with AVX-512 BF16 or AMX do; on other devices bf16 is many times
    slower.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        has_it = bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return "bf16" if has_it else "fp32"


def _check_compiler(compiler: str | Callable[..., Any], device: torch.device) -> None:
    """Refuse in one line if torch.compile would fail at the first step."""
    try:
        torch.compile(torch.neg, backend=compiler)(torch.zeros(1, device=device))
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        advice = "install a C++ compiler (g++), or set it to false"
        raise PictuneError(
            f"compile = true: torch.compile does not work here ({reason}); {advice}"
        ) from error
