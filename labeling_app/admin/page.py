"""The admin page, in Gradio: tables, plots and buttons for the actions of `labeling_app.admin.api`.

A timer in the browser asks for the figures while the page is open (`labeling_app.admin.board`).
"""

import math
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from labeling_app.admin import api, browser, figures, review, tables
from labeling_app.admin.board import Board, Call, Component, Snapshot, Update, listing, notice_html
from labeling_app.app_state import AppState

PAUSE, RESUME = "Pause the campaign", "Resume the campaign"
COLORS = {"done": "#4f74d9", "still wanted": "#aab4c6"}
ROLES = ("rater", "admin")
LABELS_TAB = "labels"

ABOUT_AGREEMENT = (
    "Krippendorff's alpha with its 95 % interval: 1 is full agreement, 0 is what chance gives. "
    "Tasks are those with several raters."
)
ABOUT_RATERS = (
    "A click on a rater chooses them below. "
    "**Gold accuracy**: with its 95 % interval. **Same again**: repeated questions "
    "answered alike. **Skill**: the chance to be right, estimated from the answers of others "
    "(Dawid-Skene). **Flags** are exact tests at the level 0.001: too many answers in less than "
    "half a second per image, or too often the same place."
)
ABOUT_COMPARISONS = (
    "By the last export; `make compare` plans comparisons. **The first won**: share of the votes, "
    "a tie is half, with its 95 % interval. **Enough votes**: by an interval that stays valid at "
    "any number of looks, with the votes that would decide if the difference is as found."
)
ABOUT_LEFT_OUT = (
    "The labels of a rater who is left out count for nothing: others are asked in their place, and "
    "the tables omit them. No label is lost; Resume rater brings them back."
)


