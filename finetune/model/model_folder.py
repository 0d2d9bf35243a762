"""Opening of a diffusers folder, and one-line refusals of models that cannot be tuned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline, PipelineQuantizationConfig
from diffusers import TorchAoConfig as DiffusersTorchAo
from torch import nn
from transformers import PreTrainedModel
from transformers import TorchAoConfig as TransformersTorchAo

from data.errors import PictuneError
from data.files import read_json
from data.weights import check_finite, check_model_folder
from finetune.model.families.flow import Flux, StableDiffusion3
from finetune.model.families.flux2 import Flux2Klein
from finetune.model.families.qwen_image import QwenImage
from finetune.model.families.sd import StableDiffusion, StableDiffusionXL
from finetune.model.families.z_image import ZImage
from finetune.model.family import Family, modules_of, tokenizer_of

FAMILIES: dict[str, type[Family]] = {
    family.pipeline_class.__name__: family
    for family in (
        *(StableDiffusion, StableDiffusionXL, StableDiffusion3),
        *(Flux, Flux2Klein, ZImage, QwenImage),
    )
}
"""Each family by the name of its pipeline class; a new family is a class and an entry here."""
_KNOWN = "SD 1.x, SD 2.x, SDXL, SD3, SD3.5, FLUX.1, FLUX.2 klein, Z-Image and Qwen-Image"
Weights = Literal["fp32", "bf16", "int8"]
"""Data types of the frozen weights."""
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
_NO_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def family_of(source: str) -> type[Family]:
    """Return the family of a diffusers folder or of a model of the hub, without opening it.

    Raises:
        PictuneError: there is no such model, or its family is unknown.
    """
    _check_source(source)
    return _family_of(source, DiffusionPipeline.load_config(source)["_class_name"])


def open_family(
    source: str,
    *,
    device: str | torch.device,
    weights: Weights = "fp32",
    image_size: int | None = None,
    offload_encoders: bool = False,
) -> Family:
    """Open a diffusers folder or a model of the Hugging Face hub ("owner/name").

    Only safetensors files are read. `weights` is the data type of the weights; "int8" holds for the
    linear layers of the largest parts, and all other weights are bf16. `image_size` is the side of
    the images in pixels; omitted, it is the model's default. With `offload_encoders` the text
    encoders stay on the CPU.

    Raises:
        PictuneError: there is no such model, it is incomplete, its family is unknown, it would draw
            NaN, or it cannot draw images of this size.
    """
    variant = _check_source(source)
    try:
        about = DiffusionPipeline.load_config(source)
        kind = _family_of(source, about["_class_name"])
        extra: dict[str, Any] = dict(_NO_CHECKER) if kind is StableDiffusion else {}
        for name in kind.left_out(about):
            extra |= {name: None, tokenizer_of(name): None}
        if weights == "int8":
            extra["quantization_config"] = _in_8_bits(kind, about)
        pipeline: Any = kind.pipeline_class.from_pretrained(
            source, dtype=TYPES[weights], variant=variant, use_safetensors=True, **extra
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PictuneError(
            f"{source}: could not be opened as a text-to-image model ({reason}); check the folder"
        ) from error
    family = kind(pipeline, image_size)
    family.variant = variant
    takes, gives = family.latent_channels, family.vae_channels
    if takes != gives:
        raise PictuneError(
            f"{source}: its {kind.network_name} takes {takes} channels and its VAE gives {gives}, "
            "as models that fill in or edit images do; give a model that draws from text alone"
        )
    for name, part in modules_of(pipeline).items():
        _check_complete(part, f"{source}: {name}")
        # An 8-bit weight is finite if its scale is.
        values = {key: getattr(one, "scale", one) for key, one in part.state_dict().items()}
        check_finite(values, f"{source}: {name}")
    family.check(source)
    for name, part in modules_of(pipeline).items():
        if not (offload_encoders and name in family.text_encoders):
            part.to(device)
    return family


def _check_complete(part: nn.Module, where: str) -> None:
    """Refuse a part whose file lacks a weight: transformers would initialize it randomly."""
    weights, is_known = dict(part.named_parameters()), not isinstance(part, PreTrainedModel)
    missing = [
        name
        for name, weight in weights.items()
        if weight.is_meta or not getattr(weight, "_is_hf_initialized", is_known)
    ]
    if missing:
        raise PictuneError(
            f"{where}: its file has no weight {missing[0]} ({len(missing)} of {len(weights)} are "
            "missing); download the model again"
        )


def _in_8_bits(family: type[Family], about: Mapping[str, Any]) -> PipelineQuantizationConfig:
    """Return the 8-bit configuration for the linear layers of a family's largest parts."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig  # noqa: PLC0415 # optional
    except ImportError as error:
        raise PictuneError(
            'run.weights: "int8" needs torchao, which is not installed; '
            "run `pip install -c constraints.txt torchao`, or use bf16"
        ) from error
    own = DiffusersTorchAo(Int8WeightOnlyConfig())
    encoder = TransformersTorchAo(Int8WeightOnlyConfig())
    parts = [name for name in family.largest_parts if name not in family.left_out(about)]
    mapping = {name: own if name == family.network_name else encoder for name in parts}
    return PipelineQuantizationConfig(quant_mapping=mapping)


def _check_source(source: str) -> str | None:
    """Return the variant of a folder's weights; refuse a folder that cannot be opened."""
    folder = check_model_folder(source)
    if folder is None:
        return None
    about = read_json(folder / "model_index.json", "download the model again")
    about = about if isinstance(about, dict) else {}
    family = _family_of(source, about.get("_class_name"))
    encoders = [name for name in family.text_encoders if name not in family.left_out(about)]
    weighted = [family.network_name, "vae", *encoders]
    files = [f"{part}/config.json" for part in weighted]
    files += [f"{tokenizer_of(name)}/tokenizer_config.json" for name in encoders]
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


def _family_of(source: str, pipeline: object) -> type[Family]:
    family = FAMILIES.get(pipeline) if isinstance(pipeline, str) else None
    if family is None:
        known = ", ".join(FAMILIES)
        raise PictuneError(
            f"{source}: holds a {pipeline}, and only {known} ({_KNOWN}) can be tuned"
        )
    return family


def _has_weights(folder: Path, variant: str) -> bool:
    """Whether a part has weights of this variant, in one file or in several."""
    files = (f"{name}{variant}.safetensors" for name in ("model", "diffusion_pytorch_model"))
    is_sharded = any(folder.glob(f"*.safetensors.index{variant}.json"))
    return is_sharded or any((folder / file).exists() for file in files)
