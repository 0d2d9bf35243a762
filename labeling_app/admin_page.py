"""The admin page, in Gradio: what `/api/v1/admin/...` returns, as tables, plots and buttons.

Its events are plain POSTs of JSON to one route of Gradio, which `labeling_app.admin_gate` opens to
admins. Nothing is queued, streamed, uploaded or read from files. A timer in the browser asks for
the figures while the page is open.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import pandas as pd
from fastapi import HTTPException
from pydantic import BaseModel, ValidationError

from data.errors import PictuneError
from data.feedback import Decision, NotFound
from data.ids import Identifier
from labeling_app.admin import decide, list_reports, measure_quality, set_paused, summarize
from labeling_app.admin_view import (
    AGREEMENT_COLUMNS,
    CATEGORY_COLUMNS,
    RATER_COLUMNS,
    STREAM_COLUMNS,
    agreement_source,
    agreement_table,
    category_plot,
    category_table,
    progress_html,
    rater_table,
    reports_html,
    stream_table,
    zone_named,
)
from labeling_app.app_state import AppState
from labeling_app.refusals import UNREADABLE

LOGGER = logging.getLogger(__name__)

EVERY_S = 10
"""Seconds between two looks at the figures."""

PAUSE, RESUME = "Pause the campaign", "Resume the campaign"

WITH_ZONE = "(_, ...rest) => [Intl.DateTimeFormat().resolvedOptions().timeZone, ...rest]"
"""JavaScript that puts the browser's time zone into the first input of an event."""

DECIDE = """
element.addEventListener("click", (event) => {
  const { action, image } = event.target.closest("[data-action]")?.dataset ?? {};
  if (action) trigger("decide", { decision: action, image_id: image });
});
"""
"""JavaScript of the reported images: a button is an event with the image and the decision."""

COLORS = {"done": "#4f74d9", "still wanted": "#aab4c6"}

RATER_WIDTHS = (150, 80, 75, 85, 150, 85, 95, 70, 80, 75, 190)

ABOUT_AGREEMENT = (
    "Krippendorff's alpha with its 95 % interval: 1 is full agreement, 0 is what chance gives."
)
ABOUT_RATERS = (
    "Shares with their 95 % intervals. First place: how often the image in the first place is "
    "ranked best; chance is beside it. Skill: the chance to be right, estimated from the answers "
    "of others (Dawid-Skene)."
)

Update = dict[Any, Any]
"""Component -> its new value."""

Digests = object
"""JSON that the page sends back: figure -> digest of its value."""


class _Decision(BaseModel, frozen=True):
    decision: Decision
    image_id: Identifier


@dataclass(frozen=True)
class _Parts:
    """Components that events read or write."""

    notice: gr.HTML
    progress: gr.HTML
    pause: gr.Button
    export: gr.Button
    reports: gr.HTML
    plot: gr.BarPlot
    categories: gr.Dataframe
    agreement: gr.Dataframe
    source: gr.Markdown
    raters: gr.Dataframe
    rater: gr.Dropdown
    pause_rater: gr.Button
    resume_rater: gr.Button
    stream: gr.Dataframe
    zone: gr.Textbox
    """The browser's time zone; not visible."""
    shown: gr.JSON
    """Digests of the figures that are shown, so that only changed ones are sent; not visible."""
    judged: gr.JSON
    """The same of agreement and raters."""


def build_admin_page(state: AppState) -> gr.Blocks:
    """Return the page with its events."""
    page: gr.Blocks
    with gr.Blocks(title="Pictune: admin", analytics_enabled=False, fill_width=True) as page:
        parts = _layout()
        _Events(state, parts).connect(page, gr.Timer(EVERY_S))
    return page


