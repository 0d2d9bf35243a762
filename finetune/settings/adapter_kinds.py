"""The kinds of adapters, without the code that opens an adapter.

An adapter holds the trained weights of a model whose other weights are frozen. A new kind is a file
with a subclass of `finetune.model.adapter.Adapter`, and an entry here.
"""

from pathlib import Path
from typing import NamedTuple

from data.errors import PictuneError

BASE = "base"
"""Value of `start` for training from the pretrained model instead of another adapter."""


class AdapterKind(NamedTuple):
    """One kind of adapter."""

    title: str
    """Name in model cards."""
    file: str
    """Name of the adapter's file in a folder."""
    opening: str
    """Python code that loads the adapter of `folder` into a diffusers `pipeline`."""
    opening_at_strength: str
    """Python code that also sets the `strength`, a factor of the update."""
    adapter: str
    """Its class as `module:class`."""

    def code(self, folder: Path, strength: float | None = None) -> str:
        """Return Python code that opens the adapter in stock diffusers, at a strength if given."""
        text = self.opening if strength is None else self.opening_at_strength
        return text.format(folder=str(folder), strength=strength)


_SIDE_FILE = "side_network.safetensors"
_OPEN_SIDE = """\
import json

from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional


def add_side_network(pipeline, file, strength):
    with safe_open(file, "pt") as opened:
        side = UNet2DConditionModel(**json.loads(opened.metadata()["config"]))
    side.load_state_dict(load_file(file))
    scheduler, step = pipeline.scheduler, pipeline.scheduler.step

    class WithSideNetwork(type(pipeline)):
        def __call__(self, *args, **kwargs):
            self.prompts = []
            return super().__call__(*args, **kwargs)

        def enable_lora(self):  # as for a LoRA, for a change in the middle of the steps
            self.strength = strength

        def disable_lora(self):
            self.strength = 0

        def encode_prompt(self, *args, **kwargs):
            found = super().encode_prompt(*args, **kwargs)
            tokens, width = found[0], found[0].shape[-1]
            for pooled in [one for one in found if one is not None and one.ndim == 2][:1]:
                rows = functional.pad(pooled, (0, -pooled.shape[-1] % width))
                tokens = torch.cat([tokens, rows.unflatten(1, (-1, width)).to(tokens)], dim=1)
            self.prompts.append(tokens.float())
            return found

    def square(tokens):  # FLUX draws tokens of 2x2 latents; this line is for square images
        side = round(tokens.shape[1] ** 0.5)
        return functional.pixel_shuffle(tokens.mT.unflatten(2, (side, side)), 2)

    def corrected_step(output, timestep, sample, *args, **kwargs):
        is_packed = sample.ndim == 3
        x, base = [square(one.float()) if is_packed else one.float() for one in (sample, output)]
        kind = scheduler.config.get("prediction_type", "flow")
        if kind == "flow":
            clean = x - timestep / 1000 * base
        else:
            signal = scheduler.alphas_cumprod[int(timestep)] ** 0.5
            noise = (1 - signal**2) ** 0.5
            clean = signal * x - noise * base if kind == "v_prediction" else base
            clean = (x - noise * base) / signal if kind == "epsilon" else clean
        seen, prompt = torch.cat([x, base, clean], dim=1), pipeline.prompts[0]
        correction = side.to(x.device)(seen, timestep, prompt).sample
        if is_packed:
            correction = functional.pixel_unshuffle(correction, 2).flatten(2).mT
        output = (output + pipeline.strength * correction).to(output.dtype)
        return step(output, timestep, sample, *args, **kwargs)

    pipeline.__class__ = WithSideNetwork  # remembers the prompt that is drawn
    pipeline.enable_lora()
    scheduler.step = corrected_step  # comes after guidance in every pipeline


"""
"""Lines that add a side network to a stock pipeline, without this project."""
ADAPTERS: dict[str, AdapterKind] = {
    "lora": AdapterKind(
        title="LoRA",
        file="pytorch_lora_weights.safetensors",
        opening="pipeline.load_lora_weights({folder!r})\n",
        opening_at_strength="""\
pipeline.load_lora_weights({folder!r}, adapter_name="pictune")
pipeline.set_adapters("pictune", adapter_weights={strength:g})
""",
        adapter="finetune.model.lora:Lora",
    ),
    "side": AdapterKind(
        title="side network",
        file=_SIDE_FILE,
        opening=f'{_OPEN_SIDE}add_side_network(pipeline, {{folder!r}} + "/{_SIDE_FILE}", 1.0)\n',
        opening_at_strength=(
            f'{_OPEN_SIDE}add_side_network(pipeline, {{folder!r}} + "/{_SIDE_FILE}", '
            "{strength:g})\n"
        ),
        adapter="finetune.model.side_network:SideNetwork",
    ),
}
"""The kinds by their names in the settings."""


def kind_in(folder: str | Path) -> AdapterKind | None:
    """Return the kind of the adapter in a folder; None if the folder has no adapter."""
    return next((one for one in ADAPTERS.values() if (Path(folder) / one.file).is_file()), None)


def kind_of(folder: str | Path) -> AdapterKind:
    """Return the kind of the adapter in a folder.

    Raises:
        PictuneError: the folder has no adapter.
    """
    kind = kind_in(folder)
    if kind is None:
        files = " or ".join(one.file for one in ADAPTERS.values())
        raise PictuneError(f"{folder}: no {files} in it; run the finetune stage first")
    return kind


def adapter_file(folder: str | Path) -> Path:
    """Return the file of the adapter in a folder.

    Raises:
        PictuneError: the folder has no adapter.
    """
    return Path(folder) / kind_of(folder).file