def build_admin_page(state: AppState) -> gr.Blocks:
    """Return the page with its events."""
    page: gr.Blocks
    with gr.Blocks(title="Pictune: admin", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown("# Campaign")
        board = Board(state)
        _top(board)
        with gr.Tabs() as tabs:
            with gr.Tab("Review"):
                review.reports(board)
                review.disputes(board)
            with gr.Tab("Progress"):
                _progress(board)
            with gr.Tab("Labels", id=LABELS_TAB):
                filters = browser.labels(board)
            with gr.Tab("Raters"):
                _raters(board)
                _people(board, tabs, filters)
                _agreement(board)
            with gr.Tab("Comparisons"):
                compared = listing("Comparisons of models", tables.COMPARISONS)
                board.show_quality(compared, tables.comparison_table)
                gr.Markdown(ABOUT_COMPARISONS, elem_classes="soft")
            with gr.Tab("Tables"):
                files = listing("Tables of the last export", tables.FILES)
                board.show(files, lambda _: tables.file_table(figures.list_tables(state)))
            with gr.Tab("Audit"):
                trail, latest = listing("Audit", tables.AUDIT), state.store.audit.latest
                board.show(
                    trail, lambda now: tables.audit_table(latest(figures.AUDIT_SHOWN), now.zone)
                )
        board.connect(page)
    return page


def _top(board: Board) -> None:
    def toggle(call: Call, label: object) -> None:
        act = api.pause if label == PAUSE else api.resume
        act(api.PauseBody(), board.state, call.admin)

    def export(call: Call) -> None:
        api.export(board.state, call.admin)

    board.show(gr.HTML(elem_id="progress"), _progress_line)
    board.show_quality(
        gr.HTML(elem_id="flags", elem_classes="notices"),
        lambda quality: notice_html(_flags(quality), "alert"),
    )
    with gr.Row(elem_classes="actions"):
        pause, export_now = gr.Button(PAUSE), gr.Button("Export now")
    board.show(pause, lambda now: RESUME if now.summary.paused else PAUSE)
    board.on(pause.click, toggle, [pause])
    board.on(export_now.click, export)


def _progress(board: Board) -> None:
    bars: dict[str, Any] = {"y": "Labels", "y_aggregate": "sum", "height": 260, "min_width": 320}
    titles = "Labels by category", "Labels by hour, the last day"
    with gr.Row():
        plot = gr.BarPlot(x="Category", color="State", color_map=COLORS, title=titles[0], **bars)
        hours = gr.BarPlot(x="Hour", title=titles[1], elem_id="hours", x_label_angle=-90, **bars)
    board.show(plot, lambda now: tables.category_plot(now.summary))
    board.show(hours, _hours)
    by_category = listing("Labels by category", tables.BY_CATEGORY)
    board.show(by_category, lambda now: tables.category_table(now.summary))


def _agreement(board: Board) -> None:
    agreement = listing("Agreement", tables.AGREEMENT)
    board.show_quality(agreement, tables.agreement_table)
    source = gr.Markdown(elem_classes="soft")
    board.show_quality(source, lambda quality: f"{_agreement_source(quality)} {ABOUT_AGREEMENT}")


def _raters(board: Board) -> None:
    raters = listing("Raters", tables.RATERS, pinned=1)
    board.show_quality(raters, tables.rater_table)
    gr.Markdown(ABOUT_RATERS, elem_classes="soft")

    def choose(call: Call) -> Update:
        row = call.chosen.get("row_value")
        if isinstance(row, list) and row[2:3] in [["rater"], ["admin"]]:
            return {board.rater: row[0]}
        return {}

    board.on(raters.select, choose, outputs=[board.rater])


def _people(board: Board, tabs: gr.Tabs, filters: dict[str, Any]) -> None:
    given = gr.Textbox(label="Password", visible=False, interactive=False, elem_id="given")

    def connect(
        title: str,
        route: Callable[..., object],
        body: Callable[[dict[str, Any]], object],
        **fields: Component,
    ) -> None:
        def change(call: Call, *values: object) -> Update:
            sent = body(dict(zip(fields, values, strict=True)))
            made = route(sent, board.state, call.admin)
            if not isinstance(made, api.NewPassword):
                return {given: gr.update(value="", visible=False)}
            label = f"Password of {made.rater} ({made.role}), shown this once: hand it over now"
            return {given: gr.update(value=made.password, label=label, visible=True)}

        change.__name__ = route.__name__
        button, inputs = gr.Button(title), list(fields.values())
        board.on(button.click, change, inputs, [given], redraws_quality=True)

    def look(_call: Call, name: object) -> Update:
        empty = dict.fromkeys(filters.values(), "")
        chosen = {filters["rater"]: name or "", tabs: gr.Tabs(selected=LABELS_TAB)}
        return empty | chosen | {board.wanted: {"rater": name or None}}

    one, with_role = api.RaterBody.model_validate, api.RoleBody.model_validate
    with gr.Row():
        with gr.Column(min_width=320):
            gr.Markdown("## Change a rater")
            board.rater.render()
            board.show_quality(
                board.rater, lambda quality: gr.update(choices=tables.people(quality))
            )
            with gr.Row(elem_classes="actions"):
                connect("Pause rater", api.pause, one, rater=board.rater)
                connect("Resume rater", api.resume, one, rater=board.rater)
                connect("Leave out", api.leave_out, one, rater=board.rater)
                connect("New password", api.password, one, rater=board.rater)
                to_labels = gr.Button("Look at their labels")
                shown = [board.wanted, tabs, *filters.values()]
                board.on(to_labels.click, look, [board.rater], shown)
            gr.Markdown(ABOUT_LEFT_OUT, elem_classes="soft")
            role = gr.Radio(ROLES, value="rater", label="Role")
            with gr.Row(elem_classes="actions"):
                connect("Set role", api.role, with_role, rater=board.rater, role=role)
        with gr.Column(min_width=320):
            gr.Markdown("## Add a rater")
            name = gr.Textbox(label="Name", max_length=64)
            new_role = gr.Radio(ROLES, value="rater", label="Role of the new rater")
            with gr.Row(elem_classes="actions"):
                connect("Add rater", api.add_rater, with_role, rater=name, role=new_role)
            gr.Markdown("A password is made and shown once.", elem_classes="soft")


def _progress_line(now: Snapshot) -> str:
    """Return the HTML of the campaign's progress, the work that is left, and the last export."""
    done, total = now.summary.progress.done, now.summary.progress.total
    paused = ", paused" if now.summary.paused else ""
    line = f"{done} of {total} labels{_work_left(now.summary.seconds_left)}{paused}"
    waiting = f"{len(now.reports.open)} reported images and {now.disputes.total} disputes wait"
    bar = f'<progress aria-label="Labels done" max="{max(total, 1)}" value="{done}"></progress>'
    return f"{bar}<p><strong>{line}</strong></p><p>{waiting}; {escape(_exported(now))}</p>"


def _work_left(seconds: float | None) -> str:
    if not seconds:
        return ""
    minutes = math.ceil(seconds / 60)
    words = f"{minutes} min" if minutes < 90 else f"{minutes / 60:.0f} h"
    return f"; about {words} of work left"


def _hours(now: Snapshot) -> Any:
    hours = tables.hours_plot(now.summary, now.zone)
    return gr.update(value=hours, sort=list(hours["Hour"]))


def _exported(now: Snapshot) -> str:
    if now.summary.export_error:
        return f"the last export failed: {now.summary.export_error}"
    if now.summary.last_export is None:
        return "not exported since the start"
    return f"last export {now.summary.last_export.astimezone(now.zone):%H:%M:%S}"


def _agreement_source(quality: tables.Quality) -> str:
    simulated = quality["agreement"]["source"] == "simulated"
    return "Among simulated raters." if simulated else "Among people."


def _flags(quality: tables.Quality) -> str:
    """Return a line that names the raters with flags."""
    flagged = [
        f"{rater['name']} {' and '.join(tables.FLAGS[flag] for flag in rater['flags'])}"
        for rater in quality["raters"]
        if rater["flags"]
    ]
    return f"Look into it: {'; '.join(flagged)}." if flagged else ""