def _layout() -> _Parts:
    gr.Markdown("# Campaign")
    notice = gr.HTML(elem_id="notice", js_on_load=None)
    progress = gr.HTML(js_on_load=None)
    with gr.Row(elem_classes="actions"):
        pause = gr.Button(PAUSE)
        export = gr.Button("Export now")
    reports = gr.HTML(elem_id="reported", js_on_load=DECIDE)
    gr.Markdown("## By category")
    with gr.Row():
        plot = gr.BarPlot(
            x="Category", y="Labels", color="State", color_map=COLORS, height=260, buttons=[]
        )
        categories = _table("Labels by category", CATEGORY_COLUMNS, (220, 110, 105, 105))
    gr.Markdown("## Agreement")
    agreement = _table("Agreement", AGREEMENT_COLUMNS, (160, 260, 360, 350))
    source = gr.Markdown(ABOUT_AGREEMENT, elem_classes="soft")
    gr.Markdown("## Raters")
    raters = _table("Raters", RATER_COLUMNS, RATER_WIDTHS)
    with gr.Row(elem_classes="actions"):
        rater = gr.Dropdown(
            [], label="Rater (or choose a row of the table)", allow_custom_value=True
        )
        pause_rater = gr.Button("Pause rater")
        resume_rater = gr.Button("Resume rater")
    gr.Markdown(ABOUT_RATERS, elem_classes="soft")
    gr.Markdown("## Latest labels")
    stream = _table("Latest labels", STREAM_COLUMNS, (100, 190, 400, 440))
    return _Parts(
        notice=notice,
        progress=progress,
        pause=pause,
        export=export,
        reports=reports,
        plot=plot,
        categories=categories,
        agreement=agreement,
        source=source,
        raters=raters,
        rater=rater,
        pause_rater=pause_rater,
        resume_rater=resume_rater,
        stream=stream,
        zone=gr.Textbox("UTC", visible="hidden", label="Time zone"),
        shown=gr.JSON({}, visible="hidden"),
        judged=gr.JSON({}, visible="hidden"),
    )


def _table(label: str, columns: Sequence[str], widths: Sequence[int]) -> gr.Dataframe:
    return gr.Dataframe(
        pd.DataFrame(columns=list(columns)),
        label=label,
        show_label=False,
        datatype="str",  # no cell is ever HTML or Markdown
        column_widths=[f"{width}px" for width in widths],
        interactive=False,
        wrap=True,
        buttons=[],
        max_height=420,
    )


