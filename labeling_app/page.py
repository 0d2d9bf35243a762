"""The page: a Gradio shell around our own front end, which talks to the HTTP interface and needs no Gradio event.

Gradio draws the shell once, at the start, and no request ever reaches it: its own routes grant other sites' scripts what they ask for,
repeat a request's headers in the page, and answer odd addresses with tracebacks.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware

from labeling_app.desk import STATIC, Guidelines

FONT = ("system-ui", "sans-serif")
"""Of the rater's own machine: the theme's default would be fetched from elsewhere."""

ORIGIN = "http://gradio.invalid"
"""Stands for the page's own origin in what Gradio draws. The browser puts in the true one, whatever proxy it came through."""

DRAWN = ("/", "/theme.css", "/manifest.json", "/favicon.ico")
"""What Gradio makes of our settings."""

SHIPPED = ("assets", "static/img", "static/js")
"""Folders of Gradio's files that its page loads."""


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
    with gr.Blocks(title="Pictune", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            html_template=(STATIC / "page.html").read_text(encoding="utf-8"),
            js_on_load="import('/ui/label.js').then((module) => module.start(element));",
            apply_default_css=False,
        )
        gr.Markdown(guidelines.text, elem_id="guidelines")
    return page


def mount_page(app: FastAPI, guidelines: Guidelines) -> None:
    """Adds the page at `/`, the front end's files at `/ui`, and those of Gradio that the page loads. Not to be called from a coroutine."""
    for path, (content, kind) in asyncio.run(_draw(guidelines)).items():
        app.add_api_route(
            path, _giving(content, kind), methods=["GET", "HEAD"], include_in_schema=False
        )
    app.mount("/ui", FreshFiles(directory=STATIC))
    for folder in SHIPPED:
        app.mount(
            f"/{folder}",
            GZipMiddleware(
                StaticFiles(directory=Path(gr.__file__).parent / "templates" / "frontend" / folder)
            ),
        )


def _giving(content: str, kind: str) -> Callable[[], Awaitable[Response]]:
    async def give() -> Response:
        return Response(content, media_type=kind)

    return give


async def _draw(guidelines: Guidelines) -> dict[str, tuple[str, str]]:
    """Content and media type by path."""
    shell = FastAPI()
    gr.mount_gradio_app(
        shell,
        build_page(guidelines),
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        theme=gr.themes.Base(font=FONT, font_mono=("ui-monospace", "monospace")),
        css_paths=[STATIC / "label.css"],
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shell), base_url=ORIGIN) as client:
        answers = {path: (await client.get(path)).raise_for_status() for path in DRAWN}
    return {
        path: (
            answer.text.replace(f'"{ORIGIN}"', "location.origin"),
            answer.headers["Content-Type"],
        )
        for path, answer in answers.items()
    }
