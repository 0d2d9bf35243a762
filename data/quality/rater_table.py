"""The table RATERS: each rater's activity, accuracy on gold, consistency, habits and skill."""

import json
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


def _shares(rows: pd.DataFrame, column: str, name: str, share: str) -> pd.DataFrame:
    """Count the rows of each rater, and compute the share of rows where `column` is true.

    Returns:
        By rater: `<name>_n` rows, the column named by `share`, and its 95 % interval.
    """
    values = rows.assign(value=rows[column].astype("float64"))
    table = values.groupby(RATER_KEY)["value"].agg(["size", "mean"])
    bounds = [wilson_interval(round(p * n), n) for n, p in table.itertuples(index=False)]
    low, high = zip(*bounds, strict=True) if bounds else ((), ())
    named = table.rename(columns={"size": f"{name}_n", "mean": share})
    return named.assign(
        **{f"{name}_ci_low": np.array(low, float), f"{name}_ci_high": np.array(high, float)}
    )


def _activity(judgments: Judgments) -> pd.DataFrame:
    rows = judgments.skipped
    timed = rows.astype({"time_on_task_ms": "float64", "active_ms": "float64"})
    return timed.groupby(RATER_KEY).agg(
        n=("label_id", "size"),
        n_skipped=("skipped", "sum"),
        median_ms=("time_on_task_ms", "median"),
        median_active_ms=("active_ms", "median"),
    )


def _gold(judgments: Judgments) -> pd.DataFrame:
    columns = [*RATER_KEY, "gold_correct"]
    given = pd.concat([labels[columns] for labels in judgments.labels.values()])
    checked = given[given["gold_correct"].notna()]
    is_binary = judgments.tasks["kind"] == "binary"
    gold = judgments.tasks[is_binary & judgments.tasks["gold_json"].notna()].set_index("task_id")
    right = gold["gold_json"].map(lambda text: json.loads(text)["verdict"])
    verdicts = judgments.labels["binary"]
    verdicts = verdicts[verdicts["label"].isin(["good", "bad"])]
    verdicts = verdicts.assign(right=verdicts["task_id"].map(right))
    parts = [_shares(checked, "gold_correct", "gold", "gold_accuracy")]
    for verdict in ("good", "bad"):
        name = f"gold_{verdict}"
        rows = verdicts[verdicts["right"] == verdict]
        parts.append(_shares(rows, "gold_correct", name, f"{name}_accuracy"))
    return pd.concat(parts, axis="columns")


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
    shares = _shares(rows, "first", "first_place", "first_place_wins")
    return shares.assign(first_place_expected=rows.groupby(RATER_KEY)["expected"].mean())


def _skills(judgments: Judgments) -> pd.DataFrame:
    """Return each rater's agreement with others, and Dawid-Skene's skills if raters share tasks."""
    names = ["others_n", "others_agreement", "skill", "ds_sensitivity", "ds_specificity"]
    parts = [_skills_of_source(mine) for mine in judgments.by_source.values()]
    if parts:
        return pd.concat(parts).reindex(columns=names)
    nobody = pd.MultiIndex.from_arrays([[], []], names=RATER_KEY)
    return pd.DataFrame(columns=names, index=nobody, dtype="float64")


def _skills_of_source(judgments: Judgments) -> pd.DataFrame:
    verdicts = judgments.verdicts
    by_task = verdicts.groupby("task_id")["good"].agg(["sum", "size"])
    votes = by_task.reindex(verdicts["task_id"]).to_numpy()
    n_good, n = votes[:, 0], votes[:, 1]
    equal = np.where(verdicts["good"], n_good - 1, n - n_good - 1)
    compared = verdicts.assign(equal=equal, others_n=n - 1)
    sums = compared.groupby(RATER_KEY)[["equal", "others_n"]].sum()
    sums["others_agreement"] = sums["equal"] / sums["others_n"].where(sums["others_n"] > 0)
    estimate = judgments.dawid_skene
    return sums if estimate is None else sums.join(estimate.skills, on="rater_id")
