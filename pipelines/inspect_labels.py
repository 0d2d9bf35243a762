"""Stage `inspect`: an analyst's first look at the labels, as tables in the terminal and as one HTML page with plots.

Reads `labels/latest/` and the image files, nothing else, so that it works on a copy of a run's folder as well.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.intervals import wilson_interval
from data.parquet import MANIFEST
from data.quality import Judgments, agreement_of
from data.runs import RunFolder
from data.schema import (
    CONSENSUS,
    IMAGES,
    LABELS_BINARY,
    LABELS_RANKING,
    PROMPTS,
    RATERS,
    TASKS,
    read_table,
)
from pipelines.charts import position_chart, progress_chart, rater_chart, time_chart, verdict_chart
from pipelines.config import Settings
from pipelines.label_statistics import RATERS_OF, label_statistics
from pipelines.page import number, percent, picture_uri, svg_uri, write_page

FILE = "inspection.html"
DISPUTED = 24
"""Images shown on the page."""
LISTED = 12
"""Rows of a table in the terminal."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Labels:
    """The tables of an export that are looked at."""

    images: pd.DataFrame
    prompts: pd.DataFrame
    tasks: pd.DataFrame
    binary: pd.DataFrame
    rankings: pd.DataFrame
    raters: pd.DataFrame
    consensus: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> "Labels":
        """From the folder of an export; raises PictuneError where a table is missing."""
        named = {
            "images": IMAGES,
            "prompts": PROMPTS,
            "tasks": TASKS,
            "labels_binary": LABELS_BINARY,
            "labels_ranking": LABELS_RANKING,
            "raters": RATERS,
            "consensus": CONSENSUS,
        }
        return cls(
            *(
                read_table(folder / f"{name}.parquet", schema).to_pandas()
                for name, schema in named.items()
            )
        )


def main(run: RunFolder, settings: Settings) -> None:  # noqa: ARG001 - every stage is called alike
    """Prints the tables and writes `labels/inspection.html`."""
    seen = inspect(run)
    print(as_text(seen))
    page = run.labels_dir / FILE
    drawn = {
        "charts": _charts(seen),
        "disputed": _with_pictures(run, seen["disputed"]),
        "agreement_rows": _by_category(seen["agreement"]),
    }
    write_page("inspection.html.jinja", seen | drawn, page)
    print(f"\ninspect: {page}")


def inspect(run: RunFolder) -> dict[str, Any]:
    """All figures of the first look."""
    folder = run.latest.resolve()  # an export that comes meanwhile moves the link
    labels = Labels.read(folder)
    named = labels.prompts[labels.prompts["category"].notna()]
    categories = dict(zip(named["prompt_id"], named["category"], strict=True))
    sources = pd.concat([labels.binary["source"], labels.rankings["source"]]).value_counts()
    agreement = agreement_of(Judgments.read(folder), categories)
    return {
        "run": run.root.name,
        "sources": {str(source): int(count) for source, count in sources.items()},
        "images": len(labels.images),
        "prompts": len(labels.prompts),
        "tasks": _task_counts(labels.tasks),
        "labels": label_statistics(folder),
        "agreement": agreement | {"raters": RATERS_OF[agreement["source"]]},
        "raters": _raters(labels.raters),
        "times": _times(labels),
        "seconds": _seconds(labels),
        "progress": _progress(labels),
        "places": _places(labels.rankings),
        "disputed": _disputed(labels),
        "exported": json.loads((folder / MANIFEST).read_text(encoding="utf-8")),
    }


def _task_counts(tasks: pd.DataFrame) -> dict[str, int]:
    counts = {kind: int((tasks["kind"] == kind).sum()) for kind in ("binary", "ranking")}
    return counts | {
        "gold": int(tasks["is_gold"].sum()),
        "repeats": int(tasks["repeat_of"].notna().sum()),
    }


def _raters(raters: pd.DataFrame) -> Rows:
    """Raters with labels, most first; shares, intervals and skills are None where they are not known."""
    named = (
        raters[raters["n"] > 0]
        .sort_values(["n", "rater_id"], ascending=[False, True])
        .astype(object)
    )
    rows: Rows = [
        {str(name): value for name, value in row.items()}
        for row in named.where(named.notna(), None).to_dict("records")
    ]
    return rows


def _seconds(labels: Labels) -> dict[str, list[float]]:
    """Seconds on a task of each label, by kind; active time where it was measured."""
    seconds = {}
    for kind, table in (("verdicts", labels.binary), ("rankings", labels.rankings)):
        measured = (
            table["active_ms"]
            .astype("float64")
            .fillna(table["time_on_task_ms"].astype("float64"))
            .dropna()
            / 1000
        )
        if len(measured):
            seconds[kind] = measured.tolist()
    return seconds


def _times(labels: Labels) -> Rows:
    return [
        {"kind": kind, "n": len(values)}
        | dict(
            zip(
                ("p5", "p25", "median", "p75", "p95"),
                np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]),
                strict=True,
            )
        )
        for kind, values in _seconds(labels).items()
    ]


