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
    )
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
