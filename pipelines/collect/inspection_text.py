"""The first look at the labels as plain text, for a terminal."""

from collections.abc import Sequence
from typing import Any

from pipelines.collect.inspection import QUANTILES, by_count
from pipelines.pages.page import number, percent

LISTED = 12
"""Most rows of a table."""


def as_text(seen: dict[str, Any]) -> str:
    """Return the first look as plain text: tables with empty lines between them."""
    parts = (_summary, _verdicts, _agreement, _raters, _times, _places, _disputed)
    tables = [part(seen) for part in parts]
    return "\n\n".join(table for table in tables if table)


def _summary(seen: dict[str, Any]) -> str:
    labels, tasks = seen["labels"], seen["tasks"]
    checks = f"({tasks['gold']} gold, {tasks['repeats']} repeats)"
    asked, given = f"{seen['asked']} tasks {checks}", seen["given"]
    raters = f"{len(seen['raters'])} rater{'s' if len(seen['raters']) != 1 else ''}"
    sources = (
        ", ".join(f"{count} {source}" for source, count in seen["sources"].items()) or "none yet"
    )
    lines = [
        f"run {seen['run']}: {seen['images']} images of {seen['prompts']} prompts, {asked}",
        f"{given} by {raters}: {sources}",
    ]
    if labels["comparisons"]:
        lines.append(f"what comparisons say of the models: make compare-report RUN={seen['run']}")
    if len(seen["sources"]) > 1:
        alone = seen["agreement"]["raters"]
        lines.append(
            "verdicts, seconds, places and disputed images count all of these together; "
            f"agreement is among {alone} alone"
        )
    return "\n".join(lines)


def _verdicts(seen: dict[str, Any]) -> str:
    if not seen["labels"]["binary"]:
        return ""
    head = ["category", "verdicts", "good", "bad", "skip", "unsafe", "share good"]
    counts = ("n", "good", "bad", "skip", "unsafe")
    rows = [*by_count(seen["labels"]["categories"]), seen["labels"]["total"]]
    lines = [
        [row["name"], *(row[name] for name in counts), percent(row["share_good"])] for row in rows
    ]
    return _columns(head, lines)


def _agreement(seen: dict[str, Any]) -> str:
    lines = []
    for kind, title in (("binary", "verdicts"), ("ranking", "rankings")):
        figures = seen["agreement"][kind]
        if figures["alpha"] is not None:
            bounds = (figures["alpha_ci_low"], figures["alpha_ci_high"])
            interval = number(None) if bounds[0] is None else _interval(bounds, number)
            lines.append(
                [title, number(figures["alpha"]), interval, figures["n_tasks"], figures["n_labels"]]
            )
    if not lines:
        if any(seen["agreement"][kind]["n_tasks"] for kind in ("binary", "ranking")):
            return "agreement: everybody gave the same answer to everything"
        return f"agreement: no task was answered by two {seen['agreement']['raters']}"
    title = f"agreement ({seen['agreement']['source']})"
    return _columns([title, "alpha", "95 %", "tasks", "labels"], lines)


def _raters(seen: dict[str, Any]) -> str:
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


def _rater_line(rater: dict[str, Any]) -> list[object]:
    seconds = None if rater["median_ms"] is None else rater["median_ms"] / 1000
    gold = percent(None)
    if rater["gold_n"]:
        gold = _interval((rater["gold_ci_low"], rater["gold_ci_high"]))
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


def _times(seen: dict[str, Any]) -> str:
    if not seen["times"]:
        return ""
    head = ["seconds on a task", "labels", "5 %", "25 %", "median", "75 %", "95 %"]
    lines = [
        [row["kind"], row["n"], *(number(row[name], 1) for name in QUANTILES)]
        for row in seen["times"]
    ]
    return _columns(head, lines)


def _places(seen: dict[str, Any]) -> str:
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


def _disputed(seen: dict[str, Any]) -> str:
    if not seen["disputed"]:
        return ""
    lines = [
        [row["image_id"][:12], row["good"], row["bad"], _short(row["prompt"])]
        for row in seen["disputed"][:LISTED]
    ]
    return _columns(["disputed image", "good", "bad", "prompt"], lines)


def _interval(bounds: Sequence[float], form: Any = percent) -> str:
    return f"{form(bounds[0])} to {form(bounds[1])}"


def _short(text: str, length: int = 60) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= length else one_line[: length - 1] + "…"


def _columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; the first column, prompts and sources stand left, the rest right."""
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
