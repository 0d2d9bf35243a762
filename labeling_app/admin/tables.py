"""Tables of the admin page, as values of `gr.Dataframe`; texts of raters are never HTML."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from data.kinds.registry import kind_of
from data.store.people.audit import AuditEntry
from data.store.people.reports import ReportedImage
from data.store.views.overview import GivenLabel
from labeling_app.admin.figures import Dispute, Summary, TableFile
from labeling_app.app_state import image_url

NOTHING = "\N{EN DASH}"

FLAGS = {
    "quick": "answers in tenths of a second",
    "first_place": "always the first place",
    "one_side": "prefers one side",
}
"""Words for the habits of `data.quality.habits`."""

THUMBNAIL = "/api/v1/admin/thumbnails/{}"
BLURRED = "reported"
"""Title of images that the style sheet blurs until the pointer is on them."""

# Title of each column -> its type in `gr.Dataframe`; only `markdown` is no plain text.
COUNTS = {"Done": "number", "Wanted": "number", "Share": "number"}
BY_CATEGORY = {"Category": "str", "Kind": "str"} | COUNTS
AGREEMENT = {"Kind": "str", "Category": "str", "Alpha": "number", "Tasks": "number"}
COMPARISONS = {"Question": "str", "Models": "str", "Votes": "number"} | {
    "The first won": "number",
    "Enough votes": "str",
}
RATERS = {
    "Rater": "str",
    "Flags": "markdown",
    "Role": "str",
    "Status": "str",
    "Labels": "number",
    "Skipped": "number",
    "Gold accuracy": "number",
    "Same again": "number",
    "Skill": "number",
    "Median time": "number",
}
REPORTS = {"Rater": "str", "Reason": "str", "Comment": "str", "When": "str", "Image": "markdown"}
FILES = {"File": "markdown", "Rows": "number", "Kilobytes": "number"}
AUDIT = {"When": "str", "Who": "str", "What": "str", "About": "str", "Change": "str"} | {
    "Image": "markdown"
}

Cell = str | int | tuple[float | None, str]
"""Text, a number, or a number for sorting with its text."""

Quality = Mapping[str, Any]
"""Result of `data.quality.campaign.campaign_quality`."""

Table = dict[str, Any]
"""Value of a `gr.Dataframe`."""


def table(titles: Iterable[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """Return a table that sorts by numbers and shows their texts."""
    listed = list(rows)
    data = [[cell[0] if isinstance(cell, tuple) else cell for cell in row] for row in listed]
    shown = [[cell[1] if isinstance(cell, tuple) else cell for cell in row] for row in listed]
    return {"headers": list(titles), "data": data, "metadata": {"display_value": shown}}


def category_table(summary: Summary) -> Table:
    """Return labels done and wanted, by category and kind."""
    rows = [(one.category, one.kind, *_done(one.done, one.total)) for one in summary.categories]
    return table(BY_CATEGORY, rows)


def category_plot(summary: Summary) -> pd.DataFrame:
    """Return labels by category and state; the plot adds up the kinds."""
    rows = [
        (one.category, count, state)
        for one in summary.categories
        for count, state in ((one.done, "done"), (one.total - one.done, "still wanted"))
    ]
    return pd.DataFrame(rows, columns=["Category", "Labels", "State"])


def hours_plot(summary: Summary, zone: ZoneInfo) -> pd.DataFrame:
    """Return labels by hour of the clock."""
    hours = [f"{hour.astimezone(zone):%H}" for hour in summary.hours]
    return pd.DataFrame({"Hour": hours, "Labels": list(summary.hours.values())})


def agreement_table(quality: Quality) -> Table:
    """Return Krippendorff's alpha by kind and category."""
    rows = [
        (kind, part.get("category", "all"), _alpha(part), part["n_tasks"])
        for kind in ("binary", "ranking")
        for found in [quality["agreement"][kind]]
        for part in (found, *found["categories"])
    ]
    return table(AGREEMENT, rows)


def comparison_table(quality: Quality) -> Table:
    """Return how each pair of models stands, by question."""
    rows = [
        (title, f"{pair.first} : {pair.second}", pair.n, _won(pair.won), pair.standing)
        for title, pair in quality.get("comparisons", ())
    ]
    return table(COMPARISONS, rows)


def people(quality: Quality) -> list[str]:
    """Return the names of the raters who are people."""
    return [rater["name"] for rater in quality["raters"] if rater["source"] == "human"]


def rater_table(quality: Quality) -> Table:
    """Return each rater's figures, in order of joining."""
    return table(RATERS, [_rater_row(rater) for rater in quality["raters"]])


def report_table(image: ReportedImage | None, zone: ZoneInfo) -> Table:
    """Return who reported an image, and why."""
    if image is None:
        return table(REPORTS, [])
    thumbnail = _images([image.image_id], blurred=True)
    rows = [
        (
            one.rater,
            one.reason or "",
            one.comment or "",
            f"{one.submitted_at.astimezone(zone):%Y-%m-%d %H:%M}",
            thumbnail,
        )
        for one in image.reports
    ]
    return table(REPORTS, rows)


