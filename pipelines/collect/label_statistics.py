"""Figures on the labels of a run: counts by kind of prompt, and verdicts."""

from pathlib import Path
from typing import Any

import pandas as pd

from data.kinds.registry import KINDS
from data.schema import PROMPTS, read_table

VERDICTS = ("good", "bad", "skip", "unsafe")

RATERS_OF = {
    "human": "people",
    "simulated": "simulated raters",
    "imported": "raters of imported labels",
    "adjudicator": "admins who decided disputes",
}
"""Plural noun for raters of each source of labels."""

RATER_OF = {
    "human": "person",
    "simulated": "simulated rater",
    "imported": "rater of imported labels",
    "adjudicator": "admin who decided disputes",
}
"""Singular noun for a rater of each source of labels."""


def counted(n: int, source: str) -> str:
    """Return a number of raters with the noun of their source."""
    return f"{n} {(RATER_OF if n == 1 else RATERS_OF)[source]}"


def label_statistics(folder: Path) -> dict[str, Any]:
    """Return the figures of the report's section on labels, from the folder of an export.

    `raters` counts the raters with verdicts or rankings.
    """
    tables = {name: kind.read(folder).to_pandas() for name, kind in KINDS.items()}
    binary, rankings = tables["binary"], tables["ranking"]
    prompts = read_table(folder / "prompts.parquet", PROMPTS).to_pandas()
    categories = prompts.set_index("prompt_id")["category"]
    named = binary["prompt_id"].map(categories).fillna("other").rename("category")
    times = binary["time_on_task_ms"]
    given = pd.concat([table[["source", "rater_id"]] for table in (binary, rankings)])
    with_labels = given.drop_duplicates()["source"].value_counts()
    return {
        **{KINDS[name].plural: len(table) for name, table in tables.items()},
        "images": int(binary["image_id"].nunique()),
        "raters": {source: int(count) for source, count in with_labels.items()},
        "median_seconds": None if times.isna().all() else float(times.median() / 1000),
        "categories": [_verdicts(str(name), part["label"]) for name, part in binary.groupby(named)],
        "total": _verdicts("all", binary["label"]),
    }


def _verdicts(name: str, labels: "pd.Series[str]") -> dict[str, Any]:
    counts = {verdict: int((labels == verdict).sum()) for verdict in VERDICTS}
    judged = counts["good"] + counts["bad"]
    return {
        "name": name,
        "n": len(labels),
        **counts,
        "share_good": counts["good"] / judged if judged else None,
    }
