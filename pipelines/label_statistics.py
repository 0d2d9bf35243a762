"""What the labels of a run look like: counts by kind of prompt, shares of verdicts, and how far raters agree."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import pandas as pd

from data.runs import RunFolder
from data.schema import LABELS_BINARY, LABELS_RANKING, PROMPTS, RATERS, read_table

VERDICTS = ("good", "bad", "skip", "unsafe")


def label_statistics(run: RunFolder) -> dict[str, Any]:
    """The figures of the report's section on labels, from `labels/latest`."""
    binary = read_table(run.latest / "labels_binary.parquet", LABELS_BINARY).to_pandas()
    prompts = read_table(run.latest / "prompts.parquet", PROMPTS).to_pandas()
    raters = read_table(run.latest / "raters.parquet", RATERS).to_pandas()
    categories = prompts.set_index("prompt_id")["category"]
    named = binary["prompt_id"].map(categories).fillna("other").rename("category")
    agreement, pairs = agreement_of(zip(binary["image_id"], binary["label"], strict=True))
    return {
        "binary": len(binary),
        "rankings": read_table(run.latest / "labels_ranking.parquet", LABELS_RANKING).num_rows,
        "images": int(binary["image_id"].nunique()),
        "raters": {source: int(count) for source, count in raters["source"].value_counts().items()},
        "median_seconds": None if binary["time_on_task_ms"].isna().all() else float(binary["time_on_task_ms"].median() / 1000),
        "agreement": agreement,
        "agreement_pairs": pairs,
        "categories": [_verdicts(str(name), part["label"]) for name, part in binary.groupby(named)],
        "total": _verdicts("all", binary["label"]),
    }


def agreement_of(labels: Iterable[tuple[str, str]]) -> tuple[float | None, int]:
    """Share of pairs of good or bad verdicts on the same image that are equal, and the number of pairs; None without any."""
    verdicts: dict[str, list[str]] = {}
    for image_id, label in labels:
        if label in ("good", "bad"):
            verdicts.setdefault(image_id, []).append(label)
    equal = [first == second for given in verdicts.values() for first, second in combinations(given, 2)]
    return (sum(equal) / len(equal) if equal else None), len(equal)


def _verdicts(name: str, labels: "pd.Series[str]") -> dict[str, Any]:
    counts = {verdict: int((labels == verdict).sum()) for verdict in VERDICTS}
    judged = counts["good"] + counts["bad"]
    return {"name": name, "n": len(labels), **counts, "share_good": counts["good"] / judged if judged else None}
