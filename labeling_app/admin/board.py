"""Events of the admin page: each event is a plain POST of JSON; its answer has all changed figures.

Handlers get the JSON as it was sent, because Gradio's own preprocessing would fetch files and
addresses named by an input.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

import gradio as gr
import pandas as pd
from fastapi import HTTPException
from pydantic import JsonValue, ValidationError

from data.errors import PictuneError
from data.feedback import Account, NotFound
from data.kinds.kind import InvalidAnswer
from data.store.people.reports import ReportedImage
from labeling_app.admin import figures
from labeling_app.admin.figures import (
    Dispute,
    Disputes,
    LabelPage,
    Reports,
    Summary,
    WantedLabels,
)
from labeling_app.admin.tables import Quality
from labeling_app.app_state import AppState
from labeling_app.refusals import UNREADABLE

LOGGER = logging.getLogger(__name__)

ADMIN = "pictune.admin"
"""Key of a request's scope for the admin's account."""

EVERY_S = 10
"""Seconds between two updates of the figures."""

WITH_PLACE = """(_, ...rest) => [
  `${self.origin} ${Intl.DateTimeFormat().resolvedOptions().timeZone}`, ...rest
]"""
"""JavaScript that puts the page's address and time zone into the first input of an event."""

PLACE = re.compile(r"(https?://[^/\s]+) (.*)")

Component = Any
"""A component of Gradio, or a row of components."""
Update = dict[Any, Any]
"""Component -> its new value."""


@dataclass(frozen=True)
class Snapshot:
    """State of the campaign for one update of a page that shows this report and this dispute."""

    state: AppState
    origin: str
    """Address of the app in the browser: `gr.Gallery` takes absolute addresses only."""
    zone: ZoneInfo
    image_id: object
    task_id: object
    wanted: object = None
    """Fields of `WantedLabels`."""

    @cached_property
    def labels(self) -> LabelPage:
        """The page of the browser of labels."""
        return figures.find_labels(self.state, WantedLabels.model_validate(self.wanted or {}))

    @cached_property
    def summary(self) -> Summary:
        """State of the campaign."""
        return figures.summarize(self.state)

    @cached_property
    def reports(self) -> Reports:
        """The reported images."""
        return figures.list_reports(self.state)

    @cached_property
    def disputes(self) -> Disputes:
        """The disputes; None before the first call of `measure_quality`, which may take seconds."""
        return (
            Disputes() if self.state.latest_quality is None else figures.list_disputes(self.state)
        )

    @cached_property
    def report(self) -> ReportedImage | None:
        """The report on the page: the chosen report, or else the first open report."""
        waiting = self.reports.open
        known = {one.image_id: one for one in (*waiting, *self.reports.removed)}
        return known.get(str(self.image_id)) or next(iter(waiting), None)

    @cached_property
    def dispute(self) -> Dispute | None:
        """The dispute on the page: the chosen dispute, or else the first open dispute."""
        waiting = self.disputes.open
        known = {one.task.task_id: one for one in (*waiting, *self.disputes.decided)}
        return known.get(str(self.task_id)) or next(iter(waiting), None)


@dataclass(frozen=True)
class Call:
    """An event from an admin's page."""

    admin: Account
    chosen: Mapping[str, Any]
    """The cell or image that was clicked in a table or a gallery."""
    zone: ZoneInfo
    """Time zone of the browser."""


