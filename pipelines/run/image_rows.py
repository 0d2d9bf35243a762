"""Rows of `images.parquet` for images that a model of a run has drawn."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from PIL import Image

from data.files import sha256_of
from data.runs import RunFolder
from data.schema import prompt_id
from finetune.settings.sampler import Sampler
from pipelines.run.image_plan import Planned


@dataclass(frozen=True)
class DrawnBy:
    """Model and sampler that drew an image."""

    model_id: str
    """Folder or hub name of the model."""
    model_hash: str
    """Hash of the model's weights."""
    sampler: Sampler
    adapter_hash: str | None = None
    """Hash of the adapter; None for the base."""

    @cached_property
    def scheduler(self) -> str:
        """Name of the sampler in diffusers."""
        from finetune.model.model_folder import family_of  # noqa: PLC0415 - loads torch

        return family_of(self.model_id).sampler_name

    def facts(self, seed: int, file: Path) -> dict[str, object]:
        """Return the columns of `images.parquet` on how the image in `file` was drawn."""
        return {
            "model_id": self.model_id,
            "model_hash": self.model_hash,
            "seed": seed,
            "steps": self.sampler.steps,
            "guidance": self.sampler.guidance,
            "scheduler": self.scheduler,
            "eta": self.sampler.eta,
            "created_at": datetime.fromtimestamp(file.stat().st_mtime, UTC),
            "adapter_hash": self.adapter_hash,
            "stochastic_share": self.sampler.stochastic_share,
        }


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
        "round": run.round,
    } | by.facts(one.seed, path)
