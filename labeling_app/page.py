"""The raters' page: a Gradio shell around our own front end, which talks to the HTTP interface.

It needs no Gradio event: Gradio draws the shell once, at the start (`labeling_app.gradio_pages`).
On a slow network each request costs a round trip, so the head has our scripts, words and settings,
and browsers keep Gradio's files for good: a file of another content has another name.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Template
from pydantic import BaseModel
from starlette.middleware.gzip import GZipMiddleware

from labeling_app.app_state import STATIC, AppState, Guidelines
from labeling_app.gradio_pages import (
    FONT,
    MONOSPACE,
    Drawn,
    draw,
    frontend_folder,
    gradio_app,
)
from labeling_app.passwords import LONGEST
from labeling_app.rater.api import settings, words

DRAWN = ("/", "/theme.css", "/manifest.json", "/favicon.ico")
"""Files that Gradio generates from the app's settings."""

UNVERSIONED = "VERSION-OF-THE-PAGE"
"""Placeholder in scripts of the page's version, the digest of all that the page is made of."""

WORKER = "worker.js"
"""The service worker, which is no part of the page."""

SHIPPED = ("assets", "static/img", "static/js")
"""Folders of Gradio's files that its pages load."""


IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:class|function|const) (\w+))", re.MULTILINE)


class FreshFiles(StaticFiles):
    """Static files that browsers cache but revalidate.

    After an update no old script may call a new server.
    """

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the file, or 304 if the browser's copy is up to date."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


class KeptFiles(StaticFiles):
    """Static files that browsers keep for good: a file of another content has another name."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the file."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


COLORS_FIRST = """<style>
html[data-colors="light"] body { background: #f6f7f9; }
html[data-colors="dark"] body { background: #14161b; }
</style>
<script>
document.querySelector("[name=viewport]").content += ", viewport-fit=cover";
const colors = localStorage.getItem("pictune.colors");
if (colors) {
  const address = new URL(location.href);
  address.searchParams.set("__theme", colors); // Gradio reads it there
  history.replaceState(null, "", address);
  document.documentElement.dataset.colors = colors;
}
</script>"""
"""HTML of the page's head: before anything is drawn, it applies the colors chosen in this browser,
and takes the whole screen of a phone, whose rounded corners label.css keeps free."""


def scripts_of(folder: Path) -> str:
    """Return the modules of a folder as one script: each is a function that returns its exports.

    Raises:
        graphlib.CycleError: modules import each other in a circle.
    """
    texts = {
        path.stem: path.read_text(encoding="utf-8")
        for path in folder.glob("*.js")
        if path.name != WORKER
    }
    imports = {name: [of for _, of in IMPORT.findall(text)] for name, text in texts.items()}
    parts = ["const modules = {};"]
    for name in TopologicalSorter(imports).static_order():
        code = EXPORT.sub("", IMPORT.sub(r"const \1 = modules.\2;", texts[name]))
        exported = ", ".join(EXPORT.findall(texts[name]))
        parts.append(f"modules.{name} = (() => {{\n{code}\nreturn {{ {exported} }};\n}})();")
    return "\n".join(parts)


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
            js_on_load="modules.label.start(element);",
            apply_default_css=False,
        )
        gr.Markdown(guidelines.text, elem_id="guidelines", elem_classes="guidelines")
        for language, text in guidelines.translations.items():
            gr.Markdown(text, elem_id=f"guidelines-{language}", elem_classes="guidelines")
    return page


def head_of(facts: Mapping[str, BaseModel]) -> str:
    """Return HTML for the page's head: colors, scripts, and `facts` as JSON for them, by name."""
    told = json.dumps({name: fact.model_dump(mode="json") for name, fact in facts.items()})
    escaped = told.replace("<", "\\u003c")
    return (
        f'{COLORS_FIRST}<script type="application/json" id="facts">{escaped}</script>'
        f"<script>{scripts_of(STATIC)}</script>"
    )


def mount_page(app: FastAPI, state: AppState) -> None:
    """Add the page at `/`, the front end's files at `/ui`, and Gradio's files that pages load.

    Not to be called from a coroutine.
    """
    theme = gr.themes.Base(font=FONT, font_mono=MONOSPACE)
    head = head_of({"settings": settings(state), "words": words(state)})
    _, files = draw(
        lambda: gradio_app(
            build_page(state.guidelines), "/", theme, STATIC / "label.css", head=head
        ),
        DRAWN,
    )
    files |= versioned(files["/"].content)
    app.mount("/ui", FreshFiles(directory=STATIC))
    add_files(app, files)


def versioned(page: str) -> dict[str, Drawn]:
    """Return the page and the service worker, by address, with the page's version in both."""
    lasting = re.sub(r'"app_id":\d+', '"app_id":0', page)  # drawn by lot at each start
    version = hashlib.sha256(lasting.encode()).hexdigest()[:16]
    worker = (STATIC / WORKER).read_text(encoding="utf-8")
    return {
        "/": Drawn(lasting.replace(UNVERSIONED, version), "text/html; charset=utf-8"),
        f"/{WORKER}": Drawn(worker.replace(UNVERSIONED, version), "text/javascript"),
    }


def add_files(app: FastAPI, files: Mapping[str, Drawn]) -> None:
    """Add the files of a drawn page, and the files that Gradio ships."""
    for path, drawn in files.items():
        app.add_api_route(path, drawn.answer, methods=["GET", "HEAD"], include_in_schema=False)
    for folder in SHIPPED:
        files_of = KeptFiles if folder == "assets" else FreshFiles
        shipped = files_of(directory=frontend_folder(folder))
        app.mount(f"/{folder}", GZipMiddleware(shipped))
