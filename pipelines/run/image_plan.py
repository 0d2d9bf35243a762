"""Planned images: their prompts, seeds and file names."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, PositiveInt

from data.schema import prompt_id

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
