"""LoRA on a denoising network (Hu et al. 2021, arXiv 2106.09685): adding, saving and loading.

Functions take the network; `finetune.model.diffusion.DiffusionModel` offers them as methods.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_unet_state_dict_to_peft,
)
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from data.errors import PictuneError
from data.files import write_atomically
from data.weights import check_finite
from finetune.model.lora_folder import BASE, LORA_FILE, lora_file
from finetune.settings.model import LoraSettings

_ADAPTER = "default"
_ATTENTION = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
)
"""Names of layers in UNets and transformers; the second line is the prompt's side of SD3 and FLUX,
which other networks do not have."""
_FEED_FORWARD = (
    *("ff.net.0.proj", "ff.net.2"),
    *("ff_context.net.0.proj", "ff_context.net.2"),
)


def add_lora(
    network: Any, name: str, settings: LoraSettings, *, generator: torch.Generator
) -> None:
    """Add trainable adapters: loaded from `settings.start`, or fresh ones that change nothing yet.

    Fresh ones have A drawn by `generator` and B zero. `name` is that of the network in its
    pipeline.

    Raises:
        PictuneError: there is no LoRA to start from, or it is of another model or other settings.
    """
    targets = [*_ATTENTION, *(_FEED_FORWARD if settings.feed_forward else ())]
    alpha = settings.rank if settings.alpha is None else settings.alpha
    is_fresh = settings.start == BASE
    started, scales = ({}, set()) if is_fresh else _read(network, name, Path(settings.start))
    network.add_adapter(
        LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=targets), _ADAPTER
    )
    for key, weight in lora_parameters(network).items():
        weight.data = weight.data.float()  # small optimizer steps would vanish in half precision
        if "lora_A" in key:
            drawn = torch.empty(weight.shape)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            weight.data.copy_(drawn)
    if not is_fresh:
        if scales != {settings.scale} or _shapes(started) != _shapes(lora_parameters(network)):
            raise PictuneError(
                f"{Path(settings.start) / LORA_FILE}: its rank, scale or layers are not those of "
                "the settings `lora`; make them alike"
            )
        set_lora_state(network, started)


def _read(network: Any, name: str, folder: Path) -> tuple[dict[str, Tensor], set[float]]:
    """Return the weights and scales of a saved LoRA, and leave the network without it."""
    load_lora(network, name, folder)
    weights = lora_state(network)
    scales = {layer.scaling[_ADAPTER] for layer in lora_layers(network)}
    network.delete_adapters(_ADAPTER)
    return weights, scales


def lora_layers(network: nn.Module) -> list[BaseTunerLayer]:
    """Return the layers that have adapters."""
    return [module for module in network.modules() if isinstance(module, BaseTunerLayer)]


def lora_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name; none before `add_lora`."""
    return {name: weight for name, weight in network.named_parameters() if "lora_" in name}


def lora_state(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the adapters' weights by name, on the CPU."""
    weights = lora_parameters(network)
    return {name: weight.detach().cpu().clone() for name, weight in weights.items()}


@torch.no_grad()
def set_lora_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put weights from `lora_state` of the same settings in place.

    Raises:
        PictuneError: the weights belong to other LoRA settings.
    """
    weights = lora_parameters(network)
    if _shapes(state) != _shapes(weights):
        raise PictuneError(
            "checkpoint: its LoRA has another rank or other layers than the settings; "
            "restore them or start again"
        )
    for name, weight in weights.items():
        weight.copy_(state[name])


@contextmanager
def adapters_off(network: nn.Module) -> Iterator[None]:
    """Switch the adapters off inside the block, so that it has its pretrained weights."""
    layers = lora_layers(network)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@contextmanager
def at_strength(network: nn.Module, strength: float) -> Iterator[None]:
    """Scale the adapters' update by `strength` inside the block, and by 1 after it.

    0 gives the pretrained model's numbers, 1 those of the adapters as they were trained. It is the
    scale of peft that diffusers sets by `set_adapters(name, adapter_weights=strength)`.
    """
    layers = lora_layers(network)
    for layer in layers:
        layer.set_scale(_ADAPTER, strength)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_scale(_ADAPTER, 1.0)


@contextmanager
def with_lora(network: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Put weights from `lora_state` in place inside the block, and the present ones after it."""
    present = lora_state(network)
    set_lora_state(network, state)
    try:
        yield
    finally:
        set_lora_state(network, present)


def save_lora(pipeline: Any, name: str, folder: str | Path) -> Path:
    """Write the adapters in diffusers' own format, for `pipeline.load_lora_weights(folder)`.

    `name` is that of the network in the pipeline. Return the file's path. Equal adapters make equal
    files.
    """
    network, file = getattr(pipeline, name), Path(folder) / LORA_FILE
    layers = get_peft_model_state_dict(network, adapter_name=_ADAPTER)
    if name == "unet":  # transformers have peft's own names
        layers = convert_state_dict_to_diffusers(layers)
    config = network.peft_config[_ADAPTER].to_dict()
    metadata = {key: sorted(one) if isinstance(one, set) else one for key, one in config.items()}
    with write_atomically(file) as temporary:
        pipeline.save_lora_weights(
            temporary.parent,
            weight_name=temporary.name,
            **{f"{name}_lora_layers": layers, f"{name}_lora_adapter_metadata": metadata},
        )
        temporary.write_bytes(_with_sorted_header(temporary.read_bytes()))
    return file


def _with_sorted_header(file: bytes) -> bytes:
    """Return a safetensors file with the keys of its header in order.

    safetensors shuffles those of the metadata. The header is 8 bytes of length and JSON.
    """
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[start:]


def load_lora(network: Any, name: str, folder: str | Path) -> None:
    """Put a saved LoRA in place of the present one, if any.

    `name` is that of the network in its pipeline.

    Raises:
        PictuneError: the folder holds no LoRA, or one of another model, or one of which tensors are
            missing, have other names or are not finite.
    """
    file = lora_file(folder)
    if lora_parameters(network):
        network.delete_adapters(_ADAPTER)
    try:
        network.load_lora_adapter(
            file.parent,
            weight_name=LORA_FILE,
            prefix=name,
            adapter_name=_ADAPTER,
            use_safetensors=True,
        )
        with safe_open(file, "pt") as opened:
            found = convert_unet_state_dict_to_peft(dict.fromkeys(opened.keys()))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PictuneError(
            f"{file}: does not fit this model ({reason}); it was made for another one"
        ) from error
    saved = get_peft_model_state_dict(network, adapter_name=_ADAPTER)
    # diffusers skips a tensor that it does not know, and leaves a layer without one untuned.
    if strangers := sorted({f"{name}.{key}" for key in saved} ^ found.keys()):
        reason = "is no layer of this model" if strangers[0] in found else "is missing"
        raise PictuneError(
            f"{file}: {strangers[0]} {reason} ({len(strangers)} such tensors); "
            "put the file back, or tune again"
        )
    check_finite(lora_parameters(network), str(file))


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}
