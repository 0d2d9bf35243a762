"""The labels as arrays: which rater verdicts and which ranked pairs speak of which picture and prompt."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.errors import PictuneError
from data.schema import (
    CONSENSUS,
    IMAGES,
    LABELS_BINARY,
    LABELS_PAIRS,
    PROMPTS,
    RATERS,
    TASKS,
    read_table,
)

Indices = NDArray[np.int64]
Numbers = NDArray[np.float32]
Mask = NDArray[np.bool_]

_ASKED = ["task_id", "image_id", "source"]


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Labels of single pictures, one entry per rater and picture; skips and unsafe pictures are not among them."""

    image: Indices
    """[V] into `FeedbackDataset.image_ids`."""
    prompt: Indices
    """[V] into `FeedbackDataset.prompts`."""
    good: Numbers
    """[V], 1 for good and 0 for bad."""
    skill: Numbers | None = None
    """[V], probability that the rater is right, NaN where it is not known; None where nobody estimated it."""
    p_good: Numbers | None = None
    """[V], probability of good by all raters of the task, NaN where there is none; None where nobody estimated it."""

    def __len__(self) -> int:
        return len(self.image)

    def where(self, mask: Mask) -> Self:
        """The entries where `mask` [V] holds."""
        return _where(self, mask)


@dataclass(frozen=True, eq=False)
class RankedPairs:
    """Pairs of pictures of one prompt, from rankings; each pair once."""

    image_0: Indices
    """[K] into `FeedbackDataset.image_ids`."""
    image_1: Indices
    """[K] into `FeedbackDataset.image_ids`."""
    prompt: Indices
    """[K] into `FeedbackDataset.prompts`."""
    label_0: Numbers
    """[K]: 1 when picture 0 is better, 0.5 for a tie, 0 when it is worse."""
    weight: Numbers
    """[K]: 1 over the number of pairs of the ranking, so that every ranking counts the same."""
    ranking: Indices | None = None
    """[K], equal for the pairs of one ranking; None where that is not known."""
    skill: Numbers | None = None
    """[K], as `Verdicts.skill`."""

    def __len__(self) -> int:
        return len(self.image_0)

    def where(self, mask: Mask) -> Self:
        """The entries where `mask` [K] holds."""
        return _where(self, mask)


@dataclass(frozen=True, eq=False)
class FeedbackDataset:
    """The labelled pictures of a run, and what raters said of them."""

    image_ids: tuple[str, ...]
    """SHA-256 of each labelled picture's file."""
    paths: tuple[Path, ...]
    """The file of each picture."""
    prompts: tuple[str, ...]
    """The distinct prompts."""
    categories: tuple[str, ...]
    """What each prompt asks for; "" where nobody said."""
    verdicts: Verdicts
    pairs: RankedPairs

    @classmethod
    def from_latest(cls, latest: Path, run_root: Path) -> Self:
        """Reads the labels, ranked pairs, images and prompts of an export; the paths of images are relative to `run_root`.

        Raises:
            PictuneError: a table is missing or broken, there are no labels, or labels speak of images that are gone.
        """
        verdicts, pairs = read_labels(latest)
        if verdicts.empty and pairs.empty:
            raise PictuneError(
                f"{latest}: no label says good, bad or better; label some pictures with `make label` or `make simulate` first"
            )
        images = (
            read_table(latest / "images.parquet", IMAGES)
            .to_pandas()
            .drop_duplicates("image_id")
            .set_index("image_id")
        )
        prompts = (
            read_table(latest / "prompts.parquet", PROMPTS)
            .to_pandas()
            .drop_duplicates("prompt_id")
            .set_index("prompt_id")
        )

        image_ids = _known(
            pd.concat([verdicts["image_id"], pairs["image_id_0"], pairs["image_id_1"]]),
            images.index,
            latest,
            "images",
        )
        prompt_ids = _known(
            pd.concat([verdicts["prompt_id"], pairs["prompt_id"]]), prompts.index, latest, "prompts"
        )
        paths = tuple(run_root / path for path in images.loc[image_ids, "path"])
        gone = [path for path in paths if not path.is_file()]
        if gone:
            raise PictuneError(
                f"{latest}: the files of {len(gone)} labelled images are gone, {gone[0]} first; put them back"
            )
        skills = _skills(latest)
        return cls(
            image_ids=tuple(image_ids),
            paths=paths,
            prompts=tuple(prompts.loc[prompt_ids, "prompt"]),
            categories=tuple(prompts.loc[prompt_ids, "category"].fillna("")),
            verdicts=Verdicts(
                image=image_ids.get_indexer(pd.Index(verdicts["image_id"])).astype(np.int64),
                prompt=prompt_ids.get_indexer(pd.Index(verdicts["prompt_id"])).astype(np.int64),
                good=(verdicts["label"] == "good").astype(np.float32).to_numpy(),
                skill=None
                if skills is None
                else verdicts["rater_id"].map(skills).to_numpy(np.float32),
                p_good=_p_good(latest, verdicts),
            ),
            pairs=RankedPairs(
                image_0=image_ids.get_indexer(pd.Index(pairs["image_id_0"])).astype(np.int64),
                image_1=image_ids.get_indexer(pd.Index(pairs["image_id_1"])).astype(np.int64),
                prompt=prompt_ids.get_indexer(pd.Index(pairs["prompt_id"])).astype(np.int64),
                label_0=pairs["label_0"].to_numpy(np.float32),
                weight=pairs["weight"].to_numpy(np.float32),
                ranking=pd.factorize(pairs["ranking_label_id"])[0].astype(np.int64),
                skill=None
                if skills is None
                else pairs["rater_id"].map(skills).to_numpy(np.float32),
            ),
        )

    def where(self, verdicts: Mask, pairs: Mask) -> Self:
        """The labels where the masks hold, among the same pictures and prompts."""
        return replace(self, verdicts=self.verdicts.where(verdicts), pairs=self.pairs.where(pairs))

    @property
    def counts(self) -> dict[str, int]:
        """How many labels of each kind there are, and of how many pictures and prompts."""
        good = int(self.verdicts.good.sum())
        images = np.unique(
            np.concatenate([self.verdicts.image, self.pairs.image_0, self.pairs.image_1])
        )
        prompts = np.unique(np.concatenate([self.verdicts.prompt, self.pairs.prompt]))
        counts = {"good": good, "bad": len(self.verdicts) - good, "pairs": len(self.pairs)}
        return counts | {"images": len(images), "prompts": len(prompts)}


