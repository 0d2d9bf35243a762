"""Texts of the admin page, made of the answers of the admins' JSON routes.

All that raters wrote stays text: HTML is made by templates that escape.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.store.people.reports import MOST_OPEN, Report
from labeling_app.admin.responses import (
    Disputes,
    HourCount,
    NewPassword,
    Plan,
    Quality,
    Reports,
    StreamEntry,
    Summary,
    Tables,
)
from labeling_app.admin.tables import FLAGS, Table, clock, remarks, said, who
from labeling_app.app_state import image_url

PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1] / "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""The templates. None of their output may ever become a Gradio template, which runs `${...}`."""

PAGES.globals |= {
    "image_url": image_url,
    "thumbnail_url": "/api/v1/admin/thumbnails/{}".format,
    "who": who,
    "said": said,
    "remarks": remarks,
}

PLOT_COLUMNS = ("Category", "Labels", "State")

SECTIONS = (
    ("review", "Review"),
    ("progress-tables", "Progress"),
    ("raters", "Raters"),
    ("labels", "Latest labels"),
    ("plan", "Plan"),
    ("tables", "Tables"),
    ("audit", "Audit"),
)
"""Ids of the page's sections with their titles."""


def zone_named(name: str) -> ZoneInfo:
    """Return a time zone; UTC where the browser names one that is not known here."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no name of a zone, or one of a folder
        return ZoneInfo("UTC")


def still_html(name: str) -> str:
    """Return a part of the page that never changes."""
    return PAGES.get_template(f"{name}.html.jinja").render(sections=SECTIONS)


def progress_html(summary: Summary, zone: ZoneInfo) -> str:
    """Return the bar of the campaign's progress, the work that is left, and the last export."""
    progress = summary.progress
    return PAGES.get_template("progress.html.jinja").render(
        done=progress.done,
        total=progress.total,
        work_left=_work_left(progress.seconds_left),
        paused=summary.paused,
        exported=_exported(summary, zone),
    )


def hours_html(hours: Sequence[HourCount], zone: ZoneInfo) -> str:
    """Return bars of the labels by hour."""
    rows = [{"clock": f"{one.hour.astimezone(zone):%H:%M}", "labels": one.labels} for one in hours]
    most = max([one.labels for one in hours] + [1])
    return PAGES.get_template("hours.html.jinja").render(hours=rows, most=most)


def reports_html(reports: Reports, zone: ZoneInfo) -> str:
    """Return the images to decide about, blurred by the style sheet until they are looked at."""

    def line(report: Report) -> str:
        comment = f"“{report.comment}”" if report.comment else None
        words = ", ".join(word for word in (report.reason, comment) if word)
        when = f"{report.submitted_at.astimezone(zone):%Y-%m-%d %H:%M}"
        return f"{report.rater}{words and f': {words}'} ({when})"

    by_rater = Counter(report.rater for image in reports.open for report in image.reports)
    several = [(rater, n) for rater, n in by_rater.most_common() if n > 1]
    template = PAGES.get_template("reports.html.jinja")
    return template.render(reports=reports, report_line=line, several=several, most=MOST_OPEN)


def disputes_html(disputes: Disputes) -> str:
    """Return the tasks that raters disagree on, with a form to decide each."""

    def rank(given: StreamEntry, image_id: str) -> str:
        ranks = getattr(given.answer, "ranks", {})
        return "?" if ranks.get(image_id) is None else str(ranks[image_id])

    return PAGES.get_template("disputes.html.jinja").render(disputes=disputes, rank=rank)


def table_html(table: Table, note: str = "") -> str:
    """Return a table that the page can sort."""
    return PAGES.get_template("table.html.jinja").render(shown=table, note=note)


def plan_html(plan: Plan) -> str:
    """Return a form for the overlap of each kind of task."""
    return PAGES.get_template("plan.html.jinja").render(kinds=plan.kinds)


def downloads_html(tables: Tables) -> str:
    """Return links to the files of the last export."""
    return PAGES.get_template("downloads.html.jinja").render(tables=tables.tables)


def password_html(made: NewPassword) -> str:
    """Return a new password, to be shown once."""
    return PAGES.get_template("password.html.jinja").render(made=made)


def names_html(quality: Quality) -> str:
    """Return the names that the form for raters offers."""
    names = [rater.name for rater in quality.raters if rater.source == "human"]
    return PAGES.get_template("names.html.jinja").render(names=names)


def category_plot(summary: Summary) -> pd.DataFrame:
    """Return labels by category and state, for a plot of stacked bars."""
    rows: list[tuple[str, int, str]] = []
    for category in dict.fromkeys(row.category for row in summary.categories):
        mine = [row for row in summary.categories if row.category == category]
        done, total = sum(row.done for row in mine), sum(row.total for row in mine)
        rows += [(category, done, "done"), (category, max(total - done, 0), "still wanted")]
    return pd.DataFrame(rows, columns=list(PLOT_COLUMNS))


def prompts_note(summary: Summary) -> str:
    """Return how many of the prompts are shown, where these are not all."""
    shown = len({one.prompt for one in summary.prompts})
    if shown >= summary.n_prompts:
        return ""
    return f"The {shown} of {summary.n_prompts} prompts of which most is still wanted."


def agreement_source(quality: Quality) -> str:
    """Return whose labels are compared, in words."""
    simulated = quality.agreement.source == "simulated"
    return "Among simulated raters." if simulated else "Among people."


def flags_note(quality: Quality) -> str:
    """Return the raters who do not seem to look, a sentence each."""
    flagged = [
        f"{rater.name} {' and '.join(FLAGS[flag] for flag in rater.flags)}"
        for rater in quality.raters
        if rater.flags
    ]
    return f"Look into it: {'; '.join(flagged)}." if flagged else ""


def _work_left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes = math.ceil(seconds / 60)
    words = f"{minutes} min" if minutes < 90 else f"{minutes / 60:.0f} h"
    return f"; about {words} of work left"


def _exported(summary: Summary, zone: ZoneInfo) -> str:
    if summary.export_error:
        return f"the last export failed: {summary.export_error}"
    if summary.last_export is None:
        return "not exported since the start"
    return f"last export {clock(summary.last_export, zone)}"
