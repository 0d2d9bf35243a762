"""The rater of each label, and the answers of the other raters of the same image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd

from reward.calibration import Values
from reward.dataset import FeedbackDataset, Indices, Mask, read_labels


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
        """Read the raters of an export's labels, in the order of `FeedbackDataset.from_latest`."""
        verdicts, pairs = read_labels(latest)
        names = pd.Index(sorted({*verdicts["rater_id"], *pairs["rater_id"]}))
        of_verdicts, of_pairs = (
            names.get_indexer(table["rater_id"]).astype(np.int64) for table in (verdicts, pairs)
        )
        return cls(tuple(names), of_verdicts, of_pairs)

    def of_part(self, dataset: FeedbackDataset, part: FeedbackDataset) -> Self:
        """Return the raters of a part's labels.

        A part has all labels of an image and prompt, or of two images, or none of them.
        """
        whole, some = dataset.verdicts, part.verdicts
        verdicts = _is_in((whole.image, whole.prompt), (some.image, some.prompt))
        pairs, ranked = dataset.pairs, part.pairs
        kept = _is_in(
            (pairs.image_0, pairs.image_1, pairs.prompt),
            (ranked.image_0, ranked.image_1, ranked.prompt),
        )
        return type(self)(self.names, self.of_verdicts[verdicts], self.of_pairs[kept])


def others_said(answers: Values, rater: Indices, *asked: Indices) -> Values:
    """Return the mean answer of the other raters of the same question, [V]; NaN where none is.

    All arguments are [V]; equal rows of `asked` are the same question. One rater may have answered
    a question more than once: all of those answers are excluded.
    """
    if not len(answers):
        return np.zeros(0)
    asked_columns = {str(i): column for i, column in enumerate(asked)}
    table = pd.DataFrame({"answer": answers, "rater": rater} | asked_columns)
    question = list(asked_columns)

    def others(what: Literal["sum", "count"]) -> "pd.Series[float]":
        everybody = table.groupby(question)["answer"].transform(what)
        mine = table.groupby([*question, "rater"])["answer"].transform(what)
        return everybody - mine

    return np.asarray(others("sum") / others("count").replace(0, np.nan), np.float64)


def _is_in(whole: tuple[Indices, ...], some: tuple[Indices, ...]) -> Mask:
    return pd.MultiIndex.from_arrays(whole).isin(pd.MultiIndex.from_arrays(some))
