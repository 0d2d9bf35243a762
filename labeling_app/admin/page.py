"""The admin page, in Gradio: what `/api/v1/admin/...` returns, as tables, plots and forms.

Its events are plain POSTs of JSON to one route of Gradio, which `labeling_app.admin.gate` opens to
admins. Nothing is queued, streamed, uploaded or read from files. A timer in the browser asks for
the figures while the page is open.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from html import escape
from typing import Any

import gradio as gr
import pandas as pd
from fastapi import HTTPException
from pydantic import ValidationError

from data.errors import PictuneError
from data.feedback import NotFound
from data.kinds.kind import InvalidAnswer
from labeling_app.admin import actions, figures, tables, view
from labeling_app.admin.forms import (
    AdjudicationForm,
    DecisionForm,
    GoldForm,
    OverlapForm,
    PersonForm,
    TaskForm,
)
from labeling_app.admin.layout import PAUSE, RESUME, Parts, lay_out
from labeling_app.admin.responses import NewPassword
from labeling_app.app_state import AppState
from labeling_app.refusals import UNREADABLE

LOGGER = logging.getLogger(__name__)

EVERY_S = 10
"""Seconds between two looks at the figures."""

WITH_ZONE = "(_, ...rest) => [Intl.DateTimeFormat().resolvedOptions().timeZone, ...rest]"
"""JavaScript that puts the browser's time zone into the first input of an event."""

ABOUT_AGREEMENT = (
    "Krippendorff's alpha with its 95 % interval: 1 is full agreement, 0 is what chance gives."
)
ABOUT_RATERS = (
    "Gold accuracy with its 95 % interval. Flags are exact tests at the level 0.001: too many "
    "answers in less than half a second per image, or too many rankings won by the image shown "
    "first. Skill: the chance to be right, estimated from the answers of others (Dawid-Skene)."
)

Update = dict[Any, Any]
"""Component -> its new value."""

Digests = object
"""JSON that the page sends back: figure -> digest of its value."""


def build_admin_page(state: AppState) -> gr.Blocks:
    """Return the page with its events."""
    page: gr.Blocks
    with gr.Blocks(title="Pictune: admin", analytics_enabled=False, fill_width=True) as page:
        parts = lay_out()
        _Events(state, parts).connect(page, gr.Timer(EVERY_S))
    return page


