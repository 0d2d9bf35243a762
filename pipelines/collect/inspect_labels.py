"""Stage `inspect`: an analyst's first look at the labels, as tables and as an HTML page with plots.

Reads `labels/latest/` and the image files, nothing else: it works on a copy of a run's folder as
well.
"""

from typing import Any

from data.runs import RunFolder
from pipelines.collect.inspection import Rows, by_count, inspection_figures
from pipelines.collect.inspection_text import as_text
from pipelines.pages.charts import (
    position_chart,
    progress_chart,
    rater_chart,
    time_chart,
    verdict_chart,
)
from pipelines.pages.page import image_uri, svg_uri, write_page
from pipelines.settings.config import Settings

FILE = "inspection.html"


def main(run: RunFolder, settings: Settings) -> None:  # noqa: ARG001 - every stage is called alike
    """Print the tables and write `labels/inspection.html`."""
    seen = inspection_figures(run)
    print(as_text(seen))
    page = run.labels_dir / FILE
    drawn = {
        "charts": _charts(seen),
        "disputed": _with_images(run, seen["disputed"]),
        "agreement_rows": _by_category(seen["agreement"]),
    }
    write_page("inspection.html.jinja", seen | drawn, page)
    print(f"\ninspect: {page}")


def _charts(seen: dict[str, Any]) -> dict[str, str | None]:
    """Return charts by name; None where there is nothing to draw."""
    names = ("verdicts", "progress", "times", "places", "raters")
    charts: dict[str, str | None] = dict.fromkeys(names)
    if seen["labels"]["binary"]:
        rows = [*by_count(seen["labels"]["categories"]), seen["labels"]["total"]]
        charts["verdicts"] = svg_uri(verdict_chart(rows))
    if seen["progress"]:
        charts["progress"] = svg_uri(progress_chart(seen["progress"]))
    if seen["seconds"]:
        charts["times"] = svg_uri(time_chart(seen["seconds"]))
    if seen["places"]:
        charts["places"] = svg_uri(position_chart(seen["places"]))
    dots = [
        rater | {"seconds": rater["median_ms"] / 1000, "agreement": rater["others_agreement"]}
        for rater in seen["raters"]
        if rater["others_agreement"] is not None and rater["median_ms"]
    ]
    if dots:
        charts["raters"] = svg_uri(rater_chart(dots))
    return charts


def _by_category(agreement: dict[str, Any]) -> Rows:
    """Return the agreement on verdicts and rankings of each category that has either."""
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
