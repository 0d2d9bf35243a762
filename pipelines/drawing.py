"""Images that stages draw: their seeds, their file names, and drawing those that are missing.

The name of an image's file says its prompt and seed, so an interrupted run finds what is there and
draws only the rest.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor
from tqdm import tqdm

from data.schema import prompt_id
from finetune.diffusion import DiffusionModel, Precision
from finetune.processes import SINGLE_PROCESS, Processes
from finetune.sampler import Sampler, draw
from pipelines.image_io import ImageWriter
from pipelines.progress import progress_bar

SEEDS_PER_RUN = 10_000_000
"""Number of seeds that a run has: run s uses those from s times this on. The offsets below keep the
uses within a run apart."""

SCORED_SEEDS, EVALUATION_SEEDS, BEST_OF_SEEDS = 100_000, 5_000_000, 9_000_000
"""Offsets of the images that only the reward scores, of the evaluation, and of `best-of-n`."""

ROUND_SEEDS, SEEDS_PER_ROUND = 2_000_000, 20_000
"""Offset of the images of round 2, and the number of seeds of each round from then on: one half for
the images that are labeled, one for those that only the reward scores."""


class ImagesConfig(BaseModel, frozen=True, extra="forbid"):
    """Number of images that are drawn, and how many at once."""

    per_prompt: PositiveInt = 16
    """Images of each prompt."""
    per_focus_prompt: PositiveInt = 96
    """Images of each of `run.focus_prompts`."""
    batch: PositiveInt = 32
    """Images drawn at once; they do not depend on it except for rounding. Half as many, again and
    again, where a GPU's memory does not hold them."""
    precision: Precision = "fp32"
    """Arithmetic of the UNet; bf16 is about 1.7 times as fast on CPUs that have it. fp16 rounds
    finer and is for GPUs."""


CANDIDATE_SEEDS = 100_000
"""Distance of the seeds of one image's best-of-n candidates."""


@dataclass(frozen=True)
class Planned:
    """One image to draw."""

    prompt: str
    seed: int

    @property
    def file_name(self) -> str:
        """Name of its file, the same in every attempt."""
        return f"{prompt_id(self.prompt)[:12]}-{self.seed:07d}.png"


def round_seeds(number: int, *, scored: bool = False) -> int:
    """Return the offset of the images of a round, or of those that only the reward scores."""
    if number == 1:
        return SCORED_SEEDS if scored else 0
    return ROUND_SEEDS + (number - 2) * SEEDS_PER_ROUND + scored * SEEDS_PER_ROUND // 2


def seeded(prompts: Iterable[str], count: int, run_seed: int, *, offset: int = 0) -> list[Planned]:
    """Return `count` images of each prompt, with the same seeds for all prompts."""
    first = run_seed * SEEDS_PER_RUN + offset
    return [Planned(prompt, first + i) for prompt in prompts for i in range(count)]


def candidate_seeds(seed: int, candidates: int) -> list[int]:
    """Return the seeds of the candidates from which one image is picked; `seed` is the first."""
    return [seed + number * CANDIDATE_SEEDS for number in range(candidates)]


@dataclass
class Drawer:
    """Draws images by one model, of which each process draws a share."""

    model: DiffusionModel
    batch: int
    """Images drawn at once, if they fit into the device's memory."""
    processes: Processes = SINGLE_PROCESS

    def __post_init__(self) -> None:
        self._at_once = self.batch  # halved for good when memory runs out

    def draw_missing(
        self, planned: Sequence[Planned], folder: Path, sampler: Sampler, *, title: str = "images"
    ) -> int:
        """Draw the images that are not in `folder` yet, with a progress bar; return how many.

        Of several processes each draws whole batches, the same as one process would, so that the
        files are equal; all are there when it returns.
        """
        batches = missing_batches(planned, folder, self.batch)
        missing, total = sum(len(images) for images, _ in batches), len(planned)
        processes = self.processes
        processes.wait()  # all have seen the folder as it was
        done = total - missing
        with progress_bar(title, "image", total=total, done=done) as bar, ImageWriter() as writer:
            for number, (images, size) in enumerate(batches):
                if not processes.has(number):
                    continue
                drawn = self._draw(images, size, sampler)
                writer.write(drawn, [folder / one.file_name for one in images])
                done = min(done + len(images) * processes.count, total)  # the others are as far
                bar.update(done - bar.n)
        processes.wait()
        return missing

    def _draw(self, images: Sequence[Planned], size: int, sampler: Sampler) -> Tensor:
        """Return the images [N, 3, H, W], drawn in a batch that repeats fill up to `size`."""
        filled = [*images, *[images[0]] * (size - len(images))]
        prompts, seeds = [one.prompt for one in filled], [one.seed for one in filled]
        while True:
            batch = min(self._at_once, size)
            try:
                drawn = draw(self.model, prompts, sampler, seeds=seeds, batch=batch)
                return drawn[: len(images)]
            except torch.OutOfMemoryError:
                if batch == 1:
                    raise
            # Outside of the handler, whose error keeps the tensors that did not fit.
            self._at_once = batch // 2
            note = f"{batch} images at once do not fit into the memory: {batch // 2} from now on"
            tqdm.write(note, file=sys.stderr)


def missing_batches(
    planned: Sequence[Planned], folder: Path, batch: int
) -> list[tuple[list[Planned], int]]:
    """Return the batches that draw what is not in `folder`, each with the size it is filled up to.

    Pixels depend on that size by rounding. So each image has the size that it has when all are
    drawn at once, in full batches and a rest, whatever an interrupted call has left.
    """
    whole = len(planned) - len(planned) % batch
    batches = []
    for part, size in (planned[:whole], batch), (planned[whole:], len(planned) - whole):
        missing = [one for one in part if not (folder / one.file_name).exists()]
        starts = range(0, len(missing), size or 1)
        batches += [(missing[start : start + size], size) for start in starts]
    return batches
