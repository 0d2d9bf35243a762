"""Planning of comparisons: pairs of images of one prompt and seed by two models, on each axis.

The protocol follows Imagen 3 (arXiv 2408.07009): all pairs of models, each axis asked by itself,
spread evenly over prompts. Plans depend only on images and settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, PositiveInt, field_validator

from data.comparisons import AXES, Axis
from data.errors import PictuneError
from data.feedback import NewTask

WORDINGS = Path(__file__).parents[1] / "wordings"
"""Folder of the built-in wordings, one Markdown file for each axis."""


class CompareConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of comparisons of models by people: models, axes and questions."""

    models: tuple[str, ...] = ()
    """Names of the models: `base`, a method such as `rwl`, in later rounds `rwl-round2`, or a model
    of another run such as `second/rwl`, whose images are those of its evaluation. By default, the
    base and all tuned models of the latest round are compared."""
    axes: tuple[Axis, ...] = Field(default=("overall", "alignment", "appeal"), min_length=1)
    """Questions, each asked by itself, one after the other: overall preference; alignment with the
    prompt; visual appeal, the prompt not shown."""
    prompts_file: Path | None = None
    """Text file with one prompt a line; without it, the prompts of the evaluation."""
    images_per_prompt: PositiveInt = 2
    """Images of each prompt by each model, with the first seeds of the evaluation."""
    overlap: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of people who answer each comparison; as many simulated raters may answer as well."""
    priority: float = 1.0
    """Priority of the last axis; the others come before it. Tasks of other kinds have 0, and higher
    is asked first."""
    wording: dict[Axis, Path] = {}
    """Markdown file with the wording of an axis, in place of the built-in file in
    `labeling_app/wordings/`. Each label records the version that was shown."""

    @field_validator("models", "axes")
    @classmethod
    def _different(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]} stands there twice; name each once")
        return names


@dataclass(frozen=True)
class ComparedImage:
    """An image that a model drew of a prompt with a seed."""

    image_id: str
    prompt: str
    seed: int
    model: str


@dataclass(frozen=True)
class Plan:
    """Comparisons to be added to the store."""

    tasks: list[NewTask]
    same: int = 0
    """Number of pairs that were left out because both models drew the same image."""
    repeated: int = 0
    """Number of pairs that were left out because another pair of models drew the same two
    images."""


def plan_comparisons(
    images: Sequence[ComparedImage], config: CompareConfig, models: Sequence[str]
) -> Plan:
    """Return the comparisons of all pairs of models on each axis.

    Tasks come in passes: each pass asks once about every prompt and pair of models, so that answers
    are spread evenly over prompts whenever raters stop. The first image of a task is from the model
    that comes first in `models`.
    """
    groups: dict[str, dict[int, dict[str, str]]] = {}
    for image in images:
        seeds = groups.setdefault(image.prompt, {})
        seeds.setdefault(image.seed, {})[image.model] = image.image_id
    passes = max(map(len, groups.values()), default=1)
    tasks: dict[tuple[Axis, frozenset[str]], NewTask] = {}
    same = repeated = 0
    for place, axis in enumerate(reversed(config.axes)):
        for prompt, seeds in sorted(groups.items()):
            for number, seed in enumerate(sorted(seeds)):
                there = [model for model in models if model in seeds[seed]]
                for names in combinations(there, 2):
                    image_ids = tuple(seeds[seed][name] for name in names)
                    pair = axis, frozenset(image_ids)
                    if image_ids[0] == image_ids[1]:
                        same += 1
                    elif pair in tasks:
                        repeated += 1
                    else:
                        tasks[pair] = NewTask(
                            kind="comparison",
                            axis=axis,
                            prompt=prompt,
                            image_ids=image_ids,
                            models=names,
                            overlap=config.overlap,
                            priority=config.priority + place - number / passes,
                        )
    return Plan([*tasks.values()], same, repeated)


def read_wordings(config: CompareConfig) -> dict[Axis, str]:
    """Return the wording of every axis.

    Raises:
        PictuneError: a file cannot be read or lacks a required part.
    """
    return {axis: _read_wording(axis, config.wording.get(axis)) for axis in AXES}


def _read_wording(axis: Axis, file: Path | None) -> str:
    path = file or WORDINGS / f"{axis}.md"
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PictuneError(
            f"compare.wording.{axis}: {path} cannot be read ({error}); "
            "name a Markdown file in UTF-8, or remove the setting for our own words"
        ) from error
    if not text:
        raise PictuneError(f"{path}: has no words for the axis {axis}; write the question there")
    return text
