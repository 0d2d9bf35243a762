"""The labels of a comparison campaign, read from the tables of an export."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from data.comparisons import AXES
from data.errors import PictuneError
from data.schema import (
    IMAGES,
    LABELS_COMPARISONS,
    PLAYGROUND,
    PROMPTS,
    TASKS,
    read_table,
)
from pipelines.compare.arena.votes import Votes, votes_of

SOURCES = ("human", "imported", "simulated")
"""Sources of labels; only the first source with comparisons is used."""
COMPARISONS = "labels_comparisons.parquet"


@dataclass(frozen=True, eq=False)
class Campaign:
    """The labels of a campaign as tables, with the tables of their prompts and images."""

    source: str
    others: dict[str, int]
    """Number of comparisons of each other source, which are not used."""
    labels: pd.DataFrame
    """Rows of `LABELS_COMPARISONS` by the source, without repeats."""
    unanswered: tuple[str, ...]
    """Planned axes without answers."""
    prompts: pd.DataFrame
    """Table `PROMPTS`, indexed by prompt id."""
    images: pd.DataFrame
    """Table `IMAGES`, indexed by image id."""

    @classmethod
    def read(cls, folder: Path, run: str) -> "Campaign":
        """Read the folder of an export; error messages contain `run`, the run's name.

        Raises:
            PictuneError: there are no comparisons.
        """
        labels = pd.DataFrame()
        if (folder / COMPARISONS).exists():
            labels = read_table(folder / COMPARISONS, LABELS_COMPARISONS).to_pandas()
        # Visitors of the playground see the models' names, so their votes are left out.
        votes = labels[labels["app_version"] == PLAYGROUND] if len(labels) else labels
        labels = labels.drop(votes.index)
        if labels.empty:
            raise PictuneError(
                f"{folder}: no comparisons yet; plan some with `make compare RUN={run}` "
                f"and have them answered with `make label RUN={run}`"
            )
        tasks = read_table(folder / "tasks.parquet", TASKS).to_pandas()
        if len(votes):
            tasks = tasks[~tasks["task_id"].isin(votes["task_id"])]
        planned = set(tasks["axis"].dropna())
        repeats = tasks.loc[tasks["repeat_of"].notna(), "task_id"]
        counts = labels["source"].value_counts()
        source = next(one for one in SOURCES if one in counts)
        mine = labels[(labels["source"] == source) & ~labels["task_id"].isin(repeats)]
        prompts = read_table(folder / "prompts.parquet", PROMPTS).to_pandas()
        images = read_table(folder / "images.parquet", IMAGES).to_pandas()
        return cls(
            source=source,
            others={str(one): int(n) for one, n in counts.items() if one != source},
            labels=mine.sort_values("submitted_at", kind="stable"),
            unanswered=tuple(one for one in AXES if one in planned - set(mine["axis"])),
            prompts=prompts.drop_duplicates("prompt_id").set_index("prompt_id"),
            images=images.drop_duplicates("image_id").set_index("image_id"),
        )

    @property
    def axes(self) -> list[str]:
        """The axes with labels."""
        there = set(self.labels["axis"])
        return [axis for axis in AXES if axis in there]

    def of_axis(self, axis: str) -> pd.DataFrame:
        """Return the labels of an axis."""
        return self.labels[self.labels["axis"] == axis]

    def votes(self, axis: str) -> Votes:
        """Return the votes of an axis."""
        return votes_of(self.of_axis(axis), self.categories)

    @cached_property
    def all_votes(self) -> Votes:
        """The votes of all axes; a pair of images is a separate task for each axis."""
        return votes_of(self.labels, self.categories)

    @cached_property
    def categories(self) -> dict[str, str | None]:
        """The category of each prompt id."""
        return {str(one): name or None for one, name in self.prompts["category"].items()}

    @cached_property
    def model_of(self) -> dict[str, str]:
        """The model that drew each compared image, by image id."""
        return {
            image: model
            for ids, names in zip(self.labels["image_ids"], self.labels["models"], strict=True)
            for image, model in zip(ids, names, strict=True)
        }

    @cached_property
    def drawn_by(self) -> dict[str, list[str | None]]:
        """The hashes of the adapters that drew each model's images; None stands for the base."""
        found: dict[str, set[str | None]] = {}
        hashes = self.images["adapter_hash"]
        for image, model in self.model_of.items():
            found.setdefault(model, set())
            if image in hashes.index:
                found[model].add(None if pd.isna(hashes[image]) else str(hashes[image]))
        return {model: sorted(found[model], key=str) for model in sorted(found)}
