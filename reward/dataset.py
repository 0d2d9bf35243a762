"""The labels as arrays: verdicts and ranked pairs, each with the index of its image and prompt."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import PictuneError
from data.schema import (
    CONSENSUS,
    IMAGES,
    LABELS_BINARY,
    LABELS_PAIRS,
    LABELS_RANKING,
    PROMPTS,
    RATERS,
    TASKS,
    read_table,
)

Indices = NDArray[np.int64]
Numbers = NDArray[np.float32]
Mask = NDArray[np.bool_]

_TASK_KEY = ["task_id", "image_id", "source"]


class _Labels:
    prompt: Indices

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return {name: column for name, column in vars(self).items() if column is not None}

    def where(self, mask: Mask | Indices) -> Self:
        """Return the entries of a mask, or of a list of rows."""
        return type(self)(**{name: column[mask] for name, column in self._columns.items()})

    def joined(self, other: Self) -> Self:
        """Return the entries of both, `other` last."""
        both = {name: [column, vars(other)[name]] for name, column in self._columns.items()}
        return type(self)(**{name: np.concatenate(columns) for name, columns in both.items()})


@dataclass(frozen=True, eq=False)
class Verdicts(_Labels):
    """Verdicts on single images, one entry per rater and image, without skips and unsafe images."""

    image: Indices
    """[V] into `FeedbackDataset.image_ids`."""
    prompt: Indices
    """[V] into `FeedbackDataset.prompts`."""
    good: Numbers
    """[V], 1 for good and 0 for bad."""
    rater: Indices
    """[V] into `FeedbackDataset.raters`."""
    skill: Numbers | None = None
    """[V], probability that the rater is right, NaN if unknown; None without estimates."""
    p_good: Numbers | None = None
    """[V], probability of "good" from all raters of the task, NaN if unknown; None without
    estimates."""


@dataclass(frozen=True, eq=False)
class RankedPairs(_Labels):
    """Pairs of images of one prompt, from rankings; each pair occurs once."""

    image_0: Indices
    """[K] into `FeedbackDataset.image_ids`."""
    image_1: Indices
    """[K] into `FeedbackDataset.image_ids`."""
    prompt: Indices
    """[K] into `FeedbackDataset.prompts`."""
    label_0: Numbers
    """[K]: 1 when image 0 is better, 0.5 for a tie, 0 when it is worse."""
    weight: Numbers
    """[K], 1 / (number of pairs in the ranking), so that every ranking has the same weight."""
    ranking: Indices
    """[K], number of the ranking that the pair belongs to."""
    rater: Indices
    """[K] into `FeedbackDataset.raters`."""
    skill: Numbers | None = None
    """[K], like `Verdicts.skill`."""


@dataclass(frozen=True, eq=False)
class FeedbackDataset:
    """The labeled images of a run and their labels."""

    image_ids: tuple[str, ...]
    """SHA-256 of each labeled image's file."""
    paths: tuple[Path, ...]
    """The file of each image."""
    prompts: tuple[str, ...]
    """The distinct prompts."""
    categories: tuple[str, ...]
    """Category of each prompt; "" if it has none."""
    verdicts: Verdicts
    pairs: RankedPairs
    raters: tuple[str, ...] = ()
    """Public ids of the raters."""

    @classmethod
    def from_latest(cls, latest: Path, run_root: Path) -> Self:
        """Read the labels, ranked pairs, images and prompts of an export.

        The paths of images are relative to `run_root`.

        Raises:
            PictuneError: a table is missing or broken, there are no labels, or labels refer to
                images that are gone.
        """
        verdicts, pairs = read_labels(latest)
        if verdicts.empty and pairs.empty:
            raise PictuneError(
                f"{latest}: no label says good, bad or better; label some images with `make label` "
                "or `make simulate` first"
            )
        images = _read_by_id(latest / "images.parquet", IMAGES, "image_id")
        prompts = _read_by_id(latest / "prompts.parquet", PROMPTS, "prompt_id")
        image_columns = [verdicts["image_id"], pairs["image_id_0"], pairs["image_id_1"]]
        image_ids = _known(pd.concat(image_columns), images.index, latest, "images")
        prompt_columns = [verdicts["prompt_id"], pairs["prompt_id"]]
        prompt_ids = _known(pd.concat(prompt_columns), prompts.index, latest, "prompts")
        raters = pd.Index(sorted({*verdicts["rater_id"], *pairs["rater_id"]}))
        paths = tuple(run_root / path for path in images.loc[image_ids, "path"])
        gone = [path for path in paths if not path.is_file()]
        if gone:
            raise PictuneError(
                f"{latest}: the files of {len(gone)} labeled images are gone, {gone[0]} first; put "
                "them back"
            )
        skills = _skills(latest)
        return cls(
            image_ids=tuple(image_ids),
            paths=paths,
            prompts=tuple(prompts.loc[prompt_ids, "prompt"]),
            categories=tuple(prompts.loc[prompt_ids, "category"].fillna("")),
            verdicts=Verdicts(
                image=_indices(image_ids, verdicts["image_id"]),
                prompt=_indices(prompt_ids, verdicts["prompt_id"]),
                good=(verdicts["label"] == "good").astype(np.float32).to_numpy(),
                rater=_indices(raters, verdicts["rater_id"]),
                skill=_skill_of(verdicts["rater_id"], skills),
                p_good=_p_good(latest, verdicts),
            ),
            pairs=RankedPairs(
                image_0=_indices(image_ids, pairs["image_id_0"]),
                image_1=_indices(image_ids, pairs["image_id_1"]),
                prompt=_indices(prompt_ids, pairs["prompt_id"]),
                label_0=pairs["label_0"].to_numpy(np.float32),
                weight=pairs["weight"].to_numpy(np.float32),
                ranking=pd.factorize(pairs["ranking_label_id"])[0].astype(np.int64),
                rater=_indices(raters, pairs["rater_id"]),
                skill=_skill_of(pairs["rater_id"], skills),
            ),
            raters=tuple(raters),
        )

    def where(self, verdicts: Mask | Indices, pairs: Mask | Indices) -> Self:
        """Return the labels selected by masks or row indices; images and prompts stay the same."""
        return replace(self, verdicts=self.verdicts.where(verdicts), pairs=self.pairs.where(pairs))

    def joined(self, other: Self) -> Self:
        """Return the labels of two parts of one dataset."""
        return replace(
            self,
            verdicts=self.verdicts.joined(other.verdicts),
            pairs=self.pairs.joined(other.pairs),
        )

    @property
    def labeled_images(self) -> Indices:
        """The images with a label, sorted."""
        verdicts, pairs = self.verdicts, self.pairs
        return np.unique(np.concatenate([verdicts.image, pairs.image_0, pairs.image_1]))

    @property
    def labeled_prompts(self) -> Indices:
        """The prompts with a label, sorted."""
        return np.unique(np.concatenate([self.verdicts.prompt, self.pairs.prompt]))

    @property
    def labeling_raters(self) -> Indices:
        """The raters with a label, sorted."""
        return np.unique(np.concatenate([self.verdicts.rater, self.pairs.rater]))

    @property
    def counts(self) -> dict[str, int]:
        """Number of labels of each kind, and of their images and prompts."""
        good = int(self.verdicts.good.sum())
        return {
            "good": good,
            "bad": len(self.verdicts) - good,
            "pairs": len(self.pairs),
            "images": len(self.labeled_images),
            "prompts": len(self.labeled_prompts),
        }


