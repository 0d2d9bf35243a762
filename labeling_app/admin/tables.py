"""Tables of the admin page: cells with the keys that the page sorts them by.

All that raters wrote stays text: the template escapes it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from data.kinds.registry import kind_of, reported_images
from data.store.people.audit import AuditEntry
from labeling_app.admin.responses import (
    Alpha,
    AuditTrail,
    Quality,
    RaterQuality,
    StreamEntry,
    Summary,
)

NOTHING = "\N{EN DASH}"

FLAGS = {
    "quick": "answers in tenths of a second",
    "first_place": "always the first place",
    "one_side": "prefers one side",
}
"""Words for the habits of `data.quality.habits`."""


@dataclass(frozen=True)
class Column:
    """A column that the page can sort by."""

    title: str
    numbers: bool = False
    help: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell."""

    text: str
    key: str
    """Text or number to sort by; empty where nothing is known."""
    images: Sequence[str] = ()
    """Ids of images that are shown in place of the text."""
    blurred: bool = False
    choose: str = ""
    """Name of the rater whom a click chooses."""
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    name: str
    """Id of its element."""
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    empty: str = "Nothing yet."
    """Text in place of a table without rows."""
    stacks: bool = True
    """Whether a row becomes a list on a phone, where it is too wide for one."""


def category_table(summary: Summary) -> Table:
    """Return labels done and wanted, by category and kind."""
    columns = (Column("Category"), Column("Kind"), *_PROGRESS)
    rows = [
        (_text(one.category), _text(one.kind), *_done(one.done, one.total))
        for one in summary.categories
    ]
    return Table("by-category", "Labels by category", columns, rows, stacks=False)


def prompt_table(summary: Summary) -> Table:
    """Return labels done and wanted, by prompt and kind, those with most to do first."""
    columns = (Column("Prompt"), Column("Category"), Column("Kind"), *_PROGRESS)
    rows = [
        (_text(one.prompt), _text(one.category), _text(one.kind), *_done(one.done, one.total))
        for one in summary.prompts
    ]
    return Table("by-prompt", "Labels by prompt", columns, rows)


def stream_table(summary: Summary, zone: ZoneInfo) -> Table:
    """Return the latest labels, newest first."""
    titles = ("When", "Rater", "Prompt", "Images", "Answer")
    rows = [
        (
            Cell(clock(one.submitted_at, zone), one.submitted_at.isoformat()),
            Cell(who(one), who(one), choose="" if one.source == "adjudicator" else one.rater),
            _text(one.prompt),
            Cell(one.prompt, one.prompt, images=one.image_ids, blurred=_is_report(one)),
            _text(answer_text(one)),
        )
        for one in summary.stream
    ]
    return Table("latest", "Latest labels", [Column(title) for title in titles], rows)


def agreement_table(quality: Quality) -> Table:
    """Return Krippendorff's alpha by kind and category."""
    columns = (
        Column("Kind"),
        Column("Category"),
        Column("Alpha", numbers=True),
        Column("Tasks", numbers=True, help="Tasks with several raters"),
    )
    kinds = (("binary", quality.agreement.binary), ("ranking", quality.agreement.ranking))
    rows = [
        (_text(kind), _text(category), _alpha(part), number(part.n_tasks))
        for kind, found in kinds
        for category, part in (("all", found), *((one.category, one) for one in found.categories))
    ]
    return Table("by-agreement", "Agreement", columns, rows, stacks=False)


RATER_COLUMNS = (
    Column("Rater"),
    Column("Role"),
    Column("Status"),
    Column("Labels", numbers=True),
    Column("Share", numbers=True, help="Share of all labels by people, and the most allowed"),
    Column("Skipped", numbers=True),
    Column("Gold accuracy", numbers=True, help="With its 95 % interval"),
    Column("Same again", numbers=True, help="Share of repeated questions answered alike"),
    Column("Skill", numbers=True, help="Chance to be right, from others' answers (Dawid-Skene)"),
    Column("Median time", numbers=True),
    Column("Quick", numbers=True, help="Answers in less than half a second per image"),
    Column("First place", numbers=True, help="Rankings won by the image shown first, and chance"),
    Column("Left", numbers=True, help="Comparisons won by the image at the left; chance is half"),
    Column("Flags"),
)


def rater_table(quality: Quality) -> Table:
    """Return each rater's figures, in the order in which they joined."""
    total = sum(rater.n for rater in quality.raters if rater.source == "human")
    rows = [_rater_row(rater, total) for rater in quality.raters]
    return Table("by-rater", "Raters", RATER_COLUMNS, rows)