class _Events:
    """Handlers of the page's events."""

    def __init__(self, state: AppState, parts: _Parts) -> None:
        self._state = state
        self._parts = parts

    def connect(self, page: gr.Blocks, timer: gr.Timer) -> None:
        """Connect the page and its buttons with their handlers."""
        parts = self._parts
        figures = [parts.progress, parts.pause, parts.reports, parts.plot, parts.categories]
        figures += [parts.stream, parts.shown, parts.notice]
        judged = [parts.agreement, parts.source, parts.raters, parts.rater, parts.judged]
        judged += [parts.notice]
        seen = [parts.zone, parts.shown]

        # Two events, as Gradio drops the answer to an event that is asked for again meanwhile: with
        # `trigger_mode`, which chained events have none of, a tick waits for the answer before it.
        often = [page.load, timer.tick]
        gr.on(often, self.look, seen, figures, trigger_mode="once", **_plain("look"))
        gr.on(
            often,
            self.judge,
            parts.judged,
            judged,
            trigger_mode="once",
            **_plain("judge", js=None),
        )
        paused = [*seen, parts.pause]
        parts.pause.click(self.pause_campaign, paused, figures, **_plain("pause_campaign"))
        parts.export.click(self.export, seen, figures, **_plain("export"))
        parts.reports.decide(self.decide, seen, figures, **_plain("decide"))
        for button, handler in (
            (parts.pause_rater, self.pause_rater),
            (parts.resume_rater, self.resume_rater),
        ):
            name = handler.__name__
            done = button.click(handler, [*seen, parts.rater], figures, **_plain(name))
            done.then(self.judge, parts.judged, judged, **_plain(f"{name}_judge", js=None))
        parts.raters.select(self.choose, None, parts.rater, **_plain("choose", js=None))

    def look(self, zone: object, shown: Digests) -> Update:
        """Return the figures that have changed."""
        return self._answer(zone, shown, lambda: None)

    def judge(self, judged: Digests) -> Update:
        """Return agreement and raters, which take longer than the rest."""
        parts = self._parts
        figures: dict[str, tuple[Any, Any]] = {}

        def look() -> None:
            quality = measure_quality(self._state)
            names = [rater.name for rater in quality.raters]
            figures["agreement"] = parts.agreement, agreement_table(quality)
            figures["source"] = parts.source, f"{agreement_source(quality)} {ABOUT_AGREEMENT}"
            figures["raters"] = parts.raters, rater_table(quality)
            figures["rater"] = parts.rater, gr.update(choices=names)

        notice = _notice_of(look)
        said = {parts.notice: _notice_html(notice) if notice else gr.skip()}
        return _changed(figures, judged, parts.judged) | said

    def pause_campaign(self, zone: object, shown: Digests, label: object) -> Update:
        """Pause or resume the campaign, as the button says."""
        paused = label == PAUSE
        return self._answer(zone, shown, lambda: set_paused(self._state, None, paused=paused))

    def export(self, zone: object, shown: Digests) -> Update:
        """Export to Parquet now; the figures say how it went."""

        def export() -> None:
            with suppress(PictuneError):
                self._state.exports.export()

        return self._answer(zone, shown, export)

    def decide(
        self, zone: object, shown: Digests, event: gr.EventData, request: gr.Request
    ) -> Update:
        """Put a reported image back, or remove it."""

        def act() -> None:
            wanted = _Decision.model_validate(vars(event)["_data"])
            assert request.username is not None
            decide(self._state, request.username, wanted.image_id, wanted.decision)

        return self._answer(zone, shown, act)

    def pause_rater(self, zone: object, shown: Digests, rater: object) -> Update:
        """Hand out no more tasks to the rater of this name."""
        return self._answer(zone, shown, lambda: self._set_paused(rater, paused=True))

    def resume_rater(self, zone: object, shown: Digests, rater: object) -> Update:
        """Hand out tasks to the rater again."""
        return self._answer(zone, shown, lambda: self._set_paused(rater, paused=False))

    def choose(self, event: gr.SelectData) -> str:
        """Return the name in the row that was chosen."""
        return str((event.row_value or [""])[0])

    def _set_paused(self, rater: object, *, paused: bool) -> None:
        if not isinstance(rater, str) or not rater:
            raise HTTPException(422, "choose a rater first")
        set_paused(self._state, rater, paused=paused)

    def _answer(self, zone: object, shown: Digests, act: Callable[[], object]) -> Update:
        """Act, and return the figures that have changed since, with what went wrong."""
        parts = self._parts
        notice = _notice_of(act)
        figures: dict[str, tuple[Any, Any]] = {}

        def look() -> None:
            where, summary = zone_named(str(zone)), summarize(self._state)
            reports = list_reports(self._state)
            figures["progress"] = parts.progress, progress_html(summary, where)
            figures["pause"] = parts.pause, RESUME if summary.paused else PAUSE
            figures["reports"] = parts.reports, reports_html(reports, where)
            figures["plot"] = parts.plot, category_plot(summary)
            figures["categories"] = parts.categories, category_table(summary)
            figures["stream"] = parts.stream, stream_table(summary, where)

        notice = notice or _notice_of(look)
        return _changed(figures, shown, parts.shown) | {parts.notice: _notice_html(notice)}


def _plain(name: str, js: str | None = WITH_ZONE) -> dict[str, Any]:
    """Return the settings of an event that is one POST, answered at once.

    Without `preprocess`, which would fetch the files and addresses that an input names, handlers
    get whatever JSON was sent.
    """
    return {
        "api_name": name,
        "api_visibility": "private",
        "queue": False,
        "preprocess": False,
        "show_progress": "hidden",
        "js": js,
    }


def _notice_of(act: Callable[[], object]) -> str:
    """Act; return what went wrong, or nothing."""
    try:
        act()
    except HTTPException as refusal:
        return str(refusal.detail)
    except NotFound as error:
        return str(error)
    except ValidationError:
        return "the page sent what is no decision; load it again"
    except PictuneError as error:
        LOGGER.error("%s", error)  # noqa: TRY400 - a line for the operator, no traceback
        return UNREADABLE
    return ""


def _notice_html(notice: str) -> str:
    return f'<p class="notice" role="alert">{escape(notice)}</p>' if notice else ""


def _changed(figures: Mapping[str, tuple[Any, Any]], shown: Digests, store: gr.JSON) -> Update:
    """Return the figures of which the page shows others, with the digests of all."""
    digests = {name: _digest(value) for name, (_, value) in figures.items()}
    before = shown if isinstance(shown, dict) else {}
    changed = [name for name in figures if digests[name] != before.get(name)]
    return {figures[name][0]: figures[name][1] for name in changed} | {
        store: digests if changed else gr.skip()
    }


def _digest(value: object) -> str:
    text = value.to_csv() if isinstance(value, pd.DataFrame) else repr(value)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