class _Events:
    """Handlers of the page's events."""

    def __init__(self, state: AppState, parts: Parts) -> None:
        self._state = state
        self._parts = parts

    def connect(self, page: gr.Blocks, timer: gr.Timer) -> None:
        """Connect the page, its buttons and its forms with their handlers."""
        parts = self._parts
        fast = [parts.progress, parts.pause, parts.reports, parts.plot, parts.hours]
        fast += [parts.categories, parts.prompts, parts.stream, parts.plan, parts.tables]
        fast += [parts.audit, parts.shown, parts.notice]
        slow = [parts.agreement, parts.source, parts.flags, parts.raters, parts.names]
        slow += [parts.disputes, parts.judged, parts.notice]
        seen = [parts.zone, parts.shown]

        # Two events, as Gradio drops the answer to an event that is asked for again meanwhile: with
        # `trigger_mode`, which chained events have none of, a tick waits for the answer before it.
        often = [page.load, timer.tick]
        gr.on(often, self.look, seen, fast, trigger_mode="once", **_plain("look"))
        plain = _plain("judge", js=None)
        gr.on(often, self.judge, parts.judged, slow, trigger_mode="once", **plain)
        paused = [*seen, parts.pause]
        parts.pause.click(self.pause_campaign, paused, fast, **_plain("pause_campaign"))
        parts.export.click(self.export, seen, fast, **_plain("export"))
        parts.reports.decide(self.decide, seen, fast, **_plain("decide"))
        settled = [*fast, parts.disputes]
        parts.disputes.adjudicate(self.adjudicate, seen, settled, **_plain("adjudicate"))
        parts.disputes.withdraw(self.withdraw, seen, settled, **_plain("withdraw"))
        parts.plan.overlap(self.overlap, seen, fast, **_plain("overlap"))
        parts.gold.gold(self.gold, seen, fast, **_plain("gold"))
        done = parts.people.person(self.person, seen, [*fast, parts.given], **_plain("person"))
        done.then(self.judge, parts.judged, slow, **_plain("person_judge", js=None))

    def look(self, zone: object, shown: Digests) -> Update:
        """Return the figures that have changed."""
        return self._answer(zone, shown, lambda: None)

    def judge(self, judged: Digests) -> Update:
        """Return agreement, raters and disputes, which take longer than the rest."""
        parts = self._parts
        found: dict[str, tuple[Any, Any]] = {}

        def look() -> None:
            quality = figures.measure_quality(self._state)
            raters = view.table_html(tables.rater_table(quality), ABOUT_RATERS)
            source = f"{view.agreement_source(quality)} {ABOUT_AGREEMENT}"
            found["agreement"] = parts.agreement, view.table_html(tables.agreement_table(quality))
            found["source"] = parts.source, source
            found["flags"] = parts.flags, _notice_html(view.flags_note(quality))
            found["raters"] = parts.raters, raters
            found["names"] = parts.names, view.names_html(quality)
            found["disputes"] = parts.disputes, self._disputes()

        notice = _notice_of(look)
        said = {parts.notice: _notice_html(notice) if notice else gr.skip()}
        return _changed(found, judged, parts.judged) | said

    def pause_campaign(
        self, zone: object, shown: Digests, label: object, request: gr.Request
    ) -> Update:
        """Pause or resume the campaign, as the button says."""
        paused, admin_id = label == PAUSE, _admin(request)
        return self._answer(
            zone, shown, lambda: actions.set_paused(self._state, admin_id, None, paused=paused)
        )

    def export(self, zone: object, shown: Digests, request: gr.Request) -> Update:
        """Export to Parquet now; the figures say how it went."""

        def export() -> None:
            with suppress(PictuneError):
                actions.export(self._state, _admin(request))

        return self._answer(zone, shown, export)

    def decide(
        self, zone: object, shown: Digests, event: gr.EventData, request: gr.Request
    ) -> Update:
        """Put reported images back, or remove one."""

        def act() -> None:
            DecisionForm.model_validate(_sent(event)).apply(self._state, _admin(request))

        return self._answer(zone, shown, act)

    def adjudicate(
        self, zone: object, shown: Digests, event: gr.EventData, request: gr.Request
    ) -> Update:
        """Answer a task in the raters' place."""

        def act() -> None:
            form = AdjudicationForm.model_validate(_sent(event))
            actions.adjudicate(self._state, _admin(request), form.task_id, form.answer)

        return self._answer(zone, shown, act) | {self._parts.disputes: self._disputes()}

    def withdraw(
        self, zone: object, shown: Digests, event: gr.EventData, request: gr.Request
    ) -> Update:
        """Take an answer in the raters' place back."""

        def act() -> None:
            form = TaskForm.model_validate(_sent(event))
            actions.withdraw(self._state, _admin(request), form.task_id)

        return self._answer(zone, shown, act) | {self._parts.disputes: self._disputes()}

    def person(
        self, zone: object, shown: Digests, event: gr.EventData, request: gr.Request
    ) -> Update:
        """Add a rater or change one; a new password is shown once."""
        made: list[NewPassword] = []

        def act() -> None:
            form = PersonForm.model_validate(_sent(event))
            password = form.apply(self._state, _admin(request))
            made.extend([password] if password else [])

        update = self._answer(zone, shown, act)
        return update | {self._parts.given: "".join(view.password_html(one) for one in made)}

    def overlap(
        self, zone: object, shown: Digests, event: gr.EventData, request: gr.Request
    ) -> Update:
        """Ask another number of people about each task of a kind."""

        def act() -> None:
            form = OverlapForm.model_validate(_sent(event))
            actions.set_overlap(self._state, _admin(request), form.kind, form.overlap)

        return self._answer(zone, shown, act)

    def gold(
        self, zone: object, shown: Digests, event: gr.EventData, request: gr.Request
    ) -> Update:
        """Add images whose right answers are known."""
        added: list[str] = []

        def act() -> None:
            form = GoldForm.model_validate(_sent(event))
            gold = actions.add_gold(self._state, _admin(request), form.name, form.csv)
            added.append(f"{gold.tasks} gold tasks added, {gold.new} of them new to the campaign")

        update = self._answer(zone, shown, act)
        said = "".join(f'<p class="done" role="status">{escape(text)}</p>' for text in added)
        return update | ({self._parts.notice: said} if said else {})

    def _disputes(self) -> str:
        return view.disputes_html(figures.list_disputes(self._state))

    def _answer(self, zone: object, shown: Digests, act: Callable[[], object]) -> Update:
        """Act, and return the figures that have changed since, with what went wrong."""
        parts = self._parts
        notice = _notice_of(act)
        found: dict[str, tuple[Any, Any]] = {}

        def look() -> None:
            where, summary = view.zone_named(str(zone)), figures.summarize(self._state)
            by_prompt = view.table_html(tables.prompt_table(summary), view.prompts_note(summary))
            trail = tables.audit_table(figures.list_audit(self._state), where)
            reports = view.reports_html(figures.list_reports(self._state), where)
            found["progress"] = parts.progress, view.progress_html(summary, where)
            found["pause"] = parts.pause, RESUME if summary.paused else PAUSE
            found["reports"] = parts.reports, reports
            found["plot"] = parts.plot, view.category_plot(summary)
            found["hours"] = parts.hours, view.hours_html(summary.hours, where)
            found["categories"] = parts.categories, view.table_html(tables.category_table(summary))
            found["prompts"] = parts.prompts, by_prompt
            found["stream"] = parts.stream, view.table_html(tables.stream_table(summary, where))
            found["plan"] = parts.plan, view.plan_html(figures.list_plan(self._state))
            found["tables"] = parts.tables, view.downloads_html(figures.list_tables(self._state))
            found["audit"] = parts.audit, view.table_html(trail)

        notice = notice or _notice_of(look)
        return _changed(found, shown, parts.shown) | {parts.notice: _notice_html(notice)}


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


