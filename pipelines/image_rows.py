"""Rows of `images.parquet` about images that a model of a run has drawn."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from data.files import sha256_of
from data.runs import RunFolder
from data.schema import prompt_id
from finetune.sampler import Sampler
from pipelines.drawing import Planned


@dataclass(frozen=True)
class DrawnBy:
    """Model and sampler that drew an image."""

    model_id: str
    """Folder or hub name of the model."""
    model_hash: str
    """Hash of its weights."""
    sampler: Sampler
    lora_hash: str | None = None
    """Hash of the LoRA; None for the base."""


def image_row(run: RunFolder, path: Path, one: Planned, by: DrawnBy) -> dict[str, object]:
    """Return the row of an image in the run's folder; `run` is in the round that drew it."""
    with Image.open(path) as image:
        width, height = image.size
    return {
        "image_id": sha256_of(path),
        "path": path.relative_to(run.root).as_posix(),
        "prompt_id": prompt_id(one.prompt),
        "prompt": one.prompt,
        "width": width,
        "height": height,
        "format": "png",
        "model_id": by.model_id,
        "model_hash": by.model_hash,
        "seed": one.seed,
        "steps": by.sampler.steps,
        "guidance": by.sampler.guidance,
        "scheduler": "DDIMScheduler",
        "eta": by.sampler.eta,
        "created_at": datetime.fromtimestamp(path.stat().st_mtime, UTC),
        "round": run.round,
        "lora_hash": by.lora_hash,
        "stochastic_share": by.sampler.stochastic_share,
    }
