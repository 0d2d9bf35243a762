"""Stage `compare-report`: the result of the comparisons as a page and `comparison/metrics.json`.

It reads `labels/latest/` and the image files. With a trained reward it also measures the agreement
of automatic figures with people. If there is an evaluation, its page is written again, since it
begins with people's verdict.
"""

import sys

from data.files import write_json
from data.runs import RunFolder
from pipelines.compare import page as comparison_page
from pipelines.compare.arena.analysis import Scores, compare, refuse_one_model
from pipelines.compare.arena.campaign import Campaign
from pipelines.compare.arena.settings import ArenaConfig
from pipelines.progress import progress
from pipelines.settings.config import Settings, check
from pipelines.settings.tables import TABLES


def main(run: RunFolder, settings: Settings) -> None:
    """Write the page and its figures, and print a table.

    Raises:
        PictuneError: there are no comparisons, or only one model.
    """
    campaign = Campaign.read(run.latest.resolve(), run.root.name)
    refuse_one_model(campaign, run.root.name)  # before rewards are loaded
    figures = compare(
        campaign,
        run.root.name,
        settings.table("arena", ArenaConfig),
        _automatic_scores(run, settings, campaign),
        lambda axes: progress(axes, "compare", "axis"),
    )
    figures = figures.model_copy(update={"verdicts": comparison_page.verdicts(figures)})
    write_json(run.comparison_dir / "metrics.json", figures.model_dump(mode="json"))
    page = comparison_page.write(run, figures, campaign.images)
    print(comparison_page.table(figures))
    print(f"\ncompare-report: {page}")
    _write_evaluation(run, settings)


def _automatic_scores(run: RunFolder, settings: Settings, campaign: Campaign) -> Scores:
    """Return the automatic figures; none on a machine without models, such as a labeling server."""
    try:
        from pipelines.compare.arena.automatic import automatic_scores  # noqa: PLC0415 - loads torch
    except ModuleNotFoundError as error:
        print(f"compare-report: no automatic figures without {error.name}", file=sys.stderr)
        return {}
    return automatic_scores(run, settings, campaign)


def _write_evaluation(run: RunFolder, settings: Settings) -> None:
    if not (run.evaluation_dir / "metrics.json").exists():
        return
    from pipelines.evaluate import page as report_page  # noqa: PLC0415 - loads torch

    report_page.write(run, check(settings.tables, TABLES, str(run.config_file)))