def audit_table(trail: AuditTrail, zone: ZoneInfo) -> Table:
    """Return what admins did, newest first."""
    titles = ("When", "Who", "What", "About", "Change")
    rows = [
        (
            Cell(f"{entry.at.astimezone(zone):%Y-%m-%d %H:%M:%S}", entry.at.isoformat()),
            _text(entry.actor or "the app or the shell"),
            _text(entry.action.replace("_", " ")),
            _subject(entry),
            _text(change_text(entry)),
        )
        for entry in trail.entries
    ]
    empty = "Nobody has changed anything yet."
    return Table("trail", "Actions of admins", [Column(title) for title in titles], rows, empty)


def change_text(entry: AuditEntry) -> str:
    """Return what an action changed, in words."""
    before, after = entry.before or {}, entry.after or {}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    parts = []
    for name in names:
        values = [_shown(side[name]) for side in (before, after) if name in side]
        parts.append(f"{name.replace('_', ' ')}: {' → '.join(values)}")
    return ", ".join(parts)


def clock(moment: datetime, zone: ZoneInfo) -> str:
    """Return the time of day."""
    return f"{moment.astimezone(zone):%H:%M:%S}"


def who(entry: StreamEntry) -> str:
    """Return who gave a label."""
    return f"{entry.rater} (decides)" if entry.source == "adjudicator" else entry.rater


def said(entry: StreamEntry) -> str:
    """Return an answer without its remarks: a word, a number, or ranks in the images' order."""
    return kind_of(entry.answer).in_words(entry.answer, entry.image_ids)


def remarks(entry: StreamEntry) -> str:
    """Return reason and comment of an answer."""
    return ": ".join(word for word in (entry.answer.reason, entry.answer.comment) if word)


def answer_text(entry: StreamEntry) -> str:
    """Return an answer with its remarks."""
    return ": ".join(word for word in (said(entry), remarks(entry)) if word)


def number(value: float | None, shown: Callable[[float], str] = "{:.0f}".format) -> Cell:
    """Return a cell that is sorted by its value."""
    return Cell(NOTHING, "") if value is None else Cell(shown(value), repr(float(value)))


def percent(share: float | None) -> str:
    """Return a share in percent."""
    return NOTHING if share is None else f"{share * 100:.0f} %"


_PROGRESS = (
    Column("Done", numbers=True),
    Column("Wanted", numbers=True),
    Column("Share", numbers=True),
)


def _done(done: int, total: int) -> tuple[Cell, Cell, Cell]:
    return number(done), number(total), number(done / total if total else None, percent)


def _text(text: str) -> Cell:
    return Cell(text, text)


def _rater_row(rater: RaterQuality, total: int) -> tuple[Cell, ...]:
    gold = _with_interval(rater.gold_accuracy, rater.gold_ci_low, rater.gold_ci_high)
    said_gold = f"{gold} of {rater.gold_n}" if rater.gold_n else NOTHING
    flags = ", ".join(FLAGS[flag] for flag in rater.flags)
    mine = rater.n / total if total and rater.source == "human" else None
    most = f", at most {rater.share * 100:g} %" if rater.share is not None else ""
    return (
        Cell(rater.name, rater.name, choose=rater.name if rater.source == "human" else ""),
        _text(rater.source if rater.source != "human" else rater.role),
        _text(rater.status or NOTHING),
        number(rater.n),
        number(mine, lambda share: f"{percent(share)}{most}"),
        number(rater.n_skipped),
        number(rater.gold_accuracy, lambda _: said_gold),
        number(rater.self_consistency, percent),
        number(rater.skill, percent),
        number(rater.median_ms, lambda ms: f"{ms / 1000:.1f} s"),
        number(
            rater.quick_n / rater.timed_n if rater.timed_n else None,
            lambda _: f"{rater.quick_n} of {rater.timed_n}",
        ),
        number(rater.first_place_wins, lambda _: _first_place(rater)),
        number(
            rater.left_n / rater.sided_n if rater.sided_n else None,
            lambda share: f"{percent(share)} of {rater.sided_n}",
        ),
        Cell(flags, flags, warning=True),
    )


def _first_place(rater: RaterQuality) -> str:
    wins, expected = percent(rater.first_place_wins), percent(rater.first_place_expected)
    return f"{wins} of {rater.first_place_n}, chance {expected}"


def _alpha(part: Alpha) -> Cell:
    bounds = (part.alpha, part.alpha_ci_low, part.alpha_ci_high)
    return number(part.alpha, lambda _: _with_interval(*bounds, "{:.2f}".format))


def _with_interval(
    middle: float | None,
    low: float | None,
    high: float | None,
    shown: Callable[[float], str] = percent,
) -> str:
    if middle is None:
        return NOTHING
    if low is None or high is None:
        return shown(middle)
    return f"{shown(middle)} ({shown(low)} to {shown(high)})"


def _is_report(entry: StreamEntry) -> bool:
    return bool(reported_images(entry.answer, entry.image_ids))


def _subject(entry: AuditEntry) -> Cell:
    if entry.action == "decide_image" and entry.subject is not None:
        return Cell("the image", entry.subject, images=(entry.subject,), blurred=True)
    return _text((entry.subject or "the campaign")[:40])


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
