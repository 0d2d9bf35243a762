"""LoRA on a denoising network (Hu et al. 2021, arXiv 2106.09685), a kind of adapter."""

import json
import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_kohya,
    convert_unet_state_dict_to_peft,
)
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from data.errors import PictuneError
from data.files import write_atomically
from data.weights import check_finite
from finetune.model.adapter import Adapter, shapes
from finetune.model.family import Family
from finetune.settings.adapter_kinds import ADAPTERS, BASE
from finetune.settings.model import AdapterSettings

LORA_FILE = ADAPTERS["lora"].file
_NAME = "default"
"""Name of the first LoRA among peft's adapters on the network; a number follows for others."""
_ATTENTION = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
)
"""Names of layers in UNets and transformers; the second line holds the layers for prompt tokens,
which only SD3, FLUX and Qwen-Image have."""
_FEED_FORWARD = (
    *("ff.net.0.proj", "ff.net.2"),
    *("ff_context.net.0.proj", "ff_context.net.2"),
)
_MORE_ATTENTION = ("attn.to_qkv_mlp_proj", "attn.to_out")
"""Ends of names in FLUX.2, where attention and feed-forward layers of some blocks are one."""
_MORE_FEED_FORWARD = (
    *("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
    *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
)
"""Ends of names in FLUX.2, Qwen-Image and Z-Image."""


class Lora(Adapter):
    """The low-rank matrices of one network of a pipeline."""

    def __init__(self, family: Family, adapter: str = _NAME) -> None:
        """Take the model's family, whose network has, or will have, the LoRA, and peft's name."""
        self.pipeline, self.name = family.pipeline, family.network_name
        self.network, self.adapter = family.network, adapter

    @classmethod
    def add(cls, family: Family, settings: AdapterSettings, *, generator: torch.Generator) -> Self:
        """Add the LoRA of `settings.start`, or a new one: `generator` draws A, and B is 0.

        Raises:
            PictuneError: the folder `settings.start` has no LoRA, or one of another model or other
                settings.
        """
        started, scales = None, {settings.scale}
        if settings.start != BASE:
            earlier = cls.load(family, Path(settings.start))
            started, scales = earlier.state(), {one.scaling[_NAME] for one in earlier.layers}
            earlier.remove()
        lora = cls(family)
        lora._add_fresh(settings, generator)
        if started is not None:
            if scales != {settings.scale} or shapes(started) != shapes(lora.parameters()):
                raise PictuneError(
                    f"{Path(settings.start) / LORA_FILE}: its rank, scale or layers are not those "
                    "of the settings `adapter`; make them alike"
                )
            lora.set_state(started)
        return lora

    def _add_fresh(self, settings: AdapterSettings, generator: torch.Generator) -> None:
        targets: list[str] = [*_ATTENTION, *(_FEED_FORWARD if settings.feed_forward else ())]
        ends = (*_MORE_ATTENTION, *(_MORE_FEED_FORWARD if settings.feed_forward else ()))
        layers = self.network.named_modules()
        targets += [
            name for name, one in layers if isinstance(one, nn.Linear) and name.endswith(ends)
        ]
        alpha = settings.rank if settings.alpha is None else settings.alpha
        self.network.add_adapter(
            LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=targets), self.adapter
        )
        for weight in self.parameters().values():
            weight.data = weight.data.float()  # small updates would be lost in half precision
        for layer in self.layers:
            first = layer.lora_A[_NAME].weight
            drawn = torch.empty(first.shape)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            first.data.copy_(drawn)

    @classmethod
    def load(cls, family: Family, folder: Path) -> Self:
        """Add a saved LoRA beside those of a mix; if that fails, remove all of them.

        Raises:
            PictuneError: the folder has no LoRA, or one of another model, or one with tensors that
                are missing, have unknown names or are not finite.
        """
        number = len(getattr(family.network, "peft_config", ()))
        lora = cls(family, f"{_NAME}{number or ''}")
        with ExitStack() as failed:
            failed.callback(lora.remove)
            lora._read(folder)
            failed.pop_all()
        return lora

    def _read(self, folder: Path) -> None:
        """Add the matrices of a folder to the network's layers, beside those of other LoRAs."""
        network, name, file = self.network, self.name, folder / LORA_FILE
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of a mix
                network.load_lora_adapter(
                    folder,
                    weight_name=LORA_FILE,
                    prefix=name,
                    adapter_name=self.adapter,
                    use_safetensors=True,
                )
            with safe_open(file, "pt") as opened:
                found = convert_unet_state_dict_to_peft(dict.fromkeys(opened.keys()))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0]
            raise PictuneError(
                f"{file}: does not fit this model ({reason}); it was made for another one"
            ) from error
        saved = get_peft_model_state_dict(network, adapter_name=self.adapter)
        # diffusers ignores unknown tensors, and leaves a layer without a tensor untuned.
        if strangers := sorted({f"{name}.{key}" for key in saved} ^ found.keys()):
            reason = "is no layer of this model" if strangers[0] in found else "is missing"
            raise PictuneError(
                f"{file}: {strangers[0]} {reason} ({len(strangers)} such tensors); "
                "put the file back, or tune again"
            )
        check_finite(self.state(), str(file))
        for layer in self.layers:
            layer.set_adapter([*network.peft_config])

    @property
    def layers(self) -> list[Any]:
        """The layers of peft that replace the network's layers."""
        return lora_layers(self.network)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the matrices by name, as peft lists them in its layers."""
        return {
            f"{place}.{part}.{key}": weight
            for place, layer in self.network.named_modules()
            if isinstance(layer, BaseTunerLayer)
            for part in layer.adapter_layer_names
            if isinstance(matrices := getattr(layer, part, None), nn.Module)
            for key, weight in matrices.named_parameters()
            if key.startswith(f"{self.adapter}.")
        }

    @contextmanager
    def off(self) -> Iterator[None]:
        """Switch the LoRA off inside the block, so that only the pretrained weights act."""
        active = [(layer, layer.active_adapters) for layer in self.layers]
        for layer, names in active:
            layer.set_adapter([name for name in names if name != self.adapter])
        try:
            yield
        finally:
            for layer, names in active:
                layer.set_adapter(names)

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Scale the update inside the block, as `set_adapters` of diffusers does."""
        layers = self.layers
        for layer in layers:
            layer.set_scale(self.adapter, strength)
        try:
            yield
        finally:
            for layer in layers:
                layer.set_scale(self.adapter, 1.0)

    def save(self, folder: str | Path) -> Path:
        """Save the LoRA in the format of diffusers, for `pipeline.load_lora_weights(folder)`."""
        network, name, file = self.network, self.name, Path(folder) / LORA_FILE
        layers = get_peft_model_state_dict(network, adapter_name=self.adapter)
        if name == "unet":  # transformers use the names of peft
            layers = convert_state_dict_to_diffusers(layers)
        about = network.peft_config[self.adapter].to_dict()
        metadata = {key: sorted(one) if isinstance(one, set) else one for key, one in about.items()}
        with write_atomically(file) as temporary:
            self.pipeline.save_lora_weights(
                temporary.parent,
                weight_name=temporary.name,
                **{f"{name}_lora_layers": layers, f"{name}_lora_adapter_metadata": metadata},
            )
            temporary.write_bytes(self.with_header(temporary.read_bytes()))
        return file

    def remove(self) -> None:
        """Restore the network's original layers, without any LoRA."""
        self.network.unload_lora()

    def leave_casts_to_autocast(self, is_on: bool) -> None:
        """Stop peft from casting inputs to float32 if autocast casts them back."""
        for layer in self.layers:
            layer.cast_input_dtype_enabled = not is_on


def lora_layers(network: nn.Module) -> list[Any]:
    """Return the layers that have low-rank matrices."""
    return [module for module in network.modules() if isinstance(module, BaseTunerLayer)]


def write_kohya(folder: Path, target: Path) -> None:
    """Write the LoRA of a folder with the names of kohya's scripts, which ComfyUI and A1111 read.

    Raises:
        PictuneError: it is of a transformer, for which diffusers has no names of kohya's.
    """
    file = folder / LORA_FILE
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["lora_adapter_metadata"])
    if "unet.lora_alpha" not in about:
        raise PictuneError(
            f"{file}: kohya's names are for UNets (SD 1.x, SD 2.x and SDXL), and this model has a "
            "transformer; give the file as it is, ComfyUI reads it"
        )
    weights = convert_state_dict_to_kohya(convert_unet_state_dict_to_peft(load_file(file)))
    for name in weights:
        if name.endswith(".alpha"):  # the converter supposes that alpha is the rank
            weights[name] = torch.tensor(float(about["unet.lora_alpha"]))
    with write_atomically(target) as temporary:
        save_file(weights, temporary)
