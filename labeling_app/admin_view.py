"""Texts and tables of the admin page, made of the answers of the admins' JSON routes.

All that raters wrote stays text: cells of tables are plain strings, and HTML is made by templates
that escape.
"""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.store.reports import Report
from labeling_app.admin_responses import (
    KindAlpha,
    Quality,
    RaterQuality,
    Reports,
    StreamEntry,
    Summary,
)
from labeling_app.responses import GivenComparison, GivenVerdict

PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""The templates. None of their output may ever become a Gradio template, which runs `${...}`."""

NOTHING = "\N{EN DASH}"

CATEGORY_COLUMNS = ("Category", "Kind", "Done", "Wanted")
PLOT_COLUMNS = ("Category", "Labels", "State")
AGREEMENT_COLUMNS = ("Kind", "Category", "Alpha", "Tasks with several raters")
STREAM_COLUMNS = ("When", "Rater", "Prompt", "Answer")
RATER_COLUMNS = (
    "Rater",
    "Status",
    "Labels",
    "Skipped",
    "Gold accuracy",
    "Gold answers",
    "Same answer again",
    "Skill",
    "Median time",
    "Active",
    "First place",
)


def zone_named(name: str) -> ZoneInfo:
    """Return a time zone; UTC where the browser names one that is not known here."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no name of a zone, or one of a folder
        return ZoneInfo("UTC")


def progress_html(summary: Summary, zone: ZoneInfo) -> str:
    """Return the bar of the campaign's progress, with the last export."""
    progress = summary.progress
    return PAGES.get_template("progress.html.jinja").render(
        done=progress.done,
        total=progress.total,
        time_left=_time_left(progress.seconds_left),
        paused=summary.paused,
        exported=_exported(summary, zone),
    )


def reports_html(reports: Reports, zone: ZoneInfo) -> str:
    """Return the images to decide about, blurred by the style sheet until they are looked at."""

    def line(report: Report) -> str:
        comment = f"“{report.comment}”" if report.comment else None
        words = ", ".join(word for word in (report.reason, comment) if word)
        when = f"{report.submitted_at.astimezone(zone):%Y-%m-%d %H:%M}"
        return f"{report.rater}{words and f': {words}'} ({when})"

    return PAGES.get_template("reports.html.jinja").render(reports=reports, report_line=line)


def category_table(summary: Summary) -> pd.DataFrame:
    """Return labels done and wanted, by category and kind."""
    rows = [(row.category, row.kind, row.done, row.total) for row in summary.categories]
    return _table(rows, CATEGORY_COLUMNS)


def category_plot(summary: Summary) -> pd.DataFrame:
    """Return labels by category and state, for a plot of stacked bars."""
    rows: list[tuple[str, int, str]] = []
    for category in dict.fromkeys(row.category for row in summary.categories):
        mine = [row for row in summary.categories if row.category == category]
        done, total = sum(row.done for row in mine), sum(row.total for row in mine)
        rows += [(category, done, "done"), (category, max(total - done, 0), "still wanted")]
    return _table(rows, PLOT_COLUMNS)


def stream_table(summary: Summary, zone: ZoneInfo) -> pd.DataFrame:
    """Return the latest labels, newest first."""
    rows = [
        (_clock(row.submitted_at, zone), row.rater, row.prompt, _answer_text(row))
        for row in summary.stream
    ]
    return _table(rows, STREAM_COLUMNS)


def agreement_table(quality: Quality) -> pd.DataFrame:
    """Return Krippendorff's alpha by kind and category."""
    kinds = (("binary", quality.agreement.binary), ("ranking", quality.agreement.ranking))
    return _table([row for kind, found in kinds for row in _alphas(kind, found)], AGREEMENT_COLUMNS)


def agreement_source(quality: Quality) -> str:
    """Return whose labels are compared, in words."""
    simulated = quality.agreement.source == "simulated"
    return "Among simulated raters." if simulated else "Among people."


def rater_table(quality: Quality) -> pd.DataFrame:
    """Return each rater's figures, in the order in which they joined."""
    return _table([_rater_row(rater) for rater in quality.raters], RATER_COLUMNS)


def _table(rows: Sequence[tuple[object, ...]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))


def _alphas(kind: str, found: KindAlpha) -> list[tuple[object, ...]]:
    parts = [("all", found), *((part.category, part) for part in found.categories)]
    return [
        (
            kind,
            category,
            _with_interval(part.alpha, part.alpha_ci_low, part.alpha_ci_high, "{:.2f}".format),
            part.n_tasks,
        )
        for category, part in parts
    ]


def _rater_row(rater: RaterQuality) -> tuple[object, ...]:
    gold = _with_interval(rater.gold_accuracy, rater.gold_ci_low, rater.gold_ci_high, _percent)
    return (
        rater.name,
        rater.status or NOTHING,
        rater.n,
        rater.n_skipped,
        gold,
        rater.gold_n,
        _percent(rater.self_consistency),
        _percent(rater.skill),
        _seconds(rater.median_ms),
        _seconds(rater.median_active_ms),
        _first_place(rater),
    )


def _first_place(rater: RaterQuality) -> str:
    if rater.first_place_wins is None:
        return NOTHING
    low, high = rater.first_place_ci_low, rater.first_place_ci_high
    wins = _with_interval(rater.first_place_wins, low, high, _percent)
    return f"{wins}, chance {_percent(rater.first_place_expected)}"


def _with_interval(
    middle: float | None, low: float | None, high: float | None, shown: Callable[[float], str]
) -> str:
    if middle is None:
        return NOTHING
    if low is None or high is None:
        return shown(middle)
    return f"{shown(middle)} ({shown(low)} to {shown(high)})"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share * 100:.0f} %"


def _seconds(milliseconds: float | None) -> str:
    return NOTHING if milliseconds is None else f"{milliseconds / 1000:.1f} s"


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes = math.ceil(seconds / 60)
    return f", about {minutes} min left" if minutes < 90 else f", about {minutes / 60:.0f} h left"


def _exported(summary: Summary, zone: ZoneInfo) -> str:
    if summary.export_error:
        return f"the last export failed: {summary.export_error}"
    if summary.last_export is None:
        return "not exported since the start"
    return f"last export {_clock(summary.last_export, zone)}"


def _clock(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%H:%M:%S}"


def _answer_text(label: StreamEntry) -> str:
    answer = label.answer
    if isinstance(answer, GivenVerdict):
        said: str = answer.verdict
    elif isinstance(answer, GivenComparison):
        said = answer.outcome.replace("_", " ")
        if answer.count is not None:
            said = f"{said} {answer.count}"
    else:
        said = " ".join("?" if rank is None else str(rank) for rank in answer.ranks.values())
    return ": ".join(word for word in (said, answer.reason, answer.comment) if word)
