"""Stage `inspect`: an analyst's overview of the labels, as an HTML page.

The stage reads only `labels/latest/` and the image files, so it also works on a copy of a run's
folder.
"""

from typing import Any

from data.runs import RunFolder
from pipelines.collect.inspection import Rows, inspection_figures
from pipelines.pages.page import image_uri, write_page
from pipelines.settings.config import Settings

FILE = "inspection.html"


def main(run: RunFolder, settings: Settings) -> None:  # noqa: ARG001 - every stage is called alike
    """Print a summary and write `labels/inspection.html`."""
    seen = inspection_figures(run)
    print(_summary(seen))
    page = run.labels_dir / FILE
    drawn = {
        "disputed": _with_images(run, seen["disputed"]),
        "marked": _with_images(run, seen["marked"]),
        "agreement_rows": _by_category(seen["agreement"]),
    }
    write_page("inspection.html.jinja", seen | drawn, page)
    print(f"\ninspect: {page}")


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
    if seen["sessions"] is not None:
        lines.append(seen["sessions"])
    if labels["comparisons"]:
        lines.append(f"what comparisons say of the models: make compare-report RUN={seen['run']}")
    if len(seen["sources"]) > 1:
        alone = seen["agreement"]["raters"]
        lines.append(
            "verdicts and disputed images count all of these together; "
            f"agreement is among {alone} alone"
        )
    return "\n".join(lines)