class Board:
    """Components of the page with their figures, and the page's events."""

    def __init__(self, state: AppState) -> None:
        self.state = state
        self.notice = gr.HTML(elem_id="notice", elem_classes="notices")
        self.image: Any = gr.Dropdown([], label="Reported image", render=False)
        self.task: Any = gr.Dropdown([], label="Disputed task", render=False)
        self.rater: Any = gr.Dropdown([], label="Rater", render=False)
        self._place = gr.Textbox("", visible="hidden", label="Place")
        self._shown = gr.JSON([], visible="hidden", label="Shown")
        self._quality_shown = gr.JSON([], visible="hidden", label="Quality shown")
        self._quick: dict[Component, Callable[[Snapshot], Any]] = {}
        self._slow: dict[Component, Callable[[Quality], Any]] = {}
        self.wanted = gr.JSON({}, visible="hidden", label="Wanted")
        self._seen = [
            self._place,
            self._shown,
            self.image,
            self.task,
            self.wanted,
            self.notice,
        ]
        self._events: list[Callable[[], None]] = []

    def show(self, component: Component, figure: Callable[[Snapshot], Any]) -> None:
        """Let a component show a figure."""
        self._quick[component] = figure

    def show_quality(self, component: Component, figure: Callable[[Quality], Any]) -> None:
        """Let a component show a figure of the campaign's quality."""
        self._slow[component] = figure

    def on(
        self,
        trigger: Callable[..., Any],
        act: Callable[..., Update | None],
        inputs: Sequence[Component] = (),
        outputs: Sequence[Component] = (),
        *,
        redraws_quality: bool = False,
        last_counts: bool = False,
    ) -> None:
        """Connect a trigger.

        Args:
            trigger: method of a component, such as `button.click`.
            act: is called with the event and the values of `inputs`; returns values of `outputs`.
            inputs: components whose values `act` needs.
            outputs: further components besides the figures.
            redraws_quality: whether the slow figures are drawn again as well.
            last_counts: whether a trigger that comes before the answer is sent after it; by default
                it is dropped.
        """

        def handle(request: gr.Request, event: gr.EventData, *given: JsonValue) -> Update:
            chosen = vars(event).get("_data")
            call = Call(
                request.request.scope[ADMIN],  # type: ignore[union-attr]
                chosen if isinstance(chosen, dict) else {},
                _read_place(given[0])[1],
            )
            changes: Update = {}

            def do() -> None:
                changes.update(act(call, *given[len(self._seen) :]) or {})

            notice = _notice_of(do)
            seen = dict(zip(self._seen, given, strict=False)) | changes
            return changes | self._update(seen, notice_html(notice, "alert"))

        def connect() -> None:
            done = trigger(
                handle,
                [*self._seen, *inputs],
                [*self._outputs, *outputs],
                **at_once(act.__name__),
                trigger_mode="always_last" if last_counts else None,
            )
            if redraws_quality:
                done.then(
                    self._update_quality, *self._quality_io, **at_once(f"quality_{act.__name__}")
                )

        self._events.append(connect)

    def connect(self, page: gr.Blocks) -> None:
        """Connect all triggers, and the page itself, which updates every few seconds."""

        def update(*given: JsonValue) -> Update:
            seen = dict(zip(self._seen, given, strict=True))
            changes = self._update(seen, "")
            if not changes[self.notice] and seen[self.notice] != notice_html(UNREADABLE, "alert"):
                # a notice stays until the next click: it may have come since the browser asked
                changes[self.notice] = gr.skip()
            return changes

        for connect in self._events:
            connect()
        timer = gr.Timer(EVERY_S, active=False)
        # the first answers come one after the other: two that both choose the first dispute
        # would take back what the admin chose between them
        first = page.load(update, self._seen, self._outputs, **at_once("update_first", WITH_PLACE))
        first = first.then(self._update_quality, *self._quality_io, **at_once("quality_first"))
        first = first.then(update, self._seen, self._outputs, **at_once("update_disputes"))
        first.then(lambda: gr.Timer(active=True), None, timer, **at_once("begin"))
        # Gradio drops the answer to an event that is triggered again meanwhile: so there are two
        # events, and a tick waits for the previous answer
        once: dict[str, Any] = {"trigger_mode": "once"}
        gr.on(timer.tick, update, self._seen, self._outputs, **at_once("update"), **once)
        gr.on(timer.tick, self._update_quality, *self._quality_io, **at_once("quality"), **once)

    @property
    def _outputs(self) -> list[Component]:
        return [*self._quick, self._place, self._shown, self.notice]

    @property
    def _quality_io(self) -> tuple[list[Component], list[Component]]:
        return [self._quality_shown], [*self._slow, self._quality_shown, self.notice]

    def _update(self, seen: Mapping[Component, Any], notice: str) -> Update:
        """Return the changed quick figures, with a notice or an error."""
        origin, zone = _read_place(seen[self._place])
        chosen = (seen[one] for one in (self.image, self.task, self.wanted))
        snapshot = Snapshot(self.state, origin, zone, *chosen)
        found: Update = {}
        failed = _notice_of(
            lambda: found.update({one: of(snapshot) for one, of in self._quick.items()})
        )
        digests = [_digest(value) for value in found.values()]
        return _changed(found, digests, seen[self._shown], self._shown) | {
            self._place: str(seen[self._place]),
            self.notice: notice or notice_html(failed, "alert"),
        }

    def _update_quality(self, shown: JsonValue) -> Update:
        """Return the slow figures that have changed."""
        found: Update = {}

        def measure() -> None:
            quality = figures.measure_quality(self.state)
            found.update({one: of(quality) for one, of in self._slow.items()})

        failed = _notice_of(measure)
        digests = [_digest(value) for value in found.values()]
        notice = {self.notice: notice_html(failed, "alert") if failed else gr.skip()}
        return _changed(found, digests, shown, self._quality_shown) | notice


