"""Who gave each label, and what the other raters of the same picture said: how far one person foretells another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd

from reward.calibration import Values
from reward.dataset import FeedbackDataset, Indices, read_labels


@dataclass(frozen=True, eq=False)
class LabelRaters:
    """The rater of each label of a dataset or of a part of it."""

    names: tuple[str, ...]
    """Public ids of the raters."""
    of_verdicts: Indices
    """[V] into `names`."""
    of_pairs: Indices
    """[K] into `names`."""

    @classmethod
    def from_latest(cls, latest: Path) -> Self:
        """The raters of the labels of an export, in the order of `FeedbackDataset.from_latest`."""
        verdicts, pairs = read_labels(latest)
        names = pd.Index(sorted({*verdicts["rater_id"], *pairs["rater_id"]}))
        columns = (
            names.get_indexer(table["rater_id"]).astype(np.int64) for table in (verdicts, pairs)
        )
        return cls(tuple(names), *columns)

    def of_part(self, dataset: FeedbackDataset, part: FeedbackDataset) -> Self:
        """The raters of a part's labels. A part has all labels of a picture and prompt, or of two pictures, or none."""
        whole, some = dataset.verdicts, part.verdicts
        verdicts = _is_in((whole.image, whole.prompt), (some.image, some.prompt))
        pairs, ranked = dataset.pairs, part.pairs
        kept = _is_in(
            (pairs.image_0, pairs.image_1, pairs.prompt),
            (ranked.image_0, ranked.image_1, ranked.prompt),
        )
        return type(self)(self.names, self.of_verdicts[verdicts], self.of_pairs[kept])


def others_said(answers: Values, rater: Indices, *asked: Indices) -> Values:
    """The mean answer of the other raters of the same question, [V]; NaN where there is none. All arguments [V]; `asked` says what about.

    One rater may have answered a question more than once: none of those answers is another's.
    """
    if not len(answers):
        return np.zeros(0)
    table = pd.DataFrame(
        {"answer": answers, "rater": rater} | {str(i): column for i, column in enumerate(asked)}
    )
    question = [str(i) for i in range(len(asked))]

    def others(what: Literal["sum", "count"]) -> "pd.Series[float]":
        everybody, mine = (
            table.groupby(keys)["answer"].transform(what)
            for keys in (question, [*question, "rater"])
        )
        return everybody - mine

    return np.asarray(others("sum") / others("count").replace(0, np.nan), np.float64)


def _is_in(
    whole: tuple[Indices, ...], some: tuple[Indices, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return pd.MultiIndex.from_arrays(whole).isin(pd.MultiIndex.from_arrays(some))