def _sent(event: gr.EventData) -> object:
    """Return what a form sent."""
    return vars(event).get("_data")


def _admin(request: gr.Request) -> str:
    assert request.username is not None  # the gate let nobody else through
    return request.username


def _notice_of(act: Callable[[], object]) -> str:
    """Act; return what went wrong, or nothing."""
    try:
        act()
    except HTTPException as refusal:
        return str(refusal.detail)
    except (NotFound, InvalidAnswer) as error:
        return str(error)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the form"
        return f"{field}: {first['msg']}; nothing was changed"
    except PictuneError as error:
        LOGGER.error("%s", error)  # noqa: TRY400 - a line for the operator, no traceback
        return UNREADABLE
    return ""


def _notice_html(notice: str) -> str:
    return f'<p class="notice" role="alert">{escape(notice)}</p>' if notice else ""


def _changed(found: Mapping[str, tuple[Any, Any]], shown: Digests, store: gr.JSON) -> Update:
    """Return the figures of which the page shows others, with the digests of all."""
    digests = {name: _digest(value) for name, (_, value) in found.items()}
    before = shown if isinstance(shown, dict) else {}
    changed = [name for name in found if digests[name] != before.get(name)]
    return {found[name][0]: found[name][1] for name in changed} | {
        store: digests if changed else gr.skip()
    }


def _digest(value: object) -> str:
    text = value.to_csv() if isinstance(value, pd.DataFrame) else repr(value)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