def read_labels(latest: Path) -> tuple[Any, Any]:
    """Return the labels of an export that can be learned from, as two data frames.

    The first has the verdicts "good" and "bad", the second the ranked pairs. Labels of repeated
    tasks are omitted, so that no rater counts twice.
    If an admin decided a task, even with "can't tell", only the admin's label counts.

    Raises:
        PictuneError: a table is missing or broken.
    """
    verdicts = read_table(latest / "labels_binary.parquet", LABELS_BINARY).to_pandas()
    pairs = read_table(latest / "labels_pairs.parquet", LABELS_PAIRS).to_pandas()
    rankings = _read_if_there(latest / "labels_ranking.parquet", LABELS_RANKING)
    decided = [
        task_id
        for table in (verdicts, rankings)
        for task_id in table.loc[table["source"] == "adjudicator", "task_id"]
    ]
    tasks = _read_if_there(latest / "tasks.parquet", TASKS)
    left_out = tasks.loc[tasks["repeat_of"].notna(), "task_id"]
    verdicts, pairs = (
        table[
            ((table["source"] == "adjudicator") | ~table["task_id"].isin(decided))
            & ~table["task_id"].isin(left_out)
        ]
        for table in (verdicts, pairs)
    )
    return verdicts[verdicts["label"].isin(["good", "bad"])], pairs


def label_sources(latest: Path) -> dict[str, int]:
    """Return the number of rows of `read_labels` by source: human, simulated or imported."""
    counts = pd.concat([table["source"] for table in read_labels(latest)]).value_counts()
    return {str(source): int(count) for source, count in counts.items()}


def _read_if_there(path: Path, schema: pa.Schema) -> pd.DataFrame:
    known = read_table(path, schema) if path.is_file() else schema.empty_table()
    table: pd.DataFrame = known.to_pandas()
    return table


def _read_by_id(path: Path, schema: pa.Schema, key: str) -> pd.DataFrame:
    """Return a table indexed by its column `key`, with the first row of each value."""
    table: pd.DataFrame = read_table(path, schema).to_pandas()
    return table.drop_duplicates(key).set_index(key)


def _indices(ids: "pd.Index[str]", column: "pd.Series[str]") -> Indices:
    return ids.get_indexer(pd.Index(column)).astype(np.int64)


def _skills(latest: Path) -> "pd.Series[float] | None":
    """Return the skill of each rater, by id; None without estimates."""
    raters = _read_if_there(latest / "raters.parquet", RATERS).drop_duplicates("rater_id")
    skills = raters.set_index("rater_id")["skill"].astype("float64")
    return skills if skills.notna().any() else None


def _skill_of(raters: "pd.Series[str]", skills: "pd.Series[float] | None") -> Numbers | None:
    return None if skills is None else raters.map(skills).to_numpy(np.float32)


def _p_good(latest: Path, verdicts: pd.DataFrame) -> Numbers | None:
    """Return the task's probability of "good" for each verdict; None without estimates.

    The estimate is by Dawid and Skene, or else by votes.
    """
    path = latest / "consensus.parquet"
    if not path.is_file():
        return None
    table = read_table(path, CONSENSUS).to_pandas()
    known = table[table["p_good"].notna()]
    by_task = known.sort_values("method").drop_duplicates(_TASK_KEY)  # ds before mv
    return (
        verdicts[_TASK_KEY].merge(by_task, on=_TASK_KEY, how="left")["p_good"].to_numpy(np.float32)
    )


def _known(
    ids: "pd.Series[str]", known: "pd.Index[str]", latest: Path, what: str
) -> "pd.Index[str]":
    """Return the distinct `ids`, sorted; refuse unknown ids."""
    distinct = pd.Index(sorted(set(ids)))
    unknown = distinct.difference(known)
    if len(unknown):
        raise PictuneError(
            f"{latest}: labels speak of {len(unknown)} {what} that {what}.parquet does not list, "
            f"{unknown[0]} first; put them back"
        )
    return distinct
