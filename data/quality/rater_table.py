"""The table RATERS: each rater's activity, accuracy on gold, consistency, habits and skill."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from data.intervals import wilson_interval
from data.quality.judgments import RATER_KEY, Judgments
from data.schema import RATERS
from data.store.views.rows import RaterFacts


def rater_quality(judgments: Judgments, raters: Sequence[RaterFacts]) -> pa.Table:
    """Return the table RATERS for `raters`, in the same order."""
    facts = [(r.public_id, r.source, r.joined_at, r.status) for r in raters]
    known = pd.DataFrame(facts, columns=["rater_id", "source", "joined_at", "status"])
    known = known.set_index(RATER_KEY)
    measures = (_activity, _gold, _repeats, _positions, _skills)
    parts = [measure(judgments).reindex(known.index) for measure in measures]
    table = pd.concat([known, *parts], axis="columns")
    counts = [name for name in RATERS.names if name in ("n", "n_skipped") or name.endswith("_n")]
    table[counts] = table[counts].fillna(0).astype("int64")
    in_order = table.reset_index()[RATERS.names]
    return pa.Table.from_pandas(in_order, schema=RATERS, preserve_index=False)


def _activity(judgments: Judgments) -> pd.DataFrame:
    rows = judgments.skipped
    timed = rows.astype({"time_on_task_ms": "float64"})
    return timed.groupby(RATER_KEY).agg(
        n=("label_id", "size"),
        n_skipped=("skipped", "sum"),
        median_ms=("time_on_task_ms", "median"),
    )


def _gold(judgments: Judgments) -> pd.DataFrame:
    columns = [*RATER_KEY, "gold_correct"]
    given = pd.concat([labels[columns] for labels in judgments.labels.values()])
    checked = given.dropna().astype({"gold_correct": "float64"})
    by_rater = checked.groupby(RATER_KEY)["gold_correct"]
    table = pd.DataFrame(by_rater.agg(gold_n="size", gold_accuracy="mean"))
    bounds = [wilson_interval(round(p * n), n) for n, p in table.itertuples(index=False)]
    low, high = np.array(bounds, float).reshape(-1, 2).T
    return table.assign(gold_ci_low=low, gold_ci_high=high)


def _repeats(judgments: Judgments) -> pd.DataFrame:
    earlier = judgments.tasks.loc[judgments.tasks["repeat_of"].notna(), ["task_id", "repeat_of"]]
    alike = []
    for kind, compare in (("binary", _same_verdict), ("ranking", _same_order)):
        labels = judgments.labels[kind]
        again = labels.merge(earlier, on="task_id")
        pairs = again.merge(
            labels,
            left_on=[*RATER_KEY, "repeat_of"],
            right_on=[*RATER_KEY, "task_id"],
            suffixes=("", "_before"),
        )
        rows = pairs.to_dict("records")
        alike += [(row["source"], row["rater_id"], compare(row)) for row in rows]
    compared = pd.DataFrame(alike, columns=[*RATER_KEY, "same"]).dropna()
    by_rater = compared.groupby(RATER_KEY)["same"]
    return pd.DataFrame(by_rater.agg(repeat_n="size", self_consistency="mean"))


def _same_verdict(row: Mapping[Any, Any]) -> float:
    given = (row["label"], row["label_before"])
    return float(given[0] == given[1]) if set(given) <= {"good", "bad"} else np.nan


def _same_order(row: Mapping[Any, Any]) -> float:
    """Return the share of image pairs that both rankings order, or tie, in the same way."""
    now, before = (
        dict(zip(row[f"image_ids{end}"], row[f"ranks{end}"], strict=True))
        for end in ("", "_before")
    )
    ranked = [image for image in now if not pd.isna(now[image]) and not pd.isna(before.get(image))]
    same = [
        np.sign(now[a] - now[b]) == np.sign(before[a] - before[b])
        for a, b in combinations(ranked, 2)
    ]
    return float(np.mean(same)) if same else np.nan


def _positions(judgments: Judgments) -> pd.DataFrame:
    """Return by rater the share of rankings won by the image shown first, and the expected share.

    Images are shown in random order, so every position should win equally often.
    """
    rows = judgments.won.assign(expected=lambda rows: 1.0 / rows["images"])
    return rows.groupby(RATER_KEY).agg(
        first_place_n=("first", "size"),
        first_place_wins=("first", "mean"),
        first_place_expected=("expected", "mean"),
    )


def _skills(judgments: Judgments) -> pd.DataFrame:
    """Return Dawid-Skene's skills of the raters of each source who share tasks."""
    nobody = pd.MultiIndex.from_arrays([[], []], names=RATER_KEY)
    names = ["skill", "ds_sensitivity", "ds_specificity"]
    parts = [pd.DataFrame(columns=names, index=nobody, dtype="float64")]
    for source, mine in judgments.by_source.items():
        if mine.dawid_skene is not None:
            skills = mine.dawid_skene.skills
            parts.append(pd.concat({source: skills}, names=RATER_KEY))
    return pd.concat(parts)
