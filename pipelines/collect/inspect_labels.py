"""Stage `inspect`: an analyst's overview of the labels, as tables and as an HTML page with plots.

The stage reads only `labels/latest/` and the image files, so it also works on a copy of a run's
folder.
"""

from collections.abc import Callable, Sequence
from typing import Any

from data.runs import RunFolder
from pipelines.collect.inspection import QUANTILES, Rows, by_count, inspection_figures
from pipelines.pages.charts import (
    position_chart,
    progress_chart,
    rater_chart,
    time_chart,
    verdict_chart,
)
from pipelines.pages.page import image_uri, number, percent, svg_uri, write_page
from pipelines.settings.config import Settings

FILE = "inspection.html"
LISTED = 12
"""Largest number of rows of a table."""


def main(run: RunFolder, settings: Settings) -> None:  # noqa: ARG001 - every stage is called alike
    """Print the tables and write `labels/inspection.html`."""
    seen = inspection_figures(run)
    parts = (_summary, _verdicts, _agreement, _raters, _times, _places, _disputed)
    print("\n\n".join(table for part in parts if (table := part(seen))))
    page = run.labels_dir / FILE
    drawn = {
        "charts": _charts(seen),
        "disputed": _with_images(run, seen["disputed"]),
        "agreement_rows": _by_category(seen["agreement"]),
    }
    write_page("inspection.html.jinja", seen | drawn, page)
    print(f"\ninspect: {page}")


def _charts(seen: dict[str, Any]) -> dict[str, str | None]:
    """Return charts by name; None for charts without data."""
    labels = seen["labels"]
    verdicts = [*by_count(labels["categories"]), labels["total"]] if labels["binary"] else []
    dots = [
        rater | {"seconds": rater["median_ms"] / 1000, "agreement": rater["others_agreement"]}
        for rater in seen["raters"]
        if rater["others_agreement"] is not None and rater["median_ms"]
    ]
    shown: dict[str, tuple[Any, Callable[[Any], str]]] = {
        "verdicts": (verdicts, verdict_chart),
        "progress": (seen["progress"], progress_chart),
        "times": (seen["seconds"], time_chart),
        "places": (seen["places"], position_chart),
        "raters": (dots, rater_chart),
    }
    return {name: svg_uri(draw(rows)) if rows else None for name, (rows, draw) in shown.items()}


def _by_category(agreement: dict[str, Any]) -> Rows:
    """Return the agreement on verdicts and rankings by category, if it has either."""
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


def _with_images(run: RunFolder, disputed: Rows) -> Rows:
    """Return the rows whose image file still exists, with the image for a page."""
    there = [
        row for row in disputed if row["path"] is not None and (run.root / row["path"]).is_file()
    ]
    return [row | {"uri": image_uri(run.root / row["path"])} for row in there]


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
    head = ["rater", "source", "labels", "skipped", "median s", "gold", "95 %"]
    head += ["consistent", "with others", "skill"]
    more = len(seen["raters"]) - LISTED
    table = _columns(head, [_rater_line(rater) for rater in seen["raters"][:LISTED]])
    return table + (f"\n... and {more} more on the page" if more > 0 else "")


def _rater_line(rater: dict[str, Any]) -> list[object]:
    seconds = None if rater["median_ms"] is None else rater["median_ms"] / 1000
    gold = (rater["gold_ci_low"], rater["gold_ci_high"])
    line = [rater["rater_id"][:8], rater["source"], rater["n"], rater["n_skipped"]]
    line += [number(seconds, 1), percent(rater["gold_accuracy"])]
    line.append(_interval(gold) if rater["gold_n"] else percent(None))
    shares = ("self_consistency", "others_agreement", "skill")
    return [*line, *(percent(rater[name]) for name in shares)]


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
    head = ["place on screen", "rankings", "ranked best", "95 %", "expected"]
    rows = [
        (row["place"], row["n"], row["share"], row["interval"], row["expected"])
        for row in seen["places"]
    ]
    return _columns(
        head, [(at, n, percent(s), _interval(ends), percent(e)) for at, n, s, ends, e in rows]
    )


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
    """Return a table as text; the first column, prompts and sources are left-aligned."""
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
