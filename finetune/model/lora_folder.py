"""The folder of a saved LoRA, for those who need not open it."""

from pathlib import Path

from data.errors import PictuneError

LORA_FILE = "pytorch_lora_weights.safetensors"

BASE = "base"
"""The start of a training that is not another LoRA: the pretrained model."""


def lora_file(folder: str | Path) -> Path:
    """Return the file of the LoRA in a folder.

    Raises:
        PictuneError: there is none.
    """
    file = Path(folder) / LORA_FILE
    if not file.is_file():
        raise PictuneError(f"{folder}: no {LORA_FILE} in it; run the finetune stage first")
    return file