def answer_table(dispute: Dispute | None) -> Table:
    """Return all answers to a task: ranks in the order of its images, or in words."""
    given = dispute.answers if dispute else []
    if dispute is None or dispute.task.kind != "ranking":
        rows = [(rater_text(one), answer_text(one), remarks(one)) for one in given]
        return table(("Rater", "Answer", "Remarks"), rows)
    titles = [f"Image {place}" for place, _ in enumerate(dispute.task.image_ids, start=1)]
    ranked = [(rater_text(one), *answer_text(one).split(" "), remarks(one)) for one in given]
    return table(("Rater", *titles, "Remarks"), ranked)


def file_table(files: Sequence[TableFile]) -> Table:
    """Return the files of the last export, to be downloaded."""
    rows = [
        (f"[{one.name}](/api/v1/admin/tables/{one.name})", one.rows, _number(one.bytes / 1000))
        for one in files
    ]
    return table(FILES, rows)


def audit_table(trail: Sequence[AuditEntry], zone: ZoneInfo) -> Table:
    """Return the actions of admins, newest first."""
    rows = []
    for entry in trail:
        is_image = entry.action == "decide_image" and entry.subject is not None
        rows.append(
            (
                f"{entry.at.astimezone(zone):%Y-%m-%d %H:%M:%S}",
                entry.actor or "the app or the shell",
                entry.action.replace("_", " "),
                "the image" if is_image else (entry.subject or "the campaign")[:40],
                _change(entry),
                _images([entry.subject], blurred=True) if is_image else "",
            )
        )
    return table(AUDIT, rows)


def rater_text(entry: GivenLabel) -> str:
    """Return who gave a label."""
    return f"{entry.rater} (decides)" if entry.source == "adjudicator" else entry.rater


def answer_text(entry: GivenLabel) -> str:
    """Return an answer without its remarks: a word, a number, or ranks in the images' order."""
    return kind_of(entry.answer).in_words(entry.answer, entry.task.image_ids)


def remarks(entry: GivenLabel) -> str:
    """Return reason and comment of an answer."""
    return ": ".join(word for word in (entry.answer.reason, entry.answer.comment) if word)


def _images(image_ids: Iterable[str | None], *, blurred: bool = False) -> str:
    """Return Markdown: thumbnails, each with a link to the whole image."""
    title = f' "{BLURRED}"' if blurred else ""
    return " ".join(
        f"[![image {place}]({THUMBNAIL.format(one)}{title})]({image_url(str(one))})"
        for place, one in enumerate(image_ids, start=1)
    )


def _change(entry: AuditEntry) -> str:
    """Return the changes by an action, in words."""
    before, after = entry.before or {}, entry.after or {}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    parts = []
    for name in names:
        values = [_shown(side[name]) for side in (before, after) if name in side]
        parts.append(f"{name.replace('_', ' ')}: {' → '.join(values)}")
    return ", ".join(parts)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: float | None, shown: Callable[[float], str] = "{:.0f}".format) -> Cell:
    """Return a cell that is sorted by its value."""
    return value, NOTHING if value is None else shown(value)


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share * 100:.0f} %"


def _done(done: int, total: int) -> tuple[Cell, Cell, Cell]:
    return done, total, _number(done / total if total else None, _percent)


def _rater_row(rater: Mapping[str, Any]) -> tuple[Cell, ...]:
    gold = _with_interval(*(rater[f"gold_{name}"] for name in ("accuracy", "ci_low", "ci_high")))
    return (
        rater["name"],
        f"**{', '.join(rater['flags']).replace('_', ' ')}**" if rater["flags"] else "",
        rater["role"] if rater["source"] == "human" else rater["source"],
        (rater["status"] or NOTHING).replace("_", " "),
        rater["n"],
        rater["n_skipped"],
        _number(rater["gold_accuracy"], lambda _: f"{gold} of {rater['gold_n']}"),
        _number(rater["self_consistency"], _percent),
        _number(rater["skill"], _percent),
        _number(rater["median_ms"], lambda ms: f"{ms / 1000:.1f} s"),
    )


def _won(won: Any) -> Cell:
    return won.share, _with_interval(won.share, *(won.interval or (None, None)))


def _alpha(part: Mapping[str, Any]) -> Cell:
    bounds = (part["alpha"], part["alpha_ci_low"], part["alpha_ci_high"])
    return _number(part["alpha"], lambda _: _with_interval(*bounds, "{:.2f}".format))


def _with_interval(
    middle: float | None,
    low: float | None,
    high: float | None,
    shown: Callable[[float], str] = _percent,
) -> str:
    if middle is None:
        return NOTHING
    if low is None or high is None:
        return shown(middle)
    return f"{shown(middle)} ({shown(low)} to {shown(high)})"
