"""A Stable Diffusion pipeline as the fine-tuning methods see it: noise prediction with guidance, LoRA, and the untouched reference.

One path for every `StableDiffusionPipeline` folder (SD 1.x, SD 2.x and the embedded model) and every `StableDiffusionXLPipeline`
folder. The reference model is the same weights with the adapters off, so it costs no memory.

A prompt is one tensor [L, D] for all of them. SDXL (Podell et al. 2023, arXiv 2307.01952) also gives its UNet a pooled embedding of the
whole prompt: it is the last row, filled up with zeros, so that whoever stores, repeats or mixes prompts need not know. The sizes that
SDXL is told are those of the image that is drawn, not cropped.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import BaseModel, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from data.errors import PictuneError
from data.files import read_json, write_atomically
from data.weights import check_finite

LORA_FILE = "pytorch_lora_weights.safetensors"
Precision = Literal["fp32", "bf16", "fp16"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_ADAPTER = "default"
Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline
_PIPELINES: dict[str, type[Pipeline]] = {
    one.__name__: one for one in (StableDiffusionPipeline, StableDiffusionXLPipeline)
}
_NO_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
BASE = "base"
"""What training starts from unless the settings name a LoRA."""
_VAE_PIXELS = 4 * 64 * 64
"""Latent pixels that the VAE takes at once: four images of 512x512, one of 1024x1024."""
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")


class LoraSettings(BaseModel, frozen=True, extra="forbid"):
    """Which low-rank matrices are trained (Hu et al. 2021, arXiv 2106.09685)."""

    rank: PositiveInt = 8
    """Rank of each update; DPOK's paper uses 4. A higher rank learns faster and drifts sooner."""
    alpha: PositiveFloat | None = None
    """The update is scaled by alpha / rank; left out, alpha is the rank, so that the scale is 1."""
    feed_forward: bool = True
    """Also adapt the transformer blocks' feed-forward layers; DPOK's paper adapts attention alone."""
    start: str = BASE
    """What training starts from: "base", the pretrained model, or the folder of a LoRA of this rank and these layers. In a run's settings
    also a method, as "rwl": the LoRA that it gave in this run. The KL is to the pretrained model either way."""


class UNetSettings(BaseModel, frozen=True, extra="forbid"):
    """How the UNet is run: other time and memory, the same results but for rounding."""

    gradient_checkpointing: bool = False
    """Compute the UNet's blocks again in the backward pass rather than keep what they computed: less memory, one more forward pass."""
    channels_last: bool = False
    """Keep the channels of a pixel side by side in memory, which suits the convolutions of GPUs in half precision."""
    compile: bool = False
    """Compile the UNet by torch.compile: minutes at the start and for each number of pictures at a time that is new, quicker steps then."""


