"""Opens a Stable Diffusion folder, and refuses in one line what could not be tuned."""

import re
from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from torch import nn

from data.errors import PictuneError
from data.files import read_json
from data.weights import check_finite

Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline
_KINDS: dict[str, type[Pipeline]] = {
    kind.__name__: kind for kind in (StableDiffusionPipeline, StableDiffusionXLPipeline)
}
_NO_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def open_pipeline(
    source: str, *, device: str | torch.device, dtype: torch.dtype
) -> tuple[Pipeline, str | None]:
    """Open a diffusers folder or a model of the Hugging Face hub ("owner/name").

    Return it with the variant of its weights (None for the plain ones). Only safetensors weights
    are read.

    Raises:
        PictuneError: there is no such model, it is not a complete Stable Diffusion 1.x, 2.x or XL,
            or it would draw NaN.
    """
    variant = _check_source(source)
    try:
        class_name = DiffusionPipeline.load_config(source)["_class_name"]
        kind = _KINDS[_check_kind(source, class_name)]
        extra = _NO_CHECKER if kind is StableDiffusionPipeline else {}
        pipeline = kind.from_pretrained(
            source, dtype=dtype, variant=variant, use_safetensors=True, **extra
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PictuneError(
            f"{source}: could not be opened as a Stable Diffusion model ({reason}); "
            "check the folder"
        ) from error
    unet, vae = pipeline.unet.config, pipeline.vae.config
    if unet.in_channels != vae.latent_channels:
        raise PictuneError(
            f"{source}: its UNet takes {unet.in_channels} channels and its VAE gives "
            f"{vae.latent_channels}, as models that fill in or edit images do; "
            "give a model that draws from text alone"
        )
    _check_weights(source, pipeline)
    return pipeline.to(device), variant


def ddim_scheduler(pipeline: Pipeline) -> DDIMScheduler:
    """Return the pipeline's noise schedule as a DDIM sampler (Song et al. 2020, arXiv 2010.02502).

    Latents are not bounded, so samples are never clipped, as in the stock pipeline.
    """
    config = pipeline.scheduler.config
    scheduler: DDIMScheduler = DDIMScheduler.from_config(
        config, clip_sample=False, thresholding=False
    )
    return scheduler


def _check_source(source: str) -> str | None:
    """Refuse what `from_pretrained` would answer with a page of text or a wait for the network.

    Return the variant of the weights to read, None for the plain ones.
    """
    folder = Path(source)
    if not folder.exists():
        if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not folder.parent.exists():
            return None
        advice = "give a diffusers folder or a hub id such as owner/name"
        raise PictuneError(f"{source}: no such model folder; {advice}")
    index = folder / "model_index.json"
    if not index.is_file():
        raise PictuneError(
            f"{source}: no model_index.json in it, so it is not a diffusers folder; "
            "save one with pipeline.save_pretrained"
        )
    about = read_json(index, "download the model again")
    class_name = about.get("_class_name") if isinstance(about, dict) else None
    is_xl = _check_kind(source, class_name) == StableDiffusionXLPipeline.__name__
    encoders = ("", "_2") if is_xl else ("",)
    weighted = ["unet", "vae", *(f"text_encoder{number}" for number in encoders)]
    files = [f"{part}/config.json" for part in weighted]
    files += [f"tokenizer{number}/tokenizer_config.json" for number in encoders]
    files += ["scheduler/scheduler_config.json"]
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise PictuneError(
            f"{folder}: incomplete, without {', '.join(missing)}; download the model again"
        )
    for part in weighted:
        _check_has_safetensors(folder, part)
    is_half = all(
        not _has_weights(folder / part, "") and _has_weights(folder / part, ".fp16")
        for part in weighted
    )
    return "fp16" if is_half else None


def _check_has_safetensors(folder: Path, part: str) -> None:
    if not any((folder / part).glob("*.safetensors")):
        is_flax = any((folder / part).glob("*.msgpack"))
        held = "Flax weights only" if is_flax else "no .safetensors weights"
        raise PictuneError(
            f"{folder}: {part}/ has {held}; download the safetensors ones, "
            "or convert it with pipeline.save_pretrained"
        )


def _check_kind(source: str, kind: object) -> str:
    if not isinstance(kind, str) or kind not in _KINDS:
        known = " and ".join(_KINDS)
        raise PictuneError(
            f"{source}: holds a {kind}, and only {known} (SD 1.x, SD 2.x, SDXL) can be tuned"
        )
    return kind


def _check_weights(source: str, pipeline: Pipeline) -> None:
    """Refuse a model that would draw NaN.

    Its weights are not finite, or its prediction cannot start from the end of its schedule.
    """
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            check_finite(part.state_dict(), f"{source}: {name}")
    schedule = ddim_scheduler(pipeline)
    if schedule.config.prediction_type == "epsilon" and schedule.alphas_cumprod[-1] == 0:
        raise PictuneError(
            f"{source}: its schedule ends in pure noise (rescale_betas_zero_snr), from which "
            "predicted noise (epsilon) leads nowhere; set rescale_betas_zero_snr to false in its "
            "scheduler_config.json, or give a model with v_prediction"
        )


def _has_weights(folder: Path, variant: str) -> bool:
    """Whether a part has weights of this variant, in one file or in several."""
    files = (f"{name}{variant}.safetensors" for name in ("model", "diffusion_pytorch_model"))
    is_sharded = any(folder.glob(f"*.safetensors.index{variant}.json"))
    return is_sharded or any((folder / file).exists() for file in files)