def _progress(labels: Labels) -> dict[str, tuple[list[Any], list[int]]]:
    """Moments and labels so far by source, at most 200 points each."""
    both = pd.concat(
        [table[["source", "submitted_at"]] for table in (labels.binary, labels.rankings)]
    )
    progress = {}
    for source, part in both.groupby("source"):
        moments = part["submitted_at"].sort_values().reset_index(drop=True)
        at = np.unique(np.linspace(0, len(moments) - 1, min(len(moments), 200)).astype(int))
        progress[str(source)] = (moments.iloc[at].tolist(), (at + 1).tolist())
    return progress


def _places(rankings: pd.DataFrame) -> Rows:
    """How often the image at each place was ranked best; imported rankings do not tell where an image stood."""
    rows = rankings[rankings["best_image_id"].notna() & (rankings["source"] != "imported")]
    columns = (rows[name] for name in ("image_ids", "shown_order", "best_image_id"))
    best = np.array(
        [order[list(images).index(image)] for images, order, image in zip(*columns, strict=True)],
        int,
    )
    sizes = rows["n_images"].to_numpy(int)
    places = []
    for place in range(int(sizes.max()) if len(sizes) else 0):
        there = sizes > place
        wins, n = int((best[there] == place).sum()), int(there.sum())
        expected = float((1 / sizes[there]).mean())
        interval = wilson_interval(wins, n)
        places.append(
            {
                "place": place + 1,
                "n": n,
                "share": wins / n,
                "interval": interval,
                "expected": expected,
            }
        )
    return places


def _disputed(labels: Labels) -> Rows:
    """The images on whose verdict raters differ most, those with most raters first among equals."""
    votes = labels.consensus[
        (labels.consensus["method"] == "mv")
        & (labels.consensus["n_raters"] > 1)
        & (labels.consensus["entropy"] > 0)
    ]
    chosen = votes.sort_values(
        ["entropy", "n_raters", "image_id"], ascending=[False, False, True]
    ).head(DISPUTED)
    images = labels.images.drop_duplicates("image_id").set_index("image_id")
    remarks = (
        labels.binary[labels.binary["comment"].notna()].groupby("image_id")["comment"].agg(list)
    )
    return [
        {
            "image_id": row["image_id"],
            "path": images["path"].get(row["image_id"]),
            "prompt": images["prompt"].get(row["image_id"], "(image is gone)"),
            "good": round(row["p_good"] * row["n_raters"]),
            "bad": round((1 - row["p_good"]) * row["n_raters"]),
            "source": row["source"],
            "comments": remarks.get(row["image_id"], [])[:3],
        }
        for row in chosen.to_dict("records")
    ]


def _charts(seen: dict[str, Any]) -> dict[str, str | None]:
    """Charts by name; None where there is nothing to draw."""
    charts: dict[str, str | None] = dict.fromkeys(
        ("verdicts", "progress", "times", "places", "raters")
    )
    if seen["labels"]["binary"]:
        charts["verdicts"] = svg_uri(
            verdict_chart([*_by_count(seen["labels"]["categories"]), seen["labels"]["total"]])
        )
    if seen["progress"]:
        charts["progress"] = svg_uri(progress_chart(seen["progress"]))
    if seen["seconds"]:
        charts["times"] = svg_uri(time_chart(seen["seconds"]))
    if seen["places"]:
        charts["places"] = svg_uri(position_chart(seen["places"]))
    known = [
        rater
        for rater in seen["raters"]
        if rater["others_agreement"] is not None and rater["median_ms"]
    ]
    if known:
        dots = [
            rater | {"seconds": rater["median_ms"] / 1000, "agreement": rater["others_agreement"]}
            for rater in known
        ]
        charts["raters"] = svg_uri(rater_chart(dots))
    return charts


def _by_category(agreement: dict[str, Any]) -> Rows:
    """The agreement on verdicts and on rankings for each category that has either."""
    nothing = {"alpha": None, "n_tasks": 0}
    kinds = {
        kind: {row["category"]: row for row in agreement[kind]["categories"]}
        for kind in ("binary", "ranking")
    }
    names = sorted({name for rows in kinds.values() for name in rows})
    return [
        {"category": name} | {kind: rows.get(name, nothing) for kind, rows in kinds.items()}
        for name in names
    ]


def _by_count(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: -row["n"])


def _with_pictures(run: RunFolder, disputed: Rows) -> Rows:
    there = [
        row for row in disputed if row["path"] is not None and (run.root / row["path"]).is_file()
    ]
    return [row | {"uri": picture_uri(run.root / row["path"])} for row in there]


def as_text(seen: dict[str, Any]) -> str:
    """The first look as plain text: tables, each with an empty line above."""
    tables = [
        _summary_text(seen),
        _verdict_text(seen),
        _agreement_text(seen),
        _rater_text(seen),
        _time_text(seen),
        _place_text(seen),
    ]
    return "\n\n".join(table for table in [*tables, _disputed_text(seen)] if table)