def listing(label: str, columns: Mapping[str, Any], *, pinned: int = 0) -> gr.Dataframe:
    """Return a table that admins can sort and filter."""
    return gr.Dataframe(
        headers=list(columns),
        datatype=list(columns.values()),
        label=label,
        interactive=False,
        buttons=[],
        pinned_columns=pinned,
        elem_classes="listing",
    )


def gallery(label: str, *, columns: int, name: str | None = None) -> gr.Gallery:
    """Return a gallery that is not visible before it has images; `name` is for the style sheet."""
    return gr.Gallery(
        label=label,
        columns=columns,
        fit_columns=False,
        height="auto",
        object_fit="contain",
        buttons=[],
        visible=False,
        elem_id=name,
    )


def notice_html(text: str, role: str = "status") -> str:
    """Return the HTML of a line for screen readers; empty for an empty text."""
    return f'<p role="{role}">{escape(text)}</p>' if text else ""


def _read_place(place: object) -> tuple[str, ZoneInfo]:
    """Return address and time zone from the text of `WITH_PLACE`."""
    found = PLACE.fullmatch(str(place))
    origin, zone = found.groups() if found else ("http://localhost", "")
    return origin, zone_named(zone)


def zone_named(name: str) -> ZoneInfo:
    """Return a time zone; UTC if the browser's time zone is unknown here."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a name, or the name of a folder
        return ZoneInfo("UTC")


def at_once(name: str, js: str | None = None) -> dict[str, Any]:
    """Return Gradio's settings for an event that is one POST, answered at once."""
    return {
        "api_name": name,
        "api_visibility": "private",
        "queue": False,
        "preprocess": False,
        "show_progress": "hidden",
        "js": js,
    }


def _notice_of(act: Callable[[], object]) -> str:
    """Act; return the error message, or an empty text."""
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


def _changed(found: Update, digests: list[str], shown: object, store: Component) -> Update:
    """Return the changed figures, with the digests of all figures.

    Unchanged figures are not sent, so that an open image stays open and half-typed numbers stay.
    """
    before = (
        shown if isinstance(shown, list) and len(shown) == len(digests) else [""] * len(digests)
    )
    pairs = zip(found.items(), digests, before, strict=True)
    changed = {one: value for (one, value), digest, known in pairs if digest != known}
    return changed | ({store: digests} if changed else {})


def _digest(value: object) -> str:
    text = value.to_csv() if isinstance(value, pd.DataFrame) else repr(value)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
