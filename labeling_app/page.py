"""The raters' page: one HTML document with its style, scripts, words and guidelines.

A single answer has it all: on a slow network each further request costs a round trip. A script of
an older version never meets a newer document.
"""

import gzip
import hashlib
import re
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Template
from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import BaseModel
from starlette.middleware.gzip import GZipMiddleware

from labeling_app.app_state import STATIC, AppState, Guidelines
from labeling_app.gradio_pages import Drawn, frontend_folder
from labeling_app.passwords import LONGEST
from labeling_app.rater.api import settings, words

DRAWN = ("/", "/theme.css", "/manifest.json", "/favicon.ico")
"""Files that Gradio generates from the app's settings."""

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


def scripts_of(folder: Path) -> str:
    """Return the modules of a folder as one script: each is a function that returns its exports.

    Raises:
        graphlib.CycleError: modules import each other in a circle.
    """
    texts = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.js")}
    imports = {name: [of for _, of in IMPORT.findall(text)] for name, text in texts.items()}
    parts = ["const modules = {};"]
    for name in TopologicalSorter(imports).static_order():
        code = EXPORT.sub("", IMPORT.sub(r"const \1 = modules.\2;", texts[name]))
        exported = ", ".join(EXPORT.findall(texts[name]))
        parts.append(f"modules.{name} = (() => {{\n{code}\nreturn {{ {exported} }};\n}})();")
    return "\n".join(parts)


def page_html(guidelines: Guidelines, facts: Mapping[str, BaseModel]) -> str:
    """Return the document of page.html; `facts` are JSON for its scripts, by name."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    texts = {"": guidelines.text, **guidelines.translations}
    template = Template(
        (STATIC / "page.html").read_text(encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html: str = template.render(
        longest_password=LONGEST,
        style=Markup((STATIC / "label.css").read_text(encoding="utf-8")),  # noqa: S704 - our own
        scripts=Markup(scripts_of(STATIC)),  # noqa: S704 - our own
        guidelines={tag: Markup(markdown.render(text)) for tag, text in texts.items()},  # noqa: S704
        facts={name: fact.model_dump(mode="json") for name, fact in facts.items()},
    )
    return html


def mount_page(app: FastAPI, state: AppState) -> None:
    """Add the page at `/`, the front end's files at `/ui`, and Gradio's files that pages load."""
    html = page_html(state.guidelines, {"settings": settings(state), "words": words(state)})
    document = html.encode()
    packed = gzip.compress(document)
    tag = f'"{hashlib.sha256(document).hexdigest()[:16]}"'

    async def page(request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "ETag": tag, "Vary": "Accept-Encoding"}
        if tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return Response(document, headers=headers, media_type="text/html")
        headers["Content-Encoding"] = "gzip"
        return Response(packed, headers=headers, media_type="text/html")

    app.add_api_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/ui", FreshFiles(directory=STATIC))
    add_files(app, {})


def add_files(app: FastAPI, files: Mapping[str, Drawn]) -> None:
    """Add the files of a drawn page, and the files that Gradio ships."""
    for path, drawn in files.items():
        app.add_api_route(path, drawn.answer, methods=["GET", "HEAD"], include_in_schema=False)
    for folder in SHIPPED:
        shipped = StaticFiles(directory=frontend_folder(folder))
        app.mount(f"/{folder}", GZipMiddleware(shipped))