def _summary_text(seen: dict[str, Any]) -> str:
    labels, tasks = seen["labels"], seen["tasks"]
    asked = f"{tasks['binary']} binary and {tasks['ranking']} ranking tasks ({tasks['gold']} gold, {tasks['repeats']} repeats)"
    given = f"{labels['binary']} verdicts and {labels['rankings']} rankings by {len(seen['raters'])} raters"
    sources = (
        ", ".join(f"{count} {source}" for source, count in seen["sources"].items()) or "none yet"
    )
    lines = [
        f"run {seen['run']}: {seen['images']} images of {seen['prompts']} prompts, {asked}",
        f"{given}: {sources}",
    ]
    if len(seen["sources"]) > 1:
        alone = seen["agreement"]["raters"]
        lines.append(
            f"verdicts, seconds, places and disputed images count all of these together; agreement is among {alone} alone"
        )
    return "\n".join(lines)


def _verdict_text(seen: dict[str, Any]) -> str:
    if not seen["labels"]["binary"]:
        return ""
    head = ["category", "verdicts", "good", "bad", "skip", "unsafe", "share good"]
    rows = [*_by_count(seen["labels"]["categories"]), seen["labels"]["total"]]
    return _columns(
        head,
        [
            [
                row["name"],
                *(row[name] for name in ("n", "good", "bad", "skip", "unsafe")),
                percent(row["share_good"]),
            ]
            for row in rows
        ],
    )


def _rater_text(seen: dict[str, Any]) -> str:
    head = [
        "rater",
        "source",
        "labels",
        "skipped",
        "median s",
        "gold",
        "95 %",
        "consistent",
        "with others",
        "skill",
    ]
    more = len(seen["raters"]) - LISTED
    table = _columns(head, [_rater_line(rater) for rater in seen["raters"][:LISTED]])
    return table + (f"\n... and {more} more on the page" if more > 0 else "")


def _time_text(seen: dict[str, Any]) -> str:
    if not seen["times"]:
        return ""
    head = ["seconds on a task", "labels", "5 %", "25 %", "median", "75 %", "95 %"]
    names = ("p5", "p25", "median", "p75", "p95")
    return _columns(
        head,
        [
            [row["kind"], row["n"], *(number(row[name], 1) for name in names)]
            for row in seen["times"]
        ],
    )


def _place_text(seen: dict[str, Any]) -> str:
    if not seen["places"]:
        return ""
    lines = [
        [
            row["place"],
            row["n"],
            percent(row["share"]),
            _interval(row["interval"]),
            percent(row["expected"]),
        ]
        for row in seen["places"]
    ]
    return _columns(["place on screen", "rankings", "ranked best", "95 %", "expected"], lines)


def _disputed_text(seen: dict[str, Any]) -> str:
    if not seen["disputed"]:
        return ""
    lines = [
        [row["image_id"][:12], row["good"], row["bad"], _short(row["prompt"])]
        for row in seen["disputed"][:LISTED]
    ]
    return _columns(["disputed image", "good", "bad", "prompt"], lines)


def _agreement_text(seen: dict[str, Any]) -> str:
    lines = []
    for kind, title in (("binary", "verdicts"), ("ranking", "rankings")):
        figures = seen["agreement"][kind]
        if figures["alpha"] is not None:
            interval = _interval((figures["alpha_ci_low"], figures["alpha_ci_high"]), number)
            lines.append(
                [title, number(figures["alpha"]), interval, figures["n_tasks"], figures["n_labels"]]
            )
    if not lines:
        told_alike = any(seen["agreement"][kind]["n_tasks"] for kind in ("binary", "ranking"))
        no_pairs = f"no task was answered by two {seen['agreement']['raters']}"
        return f"agreement: {'everybody gave the same answer to everything' if told_alike else no_pairs}"
    return _columns(
        [f"agreement ({seen['agreement']['source']})", "alpha", "95 %", "tasks", "labels"], lines
    )


def _rater_line(rater: dict[str, Any]) -> list[object]:
    seconds = None if rater["median_ms"] is None else rater["median_ms"] / 1000
    gold = (
        _interval((rater["gold_ci_low"], rater["gold_ci_high"]))
        if rater["gold_n"]
        else percent(None)
    )
    shares = [percent(rater[name]) for name in ("self_consistency", "others_agreement", "skill")]
    return [
        rater["rater_id"][:8],
        rater["source"],
        rater["n"],
        rater["n_skipped"],
        number(seconds, 1),
        percent(rater["gold_accuracy"]),
        gold,
        *shares,
    ]


def _interval(bounds: Sequence[float], form: Any = percent) -> str:
    return f"{form(bounds[0])} to {form(bounds[1])}"


def _short(text: str, length: int = 60) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= length else one_line[: length - 1] + "…"


def _columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; the first column and texts that end a line stand left, the rest right."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 or head[i] in ("prompt", "source") else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)
