"""The table CONSENSUS: the raters' joint answer about each image, by several methods."""

import numpy as np
import pandas as pd
import pyarrow as pa

from data.quality.judgments import Judgments
from data.schema import CONSENSUS


def consensus(judgments: Judgments) -> pa.Table:
    """Return CONSENSUS, in the order of tasks and images."""
    parts = [
        part.assign(source=source)
        for source, mine in judgments.by_source.items()
        for part in (_verdicts(mine), _borda(mine.ranks))
        if not part.empty
    ]
    if not parts:
        return CONSENSUS.empty_table()
    order = ["task_id", "image_id", "source", "method"]
    table = pd.concat(parts, ignore_index=True).sort_values(order)
    return pa.Table.from_pandas(table[CONSENSUS.names], schema=CONSENSUS, preserve_index=False)


def _verdicts(judgments: Judgments) -> pd.DataFrame:
    """Compute the majority vote and, if possible, Dawid-Skene's verdict for each task."""
    from scipy.stats import entropy  # noqa: PLC0415 - takes a second

    votes = judgments.verdicts.groupby("task_id").agg(
        image_id=("image_id", "first"), n_raters=("good", "size"), p_good=("good", "mean")
    )
    parts = [votes.assign(method="mv")]
    if judgments.dawid_skene is not None:
        p_good = judgments.dawid_skene.p_good
        parts.append(votes.loc[p_good.index].assign(method="ds", p_good=p_good))
    table = pd.concat(parts).reset_index()
    p = table["p_good"].to_numpy(dtype=float)
    value = np.select([p > 0.5, p < 0.5], [1.0, 0.0], 0.5)
    return table.assign(value=value, entropy=entropy([p, 1 - p], base=2))


def _borda(ranks: pd.DataFrame) -> pd.DataFrame:
    """Compute for each ranked image the mean share of others that it beats; ties count half."""
    by_label = ranks.groupby("label_id")["rank"]
    others = by_label.transform("size") - 1
    # an average rank of k of n is above n - k others, a tie counting as half
    beaten = (others + 1 - by_label.rank(method="average")) / others.where(others > 0)
    rows = ranks.assign(value=beaten)[others > 0]
    by_image = rows.groupby(["task_id", "image_id"])["value"]
    shares = by_image.agg(value="mean", n_raters="size").reset_index()
    return shares.assign(method="borda", p_good=np.nan, entropy=np.nan)
