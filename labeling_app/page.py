"""The raters' page: a Gradio shell around our own front end, which talks to the HTTP interface.

It needs no Gradio event: Gradio draws the shell once, at the start (`labeling_app.gradio_pages`).
"""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Template
from starlette.middleware.gzip import GZipMiddleware

from labeling_app.app_state import STATIC, Guidelines
from labeling_app.gradio_pages import (
    FONT,
    MONOSPACE,
    Drawn,
    draw,
    frontend_folder,
    gradio_app,
)
from labeling_app.passwords import LONGEST

DRAWN = ("/", "/theme.css", "/manifest.json", "/favicon.ico")
"""Files that Gradio generates from the app's settings."""

SHIPPED = ("assets", "static/img", "static/js")
"""Folders of Gradio's files that its pages load."""


class FreshFiles(StaticFiles):
    """Static files that browsers cache but revalidate.

    After an update no old script may call a new server.
    """

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the file, or 304 if the browser's copy is up to date."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


COLORS_FIRST = """<style>
html[data-colors="light"] body { background: #f6f7f9; }
html[data-colors="dark"] body { background: #14161b; }
</style>
<script>
const colors = localStorage.getItem("pictune.colors");
if (colors) {
  const address = new URL(location.href);
  address.searchParams.set("__theme", colors); // Gradio reads it there
  history.replaceState(null, "", address);
  document.documentElement.dataset.colors = colors;
}
</script>"""
"""HTML of the page's head: applies the colors chosen in this browser before anything is drawn."""


def skeleton() -> str:
    """Return the HTML of page.html, with its macros for buttons; scripts add the words."""
    text = (STATIC / "page.html").read_text(encoding="utf-8")
    template = Template(text, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html: str = template.render(longest_password=LONGEST)
    return html


def build_page(guidelines: Guidelines) -> gr.Blocks:
    """Return the front end's skeleton with the guidelines, which it moves into its panel."""
    page: gr.Blocks
    with gr.Blocks(title="Pictune", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            html_template=skeleton(),
            js_on_load="import('/ui/label.js').then((module) => module.start(element));",
            apply_default_css=False,
        )
        gr.Markdown(guidelines.text, elem_id="guidelines", elem_classes="guidelines")
        for language, text in guidelines.translations.items():
            gr.Markdown(text, elem_id=f"guidelines-{language}", elem_classes="guidelines")
    return page


def mount_page(app: FastAPI, guidelines: Guidelines) -> None:
    """Add the page at `/`, the front end's files at `/ui`, and Gradio's files that pages load.

    Not to be called from a coroutine.
    """
    theme = gr.themes.Base(font=FONT, font_mono=MONOSPACE)
    _, files = draw(
        lambda: gradio_app(
            build_page(guidelines), "/", theme, STATIC / "label.css", head=COLORS_FIRST
        ),
        DRAWN,
    )
    app.mount("/ui", FreshFiles(directory=STATIC))
    add_files(app, files)


def add_files(app: FastAPI, files: Mapping[str, Drawn]) -> None:
    """Add the files of a drawn page, and the files that Gradio ships."""
    for path, drawn in files.items():
        app.add_api_route(path, drawn.answer, methods=["GET", "HEAD"], include_in_schema=False)
    for folder in SHIPPED:
        shipped = StaticFiles(directory=frontend_folder(folder))
        app.mount(f"/{folder}", GZipMiddleware(shipped))
