"""People's verdict on the models, as the page of the evaluation leads with it."""

from typing import Any

from data.runs import RunFolder
from pipelines.collect.label_statistics import RATERS_OF, counted
from pipelines.compare.arena.figures import Comparison, page_file
from pipelines.compare.page import AXIS_TITLES, colors_of, verdicts
from pipelines.evaluate.models import file_name, tuned_models
from pipelines.pages.charts import elo_chart
from pipelines.pages.page import svg_uri


def peoples_verdict(run: RunFolder) -> dict[str, Any] | None:
    """Return what the page says of the run's comparison; None without one.

    Raises:
        PictuneError: its figures are damaged.
    """
    figures = Comparison.read(run)
    if figures is None:
        return None
    shown = next((axis for axis in figures.axes if axis.strengths), None)
    chart = None
    if shown is not None:
        rows = [row.model_dump() for row in shown.strengths]
        chart = svg_uri(elo_chart(rows, colors_of(figures)))
    return {
        "raters": RATERS_OF[figures.source],
        "verdicts": verdicts(figures),
        "by": counted(len(figures.raters) - len(figures.omitted), figures.source),
        "votes": sum(axis.n for axis in figures.axes),
        "chart": chart,
        "chart_title": AXIS_TITLES[shown.axis] if shown is not None else None,
        "outdated": _tuned_since(run, figures),
        "page": f"../{page_file(run).relative_to(run.root).as_posix()}",
    }


def _tuned_since(run: RunFolder, figures: Comparison) -> list[str]:
    """Return the models that were tuned again after their images were compared."""
    present = {file_name(one.name): one.adapter_hash for one in tuned_models(run)}
    return [
        model
        for model, hashes in figures.models.items()
        if model in present and present[model] not in hashes
    ]
