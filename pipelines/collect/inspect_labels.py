"""Stage `inspect`: an analyst's overview of the labels, as tables and as an HTML page with plots.

The stage reads only `labels/latest/` and the image files, so it also works on a copy of a run's
folder.
"""

from collections.abc import Sequence
from typing import Any

from data.quality.regions import IOUS
from data.runs import RunFolder
from pipelines.collect.inspection import Rows, by_count, inspection_figures
from pipelines.pages.charts import verdict_chart
from pipelines.pages.page import image_uri, interval, number, percent, svg_uri, write_page
from pipelines.settings.config import Settings

FILE = "inspection.html"


def main(run: RunFolder, settings: Settings) -> None:  # noqa: ARG001 - every stage is called alike
    """Print the tables and write `labels/inspection.html`."""
    seen = inspection_figures(run)
    parts = (_summary, _verdicts, _agreement, _marks)
    print("\n\n".join(table for part in parts if (table := part(seen))))
    page = run.labels_dir / FILE
    drawn = {
        "charts": _charts(seen),
        "disputed": _with_images(run, seen["disputed"]),
        "marked": _with_images(run, seen["marked"]),
        "agreement_rows": _by_category(seen["agreement"]),
    }
    write_page("inspection.html.jinja", seen | drawn, page)
    print(f"\ninspect: {page}")


def _charts(seen: dict[str, Any]) -> dict[str, str | None]:
    """Return charts by name; None for charts without data."""
    labels = seen["labels"]
    rows = [*by_count(labels["categories"]), labels["total"]] if labels["binary"] else []
    return {"verdicts": svg_uri(verdict_chart(rows)) if rows else None}


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
            known = number(None) if bounds[0] is None else interval(bounds)
            lines.append(
                [title, number(figures["alpha"]), known, figures["n_tasks"], figures["n_labels"]]
            )
    if not lines:
        if any(seen["agreement"][kind]["n_tasks"] for kind in ("binary", "ranking")):
            return "agreement: everybody gave the same answer to everything"
        return f"agreement: no task was answered by two {seen['agreement']['raters']}"
    title = f"agreement ({seen['agreement']['source']})"
    return _columns([title, "alpha", "95 %", "tasks", "labels"], lines)


def _marks(seen: dict[str, Any]) -> str:
    if seen["regions"] is None:
        return ""
    head = [f"marks ({seen['regions']['source']})", "pairs", "presence F1", "kappa"]
    names = ("presence_f1", "kappa", "map_cc")
    lines = [
        [row["aspect"], row["n_pairs"], *map(number, [*(row[n] for n in names), *row["box_f1"]])]
        for row in seen["regions"]["aspects"]
    ]
    return _columns([*head, "maps CC", *(f"boxes F1@{least}" for least in IOUS)], lines)


def _columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as text; the first column is left-aligned."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    row_form = "  ".join(f"{{:{'>' if i else '<'}{width}}}" for i, width in enumerate(widths))
    return "\n".join(row_form.format(*row).rstrip() for row in cells)
