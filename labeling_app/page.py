"""The page: a Gradio shell around our own front end, which talks to the HTTP interface and needs no Gradio event."""

import asyncio
from typing import Any

import gradio as gr
from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles

from labeling_app.desk import STATIC, Guidelines

FONT = ("system-ui", "sans-serif")
"""Of the rater's own machine: the theme's default would be fetched from elsewhere."""


class FreshFiles(StaticFiles):
    """Static files that browsers keep but ask about: after an update no old script may talk to a new server."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The file, or 304 when the browser's copy is the same."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def build_page(guidelines: Guidelines) -> gr.Blocks:
    """The front end's skeleton, and the guidelines, which the front end moves into its panel."""
    page: gr.Blocks
    with gr.Blocks(title="Pictune", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as page:
        gr.HTML(
            html_template=(STATIC / "page.html").read_text(encoding="utf-8"),
            js_on_load="import('/ui/label.js').then((module) => module.start(element));",
            apply_default_css=False,
        )
        gr.Markdown(guidelines.text, elem_id="guidelines")
    return page


def mount_page(app: FastAPI, guidelines: Guidelines) -> None:
    """Mounts the page at `/` and the front end's files at `/ui`; routes added earlier come first. Not to be called from a coroutine."""
    app.mount("/ui", FreshFiles(directory=STATIC))
    asyncio.run(_mount_gradio(app, guidelines))  # where no loop is running, Gradio makes one and never closes it


async def _mount_gradio(app: FastAPI, guidelines: Guidelines) -> None:
    gr.mount_gradio_app(
        app,
        build_page(guidelines),
        path="/",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size="1mb",
        allowed_paths=[],
        theme=gr.themes.Base(font=FONT, font_mono=("ui-monospace", "monospace")),
        css_paths=[STATIC / "label.css"],
    )
