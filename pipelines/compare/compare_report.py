"""Stage `compare-report`: the result of the comparisons as a page and `comparison/metrics.json`.

It reads `labels/latest/` alone. If there is an evaluation, its page is written again, since it
begins with people's verdict.
"""

from pathlib import Path

from data.files import write_json
from data.runs import RunFolder
from pipelines.collect.label_statistics import RATERS_OF, counted
from pipelines.compare.arena.analysis import MOST_TIMES, RELEVANT, compare, refuse_no_votes
from pipelines.compare.arena.campaign import Campaign
from pipelines.compare.arena.figures import (
    AXIS_TITLES,
    AxisFigures,
    Comparison,
    PairFigures,
)
from pipelines.compare.arena.intervals import FEWEST
from pipelines.pages.charts import elo_chart, model_colors
from pipelines.pages.page import interval, percent, svg_uri, write_page
from pipelines.settings.config import Settings, check
from pipelines.settings.tables import TABLES

UNANSWERED = "nobody has answered yet"


def main(run: RunFolder, settings: Settings) -> None:
    """Write the page and its figures, and print the verdicts.

    Raises:
        PictuneError: there are no comparisons, or no answer is a vote.
    """
    campaign = Campaign.read(run.latest.resolve(), run.root.name)
    refuse_no_votes(campaign, run.root.name)
    figures = compare(campaign, run.root.name)
    figures = figures.model_copy(update={"verdicts": verdicts(figures)})
    write_json(run.comparison_dir / "metrics.json", figures.model_dump(mode="json"))
    page = write(run, figures)
    print("\n".join([*lines(figures), "", f"compare-report: {page}"]))
    _write_evaluation(run, settings)


def _write_evaluation(run: RunFolder, settings: Settings) -> None:
    if not (run.evaluation_dir / "metrics.json").exists():
        return
    from pipelines.evaluate import page as report_page  # noqa: PLC0415 - loads torch

    report_page.write(run, check(settings.tables, TABLES, str(run.config_file)))


def write(run: RunFolder, figures: Comparison) -> Path:
    """Write `comparison/report.html`; return its path."""
    page = run.comparison_dir / "report.html"
    colors = model_colors(figures.models)
    context = {
        "run": figures.run,
        "figures": figures,
        "raters": RATERS_OF[figures.source],
        "raters_of": RATERS_OF,
        "axis_titles": AXIS_TITLES,
        "colors": colors,
        "charts": {
            one.axis: svg_uri(elo_chart([row.model_dump() for row in one.strengths], colors))
            for one in figures.axes
            if one.strengths
        },
        "counted": counted,
        "caveat": caveat,
        "fewest": FEWEST,
        "most_times": MOST_TIMES,
        "relevant": RELEVANT,
    }
    write_page("comparison.html.jinja", context, page)
    return page


def verdicts(figures: Comparison) -> list[tuple[str, str]]:
    """Return for each axis its title and a sentence on the preferred model and its certainty."""
    answered = [(AXIS_TITLES[axis.axis], verdict(axis)) for axis in figures.axes]
    return answered + [(AXIS_TITLES[axis], f"{UNANSWERED}.") for axis in figures.unanswered]


def verdict(axis: AxisFigures) -> str:
    """Return a sentence on the strongest model of an axis against the next one and the base."""
    if not axis.n:
        return "all that was asked was skipped or reported."
    if not axis.strengths:
        return "the models were not compared with each other, directly or through others."
    best, second = (axis.strengths[i].model for i in (0, 1))
    found = [_against(axis, best, second)]
    if "base" not in (best, second) and pair_of(axis, best, "base") is not None:
        found.append(_against(axis, best, "base"))
    return "; ".join(found) + "." + caveat(axis)


def caveat(axis: AxisFigures) -> str:
    """Return a caveat on the intervals of an axis, or an empty text."""
    if axis.raters == 1:
        return " One rater alone: the intervals are over prompts, and say nothing of other raters."
    if axis.prompts == 1:
        return " One prompt alone: the intervals are over raters, and say nothing of other prompts."
    return ""


def _against(axis: AxisFigures, best: str, other: str) -> str:
    pair = pair_of(axis, best, other)
    if pair is None:
        return f"{best} is ahead of {other}, which it was not compared with directly"
    by = "one rater" if axis.raters == 1 else f"{axis.raters} raters"
    votes = "one vote" if pair.n == 1 else f"{pair.n} votes"
    share = percent(pair.won.share)
    if pair.interval is None:
        return f"{best} won {share} of {votes} by {by} against {other}, too few for an interval"
    bounds = f"{interval(pair.interval, 0, sign=True)} Elo, 95\N{NO-BREAK SPACE}%"
    if pair.interval[0] <= 0:
        won = f"{best} won {share} of {votes} by {by} against {other}"
        return f"no difference found yet: {won} ({bounds})"
    return f"{best} is preferred to {other} in {share} of {votes} by {by} (ahead: {bounds})"


def pair_of(axis: AxisFigures, stronger: str, weaker: str) -> PairFigures | None:
    """Return the figures of two models, or None; `axis.pairs` name the stronger first."""
    names = (stronger, weaker)
    return next((pair for pair in axis.pairs if (pair.first, pair.second) == names), None)


def lines(figures: Comparison) -> list[str]:
    """Return verdicts, and whether labeling may stop, for a terminal."""
    found = [f"{title}: {said}" for title, said in figures.verdicts]
    return found + [
        f"{AXIS_TITLES[axis.axis]}, {pair.first} : {pair.second}: {pair.standing}"
        for axis in figures.axes
        for pair in axis.pairs
    ]
