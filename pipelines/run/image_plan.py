"""Images that stages want: their prompts and seeds, and the names of their files."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, PositiveInt

from data.schema import prompt_id

SEEDS_PER_RUN = 10_000_000
"""Number of seeds that a run has: run s uses those from s times this on. The offsets below keep the
uses within a run apart."""

SCORED_SEEDS, EVALUATION_SEEDS, BEST_OF_SEEDS = 100_000, 5_000_000, 9_000_000
"""Offsets of the images that only the reward scores, of the evaluation, and of `best-of-n`."""

ROUND_SEEDS, SEEDS_PER_ROUND = 2_000_000, 20_000
"""Offset of the images of round 2, and the number of seeds of each round from then on: one half for
the labeled images, the other for the images that only the reward scores."""

CANDIDATE_SEEDS = 100_000
"""Distance of the seeds of one image's best-of-n candidates."""


class ImagesConfig(BaseModel, frozen=True, extra="forbid"):
    """Number of images that are drawn, and how."""

    per_prompt: PositiveInt = 16
    """Images of each prompt."""
    per_focus_prompt: PositiveInt = 96
    """Images of each of `run.focus_prompts`."""
    batch: PositiveInt = 32
    """Images drawn at once; they do not depend on it except for rounding. Half as many, again and
    again, where a GPU's memory does not hold them."""


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
    """Return the offset of a round's images; if `scored`, of those that only the reward scores."""
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
