"""The page and the table of a comparison campaign: people's verdict on the models."""

from pathlib import Path
from typing import Any

import pandas as pd

from data.runs import RunFolder
from labeling_app.admin.tables import FLAGS
from pipelines.collect.label_statistics import RATERS_OF, counted
from pipelines.compare.arena.figures import (
    AxisFigures,
    Comparison,
    PairFigures,
    RaterRow,
    ShareFigures,
    page_file,
)
from pipelines.compare.arena.ratings import PULL
from pipelines.pages.charts import BLUE, GRAY, RED, YELLOW, elo_chart
from pipelines.pages.page import image_uri, interval, percent, percent_interval, svg_uri, write_page

AXIS_TITLES = {
    "overall": "Overall preference",
    "alignment": "Prompt-image alignment",
    "appeal": "Visual appeal",
    "detailed": "Detailed alignment",
    "count": "Numerical reasoning",
}
UNANSWERED = "nobody has answered yet"
PALETTE = (BLUE, RED, YELLOW, "#2a7f62", "#5b4b8a", "#c8553d", "#1b9aaa")
"""Colors of models in order of strength, but for the base."""


def write(run: RunFolder, figures: Comparison, images: pd.DataFrame) -> Path:
    """Write `comparison/report.html`; `images` is IMAGES by image id. Return its path."""
    page = page_file(run)
    context = {
        "run": figures.run,
        "figures": figures,
        "raters": RATERS_OF[figures.source],
        "raters_of": RATERS_OF,
        "axis_titles": AXIS_TITLES,
        "colors": colors_of(figures),
        "verdicts": verdicts(figures),
        "charts": _charts(figures),
        "matrices": {one.axis: matrix(one) for one in figures.axes},
        "habits": habits,
        "counted": counted,
        "caveat": caveat,
        "pull": PULL,
        "disputes": _with_images(run, figures, images),
    }
    write_page("comparison.html.jinja", context, page)
    return page


def colors_of(figures: Comparison) -> dict[str, str]:
    """Return a color for each model; the base is gray as on the other pages."""
    others = [model for model in figures.models if model != "base"]
    colors = {model: PALETTE[i % len(PALETTE)] for i, model in enumerate(others)}
    return {"base": GRAY} | colors


def verdicts(figures: Comparison) -> list[tuple[str, str]]:
    """Return for each axis, by title, a sentence that says who is preferred, and how surely."""
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
    """Return what the intervals of an axis do not say, if anything."""
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


def pair_of(axis: AxisFigures, first: str, second: str) -> PairFigures | None:
    """Return the figures of two models from the first one's side, if they met."""
    for pair in axis.pairs:
        if (pair.first, pair.second) == (first, second):
            return pair
        if (pair.second, pair.first) == (first, second):
            return _turned(pair)
    return None


def matrix(axis: AxisFigures) -> list[dict[str, Any]]:
    """Return a row for each model, strongest first: its figures against each model, or None."""
    order = [one.model for one in axis.strengths]
    return [
        {"model": row, "cells": [None if row == one else pair_of(axis, row, one) for one in order]}
        for row in order
    ]


def table(figures: Comparison) -> str:
    """Return strengths and pairs as text, for a terminal."""
    lines = []
    for axis in figures.axes:
        title = AXIS_TITLES[axis.axis]
        lines.append(
            f"{title}: {axis.n} votes by {counted(axis.raters, figures.source)} "
            f"on {axis.prompts} prompt{'s' if axis.prompts != 1 else ''}"
        )
        lines += [
            f"  {row.model:24}{row.elo:7.0f} Elo  {interval(row.interval, 0)}"
            for row in axis.strengths
        ]
        lines += [
            f"  {f'{one.first} : {one.second}':24}{percent(one.won.share):>7} won  "
            f"{percent_interval(one.won.interval)} of {one.n}"
            for one in axis.pairs
        ]
        lines += [f"  {_agreed(one.name, one.agreed)}" for one in axis.automatic]
    for one in figures.counts:
        right = "" if one.right is None else f", {percent(one.right.share)} right"
        lines.append(f"Counts: {one.model}: {one.n}, mean {one.mean:.1f}{right}")
    lines += [f"{AXIS_TITLES[axis]}: {UNANSWERED}" for axis in figures.unanswered]
    for rater in figures.raters:
        if seen := habits(rater):
            done = "left out" if rater.rater_id in figures.omitted else "counted"
            advice = "; arena.omit_raters=true leaves such raters out"
            more = "" if figures.omitted or rater.looks else advice
            lines.append(f"Rater {rater.rater_id[:8]}: {seen} ({done}{more})")
    return "\n".join(lines)


def habits(rater: RaterRow) -> str:
    """Return what speaks against a rater's votes, in words; nothing where nothing does."""
    return ", ".join(["by chance"] * rater.by_chance + [FLAGS[flag] for flag in rater.flags])


def _agreed(name: str, agreed: ShareFigures) -> str:
    bounds = percent_interval(agreed.interval)
    return f"{name} orders {percent(agreed.share)} of {agreed.n} decided votes as people ({bounds})"


def _turned(pair: PairFigures) -> PairFigures:
    """Return the same figures from the second model's side."""

    def share(one: ShareFigures) -> ShareFigures:
        return one.model_copy(
            update={
                "share": 1 - one.share,
                "interval": _from_above(one.interval, 1),
                "interval_99": _from_above(one.interval_99, 1),
            }
        )

    changes: dict[str, Any] = {
        "first": pair.second,
        "second": pair.first,
        "wins": pair.losses,
        "losses": pair.wins,
        "won": share(pair.won),
        "probability": None if pair.probability is None else 1 - pair.probability,
        "difference": None if pair.difference is None else -pair.difference,
    }
    for name in ("interval", "interval_99", "at_any_look"):
        changes[name] = _from_above(getattr(pair, name), 0)
    return pair.model_copy(update=changes)


def _from_above(bounds: tuple[float, float] | None, top: float) -> tuple[float, float] | None:
    return None if bounds is None else (top - bounds[1], top - bounds[0])


def _charts(figures: Comparison) -> dict[str, str]:
    colors = colors_of(figures)
    return {
        one.axis: svg_uri(elo_chart([row.model_dump() for row in one.strengths], colors))
        for one in figures.axes
        if one.strengths
    }


def _with_images(run: RunFolder, figures: Comparison, images: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the disputed pairs whose image files exist, with the images for the page."""
    paths = images["path"].to_dict()
    rows = []
    for one in figures.disputes:
        files = [run.root / paths[image] for image in one.images if image in paths]
        if len(files) == 2 and all(file.is_file() for file in files):
            uris = [image_uri(file) for file in files]
            rows.append(one.model_dump() | {"uris": uris})
    return rows
