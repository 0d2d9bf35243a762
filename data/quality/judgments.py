"""The live labels and their tasks as pandas tables: the input of all measures of quality."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa

from data.kinds.registry import KINDS
from data.schema import TASKS, read_table

RATER_KEY = ["source", "rater_id"]
"""Columns that identify a rater."""

_DAWID_SKENE_STEPS = 25
_SHARED_COLUMNS = [
    "label_id",
    "task_id",
    "rater_id",
    "source",
    "gold_correct",
    "time_on_task_ms",
]
_TASK_COLUMNS = ["task_id", "kind", "prompt_id", "repeat_of"]


@dataclass(frozen=True, eq=False)
class DawidSkeneEstimate:
    """Dawid and Skene's estimate of the right verdicts and of each rater's skill."""

    p_good: "pd.Series[float]"
    """Probability of good, by task id."""
    skills: pd.DataFrame
    """Columns `skill`, `ds_sensitivity` and `ds_specificity` of `data.schema.RATERS`, by rater."""


@dataclass(frozen=True, eq=False)
class Judgments:
    """The live labels and their tasks, with the columns of the exported tables."""

    tasks: pd.DataFrame
    """`data.schema.TASKS`."""
    labels: Mapping[str, pd.DataFrame]
    """The table of labels of each kind of task."""

    @classmethod
    def from_tables(cls, tasks: pa.Table, labels: Mapping[str, pa.Table]) -> Self:
        """Convert Arrow tables; columns that no measure needs are omitted."""
        return cls(
            tasks.select(_TASK_COLUMNS).to_pandas(),
            {
                name: table.select([*_SHARED_COLUMNS, *KINDS[name].own_columns]).to_pandas()
                for name, table in labels.items()
            },
        )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the Parquet files of an export.

        Raises:
            PictuneError: a file is missing or broken.
        """
        labels = {name: kind.read(folder) for name, kind in KINDS.items()}
        return cls.from_tables(read_table(folder / "tasks.parquet", TASKS), labels)

    @property
    def skipped(self) -> pd.DataFrame:
        """All labels; the column `skipped` is true for labels that say nothing about quality."""
        return pd.concat(
            table.assign(skipped=KINDS[name].skipped(table)) for name, table in self.labels.items()
        )

    @cached_property
    def by_source(self) -> dict[str, "Judgments"]:
        """The judgments by source, without empty sources, sorted by source.

        Sources are people (`human`), people elsewhere (`imported`), `simulated` raters, and admins
        who decide disputes (`adjudicator`).
        """
        sources = sorted({source for table in self.labels.values() for source in table["source"]})
        return {
            source: Judgments(
                self.tasks,
                {name: table[table["source"] == source] for name, table in self.labels.items()},
            )
            for source in sources
        }

    @property
    def of_raters(self) -> tuple[str, "Judgments"]:
        """The first source that has judgments (people before other raters), and its judgments."""
        raters = [pair for pair in self.by_source.items() if pair[0] != "adjudicator"]
        return next(iter(raters), ("human", self))

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """Good and bad verdicts, without repeats; the column `good` is true or false."""
        given = self._asked_first("binary")
        judged = given[given["label"].isin(["good", "bad"])]
        return judged.assign(good=judged["label"] == "good")

    @property
    def first_rankings(self) -> pd.DataFrame:
        """Rankings of tasks that are no repeats."""
        return self._asked_first("ranking")

    def _asked_first(self, kind: str) -> pd.DataFrame:
        repeats = self.tasks.loc[self.tasks["repeat_of"].notna(), "task_id"]
        return self.labels[kind][~self.labels[kind]["task_id"].isin(repeats)]

    @property
    def won(self) -> pd.DataFrame:
        """Rankings with one best image.

        `first` says whether it was shown first; `images` counts images.
        """
        rows = self.labels["ranking"].dropna(subset="best_image_id")
        columns = (rows[name] for name in ("image_ids", "shown_order", "best_image_id"))
        first = [
            order[list(ids).index(best)] == 0 for ids, order, best in zip(*columns, strict=True)
        ]
        return rows.assign(
            first=np.array(first, bool), images=rows["image_ids"].map(len).astype(int)
        )

    @property
    def ranks(self) -> pd.DataFrame:
        """One row per ranked image of tasks that are no repeats: `image_id`, `rank`."""
        exploded = self.first_rankings.explode(["image_ids", "ranks"]).rename(
            columns={"image_ids": "image_id", "ranks": "rank"}
        )
        return exploded[exploded["rank"].notna()].astype({"rank": "int64"})

    @cached_property
    def dawid_skene(self) -> DawidSkeneEstimate | None:
        """The estimate from tasks with verdicts of two raters or more.

        None without such tasks, or if all their verdicts are the same.
        """
        shared = self.verdicts[self.verdicts.groupby("task_id")["good"].transform("size") > 1]
        return _dawid_skene(shared) if shared["good"].nunique() > 1 else None


def _dawid_skene(shared: pd.DataFrame) -> DawidSkeneEstimate:
    from crowdkit.aggregation import DawidSkene  # noqa: PLC0415 - loads nltk, for a second

    tasks, raters = (pd.Categorical(shared[name]) for name in ("task_id", "rater_id"))
    verdicts = shared["good"].astype("int64").to_numpy()
    coded = pd.DataFrame({"task": tasks.codes, "worker": raters.codes, "label": verdicts})
    with warnings.catch_warnings():
        # crowd-kit 1.4 uses a feature of pandas 3 that pandas 4 removes
        warnings.simplefilter("ignore", DeprecationWarning)
        model = DawidSkene(n_iter=_DAWID_SKENE_STEPS).fit(coded)
    errors, priors, probabilities = model.errors_, model.priors_, model.probas_
    assert errors is not None
    assert priors is not None
    assert probabilities is not None
    # errors: indexed by (worker, given label), with a column for each possible right label
    every_rater = range(len(raters.categories))
    right = {
        label: errors.xs(label, level="label")[label].reindex(every_rater, fill_value=0.0)
        for label in (0, 1)
    }
    skill = priors[0] * right[0] + priors[1] * right[1]
    columns = {"skill": skill, "ds_sensitivity": right[1], "ds_specificity": right[0]}
    skills = pd.DataFrame(columns).set_axis(raters.categories)
    return DawidSkeneEstimate(probabilities[1].sort_index().set_axis(tasks.categories), skills)
