"""Components of the admin page, from top to bottom."""

import json
from dataclasses import dataclass
from typing import Any

import gradio as gr

from labeling_app.admin.view import still_html

PAUSE, RESUME = "Pause the campaign", "Resume the campaign"

COLORS = {"done": "#4f74d9", "still wanted": "#aab4c6"}


@dataclass(frozen=True)
class Parts:
    """Components that events read or write."""

    notice: gr.HTML
    progress: gr.HTML
    pause: gr.Button
    export: gr.Button
    reports: gr.HTML
    disputes: gr.HTML
    plot: gr.BarPlot
    hours: gr.HTML
    categories: gr.HTML
    prompts: gr.HTML
    agreement: gr.HTML
    source: gr.Markdown
    flags: gr.HTML
    raters: gr.HTML
    names: gr.HTML
    people: gr.HTML
    given: gr.HTML
    """A new password, shown once."""
    stream: gr.HTML
    plan: gr.HTML
    gold: gr.HTML
    tables: gr.HTML
    audit: gr.HTML
    zone: gr.Textbox
    """The browser's time zone; not visible."""
    shown: gr.JSON
    """Digests of the figures that are shown, so that only changed ones are sent; not visible."""
    judged: gr.JSON
    """The same of agreement, raters and disputes."""


def lay_out() -> Parts:
    """Draw the components into the page that is being built."""
    return Parts(
        **_top(),
        **_progress(),
        **_raters(),
        **_bottom(),
        zone=gr.Textbox("UTC", visible="hidden", label="Time zone"),
        shown=gr.JSON({}, visible="hidden"),
        judged=gr.JSON({}, visible="hidden"),
    )


def _top() -> dict[str, Any]:
    gr.Markdown("# Campaign")
    gr.HTML(still_html("nav"), js_on_load=None)
    parts: dict[str, Any] = {"notice": gr.HTML(elem_id="notice", js_on_load=None)}
    parts["progress"] = gr.HTML(js_on_load=None)
    with gr.Row(elem_classes="actions"):
        parts["pause"] = gr.Button(PAUSE)
        parts["export"] = gr.Button("Export now")
    _heading("review", "Review")
    parts["reports"] = gr.HTML(elem_id="reported", js_on_load=_start("decide"))
    parts["disputes"] = gr.HTML(
        "<p>Looking for disputes …</p>",
        elem_id="disputed",
        js_on_load=_start("adjudicate", "withdraw"),
    )
    return parts


def _progress() -> dict[str, Any]:
    _heading("progress-tables", "Progress")
    with gr.Row():
        plot = gr.BarPlot(
            x="Category",
            y="Labels",
            color="State",
            color_map=COLORS,
            height=260,
            buttons=[],
            min_width=320,
        )
        hours = gr.HTML(js_on_load=None, min_width=320)
    return {"plot": plot, "hours": hours, "categories": _part(), "prompts": _part()}


def _raters() -> dict[str, Any]:
    _heading("agreement", "Agreement")
    parts: dict[str, Any] = {"agreement": _part(), "source": gr.Markdown(elem_classes="soft")}
    _heading("raters", "Raters")
    parts["flags"] = gr.HTML(elem_id="flags", js_on_load=None)
    parts["raters"] = _part()
    parts["names"] = gr.HTML(js_on_load=None)
    parts["given"] = gr.HTML(elem_id="given", js_on_load=None)
    people = still_html("people")
    return parts | {"people": gr.HTML(people, elem_id="people", js_on_load=_start("person"))}


def _bottom() -> dict[str, Any]:
    _heading("labels", "Latest labels")
    parts: dict[str, Any] = {"stream": _part()}
    _heading("plan", "Plan")
    parts["plan"] = _part("overlap")
    parts["gold"] = gr.HTML(still_html("gold"), elem_id="gold", js_on_load=_start("gold"))
    _heading("tables", "Tables of the last export")
    parts["tables"] = gr.HTML(js_on_load=None)
    _heading("audit", "Audit")
    return parts | {"audit": _part()}


def _heading(key: str, title: str) -> None:
    gr.HTML(f'<h2 id="{key}">{title}</h2>', js_on_load=None)


def _part(*events: str) -> gr.HTML:
    return gr.HTML(js_on_load=_start(*events))


def _start(*events: str) -> str:
    """Return the JavaScript of a part with tables or forms, whose forms send these events.

    Gradio reads the names of a part's events from there.
    """
    names = json.dumps(events)
    return f"import('/ui/admin.js').then((module) => module.start(element, trigger, {names}));"
