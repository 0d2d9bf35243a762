"""Planning of tasks: one binary task per image, and rankings of several images of one prompt.

Plans depend only on the set of images and the settings: planning the same images again, in any
order, makes the same tasks.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from data.feedback import ChecksConfig, NewTask
from data.regions import ARTIFACT, MISALIGNED

LARGEST_RANKING = 9
"""Largest ranking: each position on the screen and each rank needs a number key."""

MOST_ASPECTS = 9
"""Most aspects of marks: each needs a number key."""


def _check_aspects(names: tuple[str, ...]) -> tuple[str, ...]:
    known = [ARTIFACT, MISALIGNED]
    for name in names:
        if name in known:
            raise ValueError(f"{name!r} is there already; name each aspect once")
        known.append(name)
    return names


Aspect = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00-\x1f]*$")]


class TasksConfig(ChecksConfig, frozen=True, extra="forbid"):
    """Settings of the tasks for a set of images, and of the checks of raters."""

    binary_overlap: Annotated[int, Field(ge=0, le=1000)] = 1
    """Number of people who judge each image good or bad; as many simulated raters may judge it as
    well. 0 makes no binary tasks."""
    rankings_per_prompt: Annotated[int, Field(ge=0)] = 2
    """Rankings of each prompt that has two images or more, each of a different set of images; 0
    makes no rankings."""
    ranking_size: Annotated[int, Field(ge=2, le=LARGEST_RANKING)] = 4
    """Number of images of a ranking; a prompt with fewer images gets a smaller ranking."""
    ranking_overlap: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of people who answer each ranking; as many simulated raters may answer it as well."""
    gold: Path | None = None
    """CSV file of gold: images with known right answers. Every rater gets them, hidden among the
    other tasks."""
    gold_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Probability that the next task is gold, if `gold` is set."""
    marks: Literal["off", "optional", "required"] = "off"
    """Marks on the wrong places of images that raters find bad or report. `required`: a bad verdict
    needs a mark, or the answer that there is nothing to mark."""
    mark_aspects: Annotated[
        tuple[Aspect, ...], Field(max_length=MOST_ASPECTS - 2), AfterValidator(_check_aspects)
    ] = ()
    """Further names for what is wrong at a mark, besides `artifact` and `misaligned`."""

    @property
    def aspects(self) -> tuple[str, ...]:
        """All names for what is wrong at a mark."""
        return (ARTIFACT, MISALIGNED, *self.mark_aspects)


@dataclass(frozen=True)
class ImageRow:
    """The columns of `images.parquet` that planning needs."""

    image_id: str
    prompt: str
    round: int = 1
    """Round in which the image was drawn."""


def plan_tasks(images: Sequence[ImageRow], config: TasksConfig) -> list[NewTask]:
    """Return binary tasks of all images, then the rankings of each prompt and round.

    An image that is listed twice counts once. Only images of one round are ranked together, so the
    images of a new round change no ranking of an earlier one.
    """
    groups: dict[tuple[str, int], set[str]] = {}
    for image in images:
        groups.setdefault((image.prompt, image.round), set()).add(image.image_id)
    tasks: list[NewTask] = []
    for prompt, number in sorted(groups):
        image_ids = sorted(groups[prompt, number])
        if config.binary_overlap:
            asked = partial(NewTask, kind="binary", prompt=prompt, overlap=config.binary_overlap)
            tasks += [asked(image_ids=(image_id,)) for image_id in image_ids]
        asked = partial(NewTask, kind="ranking", prompt=prompt, overlap=config.ranking_overlap)
        size, sets = config.ranking_size, config.rankings_per_prompt
        tasks += [
            asked(image_ids=group)
            for group in ranking_groups(prompt, image_ids, size=size, groups=sets)
        ]
    return sorted(tasks, key=lambda task: task.kind)


def ranking_groups(
    prompt: str, image_ids: Sequence[str], *, size: int, groups: int
) -> list[tuple[str, ...]]:
    """Return at most `groups` different sets of `size` images.

    Each pass uses every image once before it repeats any. The result has fewer sets if `groups`
    passes do not make enough different sets.
    """
    size = min(size, len(image_ids))
    if size < 2:
        return []
    rng = random.Random(prompt)  # seeded by the prompt: planning again must not make new sets
    chosen: dict[tuple[str, ...], None] = {}
    for _ in range(groups):
        order = rng.sample(image_ids, len(image_ids))
        for start in range(0, len(order) - size + 1, size):
            if len(chosen) < groups:
                chosen[tuple(sorted(order[start : start + size]))] = None
    return list(chosen)
