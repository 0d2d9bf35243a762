"""Images that a run plans: their prompts, seeds and file names, and their rows in the table."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, PositiveInt

from data.files import sha256_of
from data.runs import RunFolder
from data.schema import prompt_id
from finetune.settings.sampler import Sampler

SEEDS_PER_RUN = 10_000_000
"""Number of seeds per run: the seeds of run s start at s times this number. The offsets below
separate the uses of seeds within a run."""

SCORED_SEEDS, EVALUATION_SEEDS, BEST_OF_SEEDS = 100_000, 5_000_000, 9_000_000
"""Seed offsets of the images scored by the reward alone, of the evaluation, and of `best-of-n`."""

ROUND_SEEDS, SEEDS_PER_ROUND = 2_000_000, 20_000
"""Seed offset of round 2, and number of seeds per round from round 2 on: one half for labeled
images, the other half for images scored by the reward alone."""

CANDIDATE_SEEDS = 100_000
"""Difference between the seeds of one image's best-of-n candidates."""

LARGEST_SEED = 2**31 - 1
"""Largest seed that a visitor can choose, and of images of sessions."""
LONGEST_PROMPT = 1000
"""Largest number of characters of a visitor's prompt, or of one proposed in a session."""


class ImagesConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the drawn images: numbers and batch size."""

    per_prompt: PositiveInt = 16
    """Images of each prompt."""
    per_focus_prompt: PositiveInt = 96
    """Images of each of `run.focus_prompts`."""
    batch: PositiveInt = 32
    """Images per batch; it changes images only by rounding. It is halved, repeatedly if needed,
    when the memory of a GPU runs out."""


@dataclass(frozen=True)
class Planned:
    """One image to draw."""

    prompt: str
    seed: int

    @property
    def file_name(self) -> str:
        """Name of the image's file, the same in every attempt."""
        return f"{prompt_id(self.prompt)[:12]}-{self.seed:07d}.png"


def round_seeds(number: int, *, scored: bool = False) -> int:
    """Return the seed offset of a round; if `scored`, of images scored by the reward alone."""
    if number == 1:
        return SCORED_SEEDS if scored else 0
    return ROUND_SEEDS + (number - 2) * SEEDS_PER_ROUND + scored * SEEDS_PER_ROUND // 2


def seeded(prompts: Iterable[str], count: int, run_seed: int, *, offset: int = 0) -> list[Planned]:
    """Return `count` images of each prompt, with the same seeds for all prompts."""
    first = run_seed * SEEDS_PER_RUN + offset
    return [Planned(prompt, first + i) for prompt in prompts for i in range(count)]


def candidate_seeds(seed: int, candidates: int) -> list[int]:
    """Return the seeds of one image's candidates; `seed` is the first."""
    return [seed + number * CANDIDATE_SEEDS for number in range(candidates)]


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
