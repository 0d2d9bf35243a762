"""Pages that Gradio draws once, at the start, so that no request for a page ever reaches it.

Gradio's own routes grant other sites' scripts what they ask for, repeat a request's headers in the
page, and answer odd addresses with tracebacks.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import httpx
from fastapi import FastAPI, Response
from starlette.types import ASGIApp

from labeling_app.app_state import STATIC

FONT = ("system-ui", "sans-serif")
"""Fonts of the rater's own machine: the theme's default would be fetched from elsewhere."""

MONOSPACE = ("ui-monospace", "monospace")

ORIGIN = "http://gradio.invalid"
"""Stands for the page's own origin in the drawn page.

The browser replaces it by the true one, whatever proxy the page came through.
"""


@dataclass(frozen=True)
class Drawn:
    """One file of a drawn page."""

    content: str
    media_type: str

    async def answer(self) -> Response:
        """Return the file."""
        return Response(self.content, media_type=self.media_type)


def gradio_app(
    blocks: gr.Blocks,
    path: str,
    theme: gr.themes.Base,
    css: str,
    *,
    head: str = "",
    user: Callable[..., str | None] | None = None,
) -> FastAPI:
    """Return an app with Gradio at this path, without anything that a page does not need.

    Args:
        blocks: the page.
        path: address of the page.
        theme: colors and fonts.
        css: name of a file in `static`.
        head: HTML for the page's head.
        user: returns the user of a request, or None to refuse it.
    """
    app = FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        path=path,
        auth_dependency=user,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        theme=theme,
        css_paths=[STATIC / css],
        head=head,
    )
    return app


def draw(
    build: Callable[[], FastAPI],
    paths: Collection[str],
    through: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> tuple[FastAPI, dict[str, Drawn]]:
    """Build an app with Gradio; return it with its answers at these paths.

    Not to be called from a coroutine: Gradio asks for an event loop while it is built.

    Args:
        build: returns the app, as `gradio_app` does.
        paths: addresses of the files to draw.
        through: wraps the app for the drawing.
    """
    return asyncio.run(_draw(build, paths, through))


async def _draw(
    build: Callable[[], FastAPI], paths: Collection[str], through: Callable[[ASGIApp], ASGIApp]
) -> tuple[FastAPI, dict[str, Drawn]]:
    app = build()
    transport = httpx.ASGITransport(through(app))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        answers = {path: (await client.get(path)).raise_for_status() for path in paths}
    return app, {
        path: Drawn(_without_origin(answer.text), answer.headers["Content-Type"])
        for path, answer in answers.items()
    }


def _without_origin(text: str) -> str:
    """Replace the strings of scripts that begin with `ORIGIN` by expressions."""
    return text.replace(f'"{ORIGIN}"', "location.origin").replace(
        f'"{ORIGIN}/', 'location.origin + "/'
    )


def frontend_folder(name: str) -> Path:
    """Return a folder of the files that Gradio's pages load."""
    return Path(gr.__file__).parent / "templates" / "frontend" / name