def read_labels(latest: Path) -> tuple[Any, Any]:
    """What an export has to learn from, as data frames: the rows of single labels that say good or bad, and those of ranked pairs.

    Tasks that ask a rater the same again are checks: their labels are left out, so that nobody counts twice.

    Raises:
        PictuneError: a table is missing or broken.
    """
    verdicts = read_table(latest / "labels_binary.parquet", LABELS_BINARY).to_pandas()
    pairs = read_table(latest / "labels_pairs.parquet", LABELS_PAIRS).to_pandas()
    verdicts = verdicts[verdicts["label"].isin(["good", "bad"])]
    if not (latest / "tasks.parquet").is_file():
        return verdicts, pairs
    tasks = read_table(latest / "tasks.parquet", TASKS).to_pandas()
    again = tasks.loc[tasks["repeat_of"].notna(), "task_id"]
    return verdicts[~verdicts["task_id"].isin(again)], pairs[~pairs["task_id"].isin(again)]


def label_sources(latest: Path) -> dict[str, int]:
    """How many of the rows of `read_labels` are human, simulated or imported."""
    counts = pd.concat([table["source"] for table in read_labels(latest)]).value_counts()
    return {str(source): int(count) for source, count in counts.items()}


L = TypeVar("L", bound="Verdicts | RankedPairs")


def _where(labels: L, mask: Mask) -> L:
    columns = {field.name: getattr(labels, field.name) for field in fields(labels)}
    return replace(
        labels, **{name: column[mask] for name, column in columns.items() if column is not None}
    )


def _skills(latest: Path) -> "pd.Series[float] | None":
    """The skill of each rater, by id; None without a table of raters or without any estimate in it."""
    path = latest / "raters.parquet"
    if not path.is_file():
        return None
    skills = (
        read_table(path, RATERS)
        .to_pandas()
        .drop_duplicates("rater_id")
        .set_index("rater_id")["skill"]
        .astype("float64")
    )
    return skills if skills.notna().any() else None


def _p_good(latest: Path, verdicts: pd.DataFrame) -> Numbers | None:
    """What all raters of each verdict's task make of it, by Dawid and Skene or else by votes; None without a table of consensus."""
    path = latest / "consensus.parquet"
    if not path.is_file():
        return None
    table = read_table(path, CONSENSUS).to_pandas()
    by_method = (
        table[table["p_good"].notna()].sort_values("method").drop_duplicates(_ASKED)
    )  # ds before mv
    return verdicts[_ASKED].merge(by_method, on=_ASKED, how="left")["p_good"].to_numpy(np.float32)


def _known(
    ids: "pd.Series[str]", known: "pd.Index[str]", latest: Path, what: str
) -> "pd.Index[str]":
    """The distinct `ids` in order of their text, all of which must be `known`."""
    distinct = pd.Index(sorted(set(ids)))
    unknown = distinct.difference(known)
    if len(unknown):
        raise PictuneError(
            f"{latest}: labels speak of {len(unknown)} {what} that {what}.parquet does not list, {unknown[0]} first; put them back"
        )
    return distinct
