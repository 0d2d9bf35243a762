"""Figures of an analyst's overview of the labels, from `labels/latest/` alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from data.kinds.registry import KINDS
from data.quality.agreement import agreement_of
from data.quality.judgments import Judgments
from data.quality.regions import looks_of, region_agreement
from data.regions import POINT_RADIUS, Mark, read_regions, words_of
from data.runs import RunFolder
from data.schema import (
    CONSENSUS,
    IMAGES,
    PROMPTS,
    RATERS,
    TASKS,
    read_table,
)
from data.sessions import SESSIONS
from data.tables.parquet import MANIFEST
from pipelines.collect.label_statistics import RATERS_OF, label_statistics

DISPUTED = MARKED = 24
"""Largest number of disputed images, and of marked images, that are shown."""

Rows = list[dict[str, Any]]
Given = Mapping[str, pd.DataFrame]
"""Labels by kind; the keys are the kinds in words."""


TABLES = {
    "images": IMAGES,
    "prompts": PROMPTS,
    "tasks": TASKS,
    "raters": RATERS,
    "consensus": CONSENSUS,
}
"""Tables of an export that the overview reads in addition to the labels."""


def inspection_figures(run: RunFolder) -> dict[str, Any]:
    """Return all figures of the overview.

    Raises:
        PictuneError: a table is missing.
    """
    folder = run.latest.resolve()  # a concurrent export moves the link
    images, prompts, tasks, raters, consensus = (
        read_table(folder / f"{name}.parquet", schema).to_pandas()
        for name, schema in TABLES.items()
    )
    given = {kind.plural: kind.read(folder).to_pandas() for kind in KINDS.values()}
    named = prompts[prompts["category"].notna()]
    categories = dict(zip(named["prompt_id"], named["category"], strict=True))
    sources = pd.concat([table["source"] for table in given.values()]).value_counts()
    agreement = agreement_of(Judgments.read(folder), categories)
    marks = read_regions(folder).to_pylist()
    facts = {row["image_id"]: row for row in images.to_dict("records")}
    sizes = {key: (row["height"], row["width"]) for key, row in facts.items()}
    repeats = set(tasks.loc[tasks["repeat_of"].notna(), "task_id"])
    found = region_agreement(marks, repeats, sizes)
    statistics, counts = label_statistics(folder), _task_counts(tasks)
    shown = [kind for kind in KINDS.values() if counts[kind.name] or kind.always_counted]
    return {
        "run": run.root.name,
        "asked": _listed([f"{counts[kind.name]} {kind.name}" for kind in shown]),
        "given": _listed([f"{statistics[kind.plural]} {kind.plural}" for kind in shown]),
        "kinds": list(KINDS),
        "sessions": _sessions(folder),
        "sources": {str(source): int(count) for source, count in sources.items()},
        "images": len(images),
        "prompts": len(prompts),
        "tasks": counts,
        "labels": statistics,
        "agreement": agreement | {"raters": RATERS_OF[agreement["source"]]},
        "raters": _raters(raters),
        "disputed": _disputed(consensus, images, given["verdicts"]),
        "regions": found and found | {"raters": RATERS_OF[found["source"]]},
        "marked": _marked(marks, facts),
        "exported": json.loads((folder / MANIFEST).read_text(encoding="utf-8")),
    }


def by_count(rows: Rows) -> Rows:
    """Return the rows sorted by falling `n`."""
    return sorted(rows, key=lambda row: -row["n"])


def _sessions(folder: Path) -> str | None:
    """Return the number of sessions and of their answers, in words; None without sessions."""
    file = folder / "sessions.parquet"
    if not file.exists():
        return None
    table = read_table(file, SESSIONS).to_pandas()
    sources = [f"{count} {source}" for source, count in table["source"].value_counts().items()]
    return f"{len(table)} sessions ({', '.join(sources)}), {table['n_turns'].sum()} turns answered"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def _task_counts(tasks: pd.DataFrame) -> dict[str, int]:
    counts = {kind: int((tasks["kind"] == kind).sum()) for kind in KINDS}
    return counts | {
        "gold": int(tasks["is_gold"].sum()),
        "repeats": int(tasks["repeat_of"].notna().sum()),
    }


def _raters(raters: pd.DataFrame) -> Rows:
    """Return the raters with labels, most labels first; unknown values are None."""
    with_labels = raters[raters["n"] > 0]
    named = with_labels.sort_values(["n", "rater_id"], ascending=[False, True]).astype(object)
    rows = named.where(named.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _disputed(votes: pd.DataFrame, images: pd.DataFrame, verdicts: pd.DataFrame) -> Rows:
    """Return the most disputed images by verdicts, without images that an admin decided.

    At equal disagreement, images with more raters come first.
    """
    votes = votes[votes["method"] == "mv"]
    decided = votes.loc[votes["source"] == "adjudicator", "task_id"]
    votes = votes[(votes["n_raters"] > 1) & (votes["entropy"] > 0)]
    votes = votes[~votes["task_id"].isin(decided)]
    order = ["entropy", "n_raters", "image_id"]
    chosen = votes.sort_values(order, ascending=[False, False, True]).head(DISPUTED)
    images = images.drop_duplicates("image_id").set_index("image_id")
    commented = verdicts[verdicts["comment"].notna()]
    remarks = commented.groupby("image_id")["comment"].agg(list)
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


def _marked(marks: Rows, facts: Mapping[str, dict[str, Any]]) -> Rows:
    """Return the images that most raters marked, with the marks of all of them."""
    looks = {key: raters for key, raters in looks_of(marks).items() if key in facts}
    counts = {key: sum(map(bool, raters.values())) for key, raters in looks.items()}
    chosen = sorted(looks, key=lambda key: (-counts[key], -len(looks[key]), key))[:MARKED]
    return [
        {name: facts[key][name] for name in ("path", "prompt", "width", "height")}
        | {"raters": len(looks[key]), "marked": counts[key]}
        | {"radius": POINT_RADIUS * max(facts[key]["width"], facts[key]["height"])}
        | {
            "marks": [
                {"mark": mark, "rater": number, "title": _in_words(mark, facts[key]["prompt"])}
                for number, own in enumerate(looks[key].values())
                for mark in own
            ]
        }
        for key in chosen
        if counts[key]
    ]


def _in_words(mark: Mark, prompt: str) -> str:
    words = words_of(prompt)
    named = ", ".join(words[place] for place in mark.word_indexes if place < len(words))
    return ": ".join(part for part in (mark.aspect, named, mark.comment) if part)