class DiffusionModel:
    """A frozen Stable Diffusion pipeline with, after `add_lora`, trainable adapters on its UNet."""

    def __init__(self, pipeline: Pipeline, *, precision: Precision = "fp32") -> None:
        """Freezes the pipeline; with precision "bf16" or "fp16" the UNet runs under its autocast, while weights stay as they are."""
        self.pipeline = pipeline
        self.precision: Precision = precision
        self.variant: str | None = None
        """The variant of the weights that it was opened from, in the words of diffusers; None for the plain ones."""
        self.device = torch.device(pipeline.device)
        self._embeddings: dict[str, Tensor] = {}
        self._is_compiled = False
        self._is_xl = isinstance(pipeline, StableDiffusionXLPipeline)
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        if self.device.type == "cpu":
            pipeline.unet.set_attn_processor(
                AttnProcessor()
            )  # on CPU the backward pass of bf16 SDPA is slower than plain products
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
        """Opens a diffusers folder or a model of the Hugging Face hub ("owner/name"); only safetensors weights are read.

        Raises:
            PictuneError: there is no such model, it is not a complete Stable Diffusion 1.x, 2.x or XL, or it would draw NaN.
        """
        source = str(path_or_id)
        variant = _check_source(source)
        try:
            kind = _PIPELINES[
                _check_kind(source, DiffusionPipeline.load_config(source)["_class_name"])
            ]
            extra = _NO_CHECKER if kind is StableDiffusionPipeline else {}
            pipeline = kind.from_pretrained(
                source, dtype=dtype, variant=variant, use_safetensors=True, **extra
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise PictuneError(
                f"{source}: could not be opened as a Stable Diffusion model ({reason}); check the folder"
            ) from error
        unet, vae = pipeline.unet.config, pipeline.vae.config
        if unet.in_channels != vae.latent_channels:
            raise PictuneError(
                f"{source}: its UNet takes {unet.in_channels} channels and its VAE gives {vae.latent_channels}, as models that fill in or "
                "edit pictures do; give a model that draws from text alone"
            )
        model = cls(pipeline.to(device), precision=precision)
        model.variant = variant
        _check_numbers(source, model)
        return model

    def set_up(
        self, settings: UNetSettings, *, compiler: str | Callable[..., Any] = "inductor"
    ) -> None:
        """Runs the UNet in this way from now on; `compiler` is a backend of torch.compile.

        Raises:
            PictuneError: it should be compiled, which cannot be done here.
        """
        unet = self.pipeline.unet
        if settings.gradient_checkpointing:
            unet.enable_gradient_checkpointing(
                partial(checkpoint, use_reentrant=False)
            )  # diffusers' own draws warnings from torch.compile
        if settings.channels_last:
            unet.to(memory_format=torch.channels_last)
        if settings.compile:
            torch.compiler.reset()  # or programs of a model before this one would count against torch's limit for a function
            _check_compiler(compiler, self.device)
            unet.compile(
                backend=compiler, dynamic=False
            )  # a program's numbers shall not depend on the shapes that came before
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
        return height * self.pipeline.vae_scale_factor, width * self.pipeline.vae_scale_factor

    def scheduler(self, steps: int) -> DDIMScheduler:
        """The pipeline's noise schedule as a DDIM sampler (Song et al. 2020, arXiv 2010.02502) with `steps` steps.

        Latents are not bounded, so samples are never clipped, as in the stock pipeline.
        """
        scheduler = DDIMScheduler.from_config(
            self.pipeline.scheduler.config, clip_sample=False, thresholding=False
        )
        scheduler.set_timesteps(steps, device=self.device)
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(self.device)
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.to(self.device)
        return scheduler

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings [B, L, D] as the stock pipeline makes them; each different prompt is encoded once and kept."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._embeddings]
        if new:
            encoded = (
                self._encode_xl(new)
                if self._is_xl
                else self.pipeline.encode_prompt(new, self.device, 1, False)[0]
            )
            self._embeddings.update(zip(new, encoded, strict=True))
        return torch.stack([self._embeddings[prompt] for prompt in prompts])

    def _encode_xl(self, prompts: Sequence[str]) -> Tensor:
        """The tokens' embeddings and, as the last row, the pooled one."""
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        encoded = torch.cat(
            [tokens, functional.pad(pooled, (0, tokens.shape[-1] - pooled.shape[-1])).unsqueeze(1)],
            dim=1,
        )
        if (
            self.pipeline.config.force_zeros_for_empty_prompt
        ):  # how SDXL was taught to draw without a prompt
            encoded[[prompt == "" for prompt in prompts]] = 0
        return encoded

    def predict(
        self, latents: Tensor, timesteps: Tensor, cond: Tensor, uncond: Tensor, guidance: float
    ) -> Tensor:
        """The UNet's output [B, C, h, w] in float32 with classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).

        Args:
            latents: [B, C, h, w].
            timesteps: training timesteps [B]; they may differ within the batch.
            cond: embeddings [B, L, D] of the prompts.
            uncond: embeddings [B, L, D] of the empty prompt.
            guidance: scale; 1 is the plain conditional model and costs half as much.
        """
        if guidance == 1:
            return self._unet(latents, timesteps, cond)
        both = self._unet(
            torch.cat([latents, latents]),
            torch.cat([timesteps, timesteps]),
            torch.cat([uncond, cond]),
        )
        without, with_prompt = both.chunk(2)
        return without + guidance * (with_prompt - without)

    def _unet(self, latents: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        unet = self.pipeline.unet
        embeddings = embeddings.to(unet.dtype)
        extra = {}
        if self._is_xl:
            pooled = embeddings[:, -1, : self.pipeline.text_encoder_2.config.projection_dim]
            height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
            sizes = embeddings.new_tensor(
                [height, width, 0, 0, height, width]
            )  # of the original, its crop, and what is drawn
            extra["added_cond_kwargs"] = {
                "text_embeds": pooled,
                "time_ids": sizes.expand(len(latents), -1),
            }
            embeddings = embeddings[:, :-1]
        # A rollout runs the very program that training does, or the first importance ratio would not be 1.
        with self.autocast(), torch.set_grad_enabled(torch.is_grad_enabled() or self._is_compiled):
            output: Tensor = unet(
                latents.to(unet.dtype), timesteps.contiguous(), embeddings, **extra
            ).sample
        return output.float() if torch.is_grad_enabled() else output.detach().float()

    def autocast(self) -> torch.autocast:
        """Inside the block, arithmetic is in the model's precision."""
        return torch.autocast(
            self.device.type, _AUTOCAST.get(self.precision), enabled=self.precision in _AUTOCAST
        )

    @torch.no_grad()
    def decode(self, latents: Tensor, *, batch: int = 16) -> Tensor:
        """Images [N, 3, H, W] in [0, 1], float32, of latents [N, C, h, w]."""
        vae = self.pipeline.vae
        scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
        batch = min(batch, max(1, _VAE_PIXELS // latents[0, 0].numel()))
        images = torch.cat([vae.decode(part).sample.float() for part in scaled.split(batch)])
        return (images / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_images(self, images: Tensor, *, batch: int = 16) -> Tensor:
        """Latents [N, C, h, w] (the mode of the VAE's posterior) of images [N, 3, H, W] in [0, 1]."""
        vae = self.pipeline.vae
        batch = min(
            batch, max(1, _VAE_PIXELS * self.pipeline.vae_scale_factor**2 // images[0, 0].numel())
        )
        parts = [
            vae.encode((2 * part - 1).to(self.device, vae.dtype)).latent_dist.mode().float()
            for part in images.split(batch)
        ]
        return torch.cat(parts) * float(vae.config.scaling_factor)

    def add_lora(self, settings: LoraSettings, *, generator: torch.Generator) -> None:
        """Adds those of the folder `settings.start`, or such that change nothing (Hu et al.: A is random, B is zero); `generator` draws A.

        Raises:
            PictuneError: there is no LoRA to start from, or it is of another model or of other settings.
        """
        targets = [*_ATTENTION, *(_FEED_FORWARD if settings.feed_forward else ())]
        alpha = settings.rank if settings.alpha is None else settings.alpha
        unet = self.pipeline.unet
        started, scales = (
            ({}, set()) if settings.start == BASE else self._read_lora(Path(settings.start))
        )
        unet.add_adapter(
            LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=targets), _ADAPTER
        )
        for name, weight in self.lora_parameters().items():
            weight.data = (
                weight.data.float()
            )  # the optimizer's small steps would vanish in half precision
            if "lora_A" in name:
                drawn = torch.empty(weight.shape)
                nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
                weight.data.copy_(drawn)
        if settings.start != BASE:
            if scales != {alpha / settings.rank} or _shapes(started) != _shapes(
                self.lora_parameters()
            ):
                raise PictuneError(
                    f"{Path(settings.start) / LORA_FILE}: its rank, scale or layers are not those of the settings `lora`; make them alike"
                )
            self.set_lora_state(started)
        self._leave_casts_to_autocast()

    def _read_lora(self, folder: Path) -> tuple[dict[str, Tensor], set[float]]:
        """The weights and scales of a saved LoRA, which leaves the model again."""
        self.load_lora(folder)
        weights, scales = (
            self.lora_state(),
            {layer.scaling[_ADAPTER] for layer in self._lora_layers()},
        )
        self.pipeline.unet.delete_adapters(_ADAPTER)
        return weights, scales

    def _leave_casts_to_autocast(self) -> None:
        """Keeps peft from casting inputs up to fp32 where autocast casts them down again: same numbers, and quicker."""
        for layer in self._lora_layers():
            layer.cast_input_dtype_enabled = self.precision == "fp32"

    def _lora_layers(self) -> list[BaseTunerLayer]:
        return [
            module for module in self.pipeline.unet.modules() if isinstance(module, BaseTunerLayer)
        ]

    def lora_parameters(self) -> dict[str, nn.Parameter]:
        """The trainable parameters by name; empty before `add_lora`."""
        return {
            name: weight
            for name, weight in self.pipeline.unet.named_parameters()
            if "lora_" in name
        }

    def lora_state(self) -> dict[str, Tensor]:
        """A copy of the adapters' weights by name, on the CPU."""
        return {
            name: weight.detach().cpu().clone() for name, weight in self.lora_parameters().items()
        }

    @torch.no_grad()
    def set_lora_state(self, state: dict[str, Tensor]) -> None:
        """Puts weights from `lora_state` of the same settings in place.

        Raises:
            PictuneError: the weights belong to other LoRA settings.
        """
        if _shapes(state) != _shapes(self.lora_parameters()):
            raise PictuneError(
                "checkpoint: its LoRA has another rank or other layers than the settings; restore them or start anew"
            )
        for name, weight in self.lora_parameters().items():
            weight.copy_(state[name])

    @contextmanager
    def adapters_off(self) -> Iterator[None]:
        """Inside the block the model is the reference model: the pretrained weights."""
        layers = self._lora_layers()
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Inside the block the UNet runs without autocast, in the precision of its weights."""
        before, self.precision = self.precision, "fp32"
        self._leave_casts_to_autocast()
        try:
            yield
        finally:
            self.precision = before
            self._leave_casts_to_autocast()

    def save_lora(self, folder: str | Path) -> Path:
        """Writes the adapters in diffusers' own format, for `pipeline.load_lora_weights(folder)`; gives the file's path.

        Equal adapters give equal files.
        """
        unet, file = self.pipeline.unet, Path(folder) / LORA_FILE
        layers = convert_state_dict_to_diffusers(
            get_peft_model_state_dict(unet, adapter_name=_ADAPTER)
        )
        about = {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in unet.peft_config[_ADAPTER].to_dict().items()
        }
        with write_atomically(file) as temporary:
            self.pipeline.save_lora_weights(
                temporary.parent,
                unet_lora_layers=layers,
                weight_name=temporary.name,
                unet_lora_adapter_metadata=about,
            )
            temporary.write_bytes(_with_sorted_header(temporary.read_bytes()))
        return file

    def load_lora(self, folder: str | Path) -> None:
        """Puts a saved LoRA in place of the present one, if any, for drawing.

        Raises:
            PictuneError: the folder holds no LoRA, or one of another model, or one that is not made of numbers.
        """
        file = lora_file(folder)
        if self.lora_parameters():
            self.pipeline.unet.delete_adapters(_ADAPTER)
        try:
            unet = self.pipeline.unet
            unet.load_lora_adapter(
                file.parent,
                weight_name=LORA_FILE,
                prefix="unet",
                adapter_name=_ADAPTER,
                use_safetensors=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise PictuneError(
                f"{file}: does not fit this model ({reason}); it was made for another one"
            ) from error
        check_finite(self.lora_parameters(), str(file))
        self._leave_casts_to_autocast()


def lora_file(folder: str | Path) -> Path:
    """The file of the LoRA in a folder.

    Raises:
        PictuneError: there is none.
    """
    file = Path(folder) / LORA_FILE
    if not file.is_file():
        raise PictuneError(f"{folder}: no {LORA_FILE} in it; run the finetune stage first")
    return file


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}


def _with_sorted_header(file: bytes) -> bytes:
    """A safetensors file whose header, 8 bytes of length and JSON, has its keys in order: safetensors shuffles those of the metadata."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[start:]


def _check_compiler(compiler: str | Callable[..., Any], device: torch.device) -> None:
    """Refuses, in one line, what would fail with pages of text at the first step."""
    try:
        torch.compile(torch.neg, backend=compiler)(torch.zeros(1, device=device))
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise PictuneError(
            f"finetune.compile: torch.compile does not work here ({reason}); install a C++ compiler (g++), or set it to false"
        ) from error


def _check_source(source: str) -> str | None:
    """Refuses, in one line, what `from_pretrained` would answer with a page of text or a wait for the network.

    Gives the variant of the weights to read, None for the plain ones.
    """
    folder = Path(source)
    if not folder.exists():
        if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not folder.parent.exists():
            return None
        raise PictuneError(
            f"{source}: no such model folder; give a diffusers folder or a hub id such as owner/name"
        )
    index = folder / "model_index.json"
    if not index.is_file():
        raise PictuneError(
            f"{source}: no model_index.json in it, so it is not a diffusers folder; save one with pipeline.save_pretrained"
        )
    about = read_json(index, "download the model again")
    kind = about.get("_class_name") if isinstance(about, dict) else None
    encoders = (
        ("", "_2") if _check_kind(source, kind) == StableDiffusionXLPipeline.__name__ else ("",)
    )
    weighted = ["unet", "vae", *(f"text_encoder{number}" for number in encoders)]
    files = [f"{part}/config.json" for part in weighted] + [
        f"tokenizer{number}/tokenizer_config.json" for number in encoders
    ]
    missing = [
        name
        for name in [*files, "scheduler/scheduler_config.json"]
        if not (folder / name).is_file()
    ]
    if missing:
        raise PictuneError(
            f"{folder}: incomplete, without {', '.join(missing)}; download the model again"
        )
    for part in weighted:
        if not any((folder / part).glob("*.safetensors")):
            held = (
                "Flax weights only"
                if any((folder / part).glob("*.msgpack"))
                else "no .safetensors weights"
            )
            raise PictuneError(
                f"{folder}: {part}/ has {held}; download the safetensors ones, or convert it with pipeline.save_pretrained"
            )
    half = all(
        not _has_weights(folder / part, "") and _has_weights(folder / part, ".fp16")
        for part in weighted
    )
    return "fp16" if half else None


def _check_numbers(source: str, model: DiffusionModel) -> None:
    """Refuses what would draw NaN: weights that are no numbers, or a schedule that its prediction cannot start from."""
    for name, part in model.pipeline.components.items():
        if isinstance(part, nn.Module):
            check_finite(part.state_dict(), f"{source}: {name}")
    schedule = model.scheduler(1)
    if schedule.config.prediction_type == "epsilon" and schedule.alphas_cumprod[-1] == 0:
        raise PictuneError(
            f"{source}: its schedule ends in pure noise (rescale_betas_zero_snr), from which predicted noise (epsilon) leads "
            "nowhere; set rescale_betas_zero_snr to false in its scheduler_config.json, or give a model with v_prediction"
        )


def _check_kind(source: str, kind: object) -> str:
    if not isinstance(kind, str) or kind not in _PIPELINES:
        raise PictuneError(
            f"{source}: holds a {kind}, and only {' and '.join(_PIPELINES)} (SD 1.x, SD 2.x, SDXL) can be tuned"
        )
    return kind


def _has_weights(folder: Path, variant: str) -> bool:
    """Whether a part has weights of this variant, in one file or in several."""
    return any(
        (folder / f"{name}{variant}.safetensors").exists()
        for name in ("model", "diffusion_pytorch_model")
    ) or any(folder.glob(f"*.safetensors.index{variant}.json"))
