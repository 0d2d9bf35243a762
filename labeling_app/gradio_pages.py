"""Pages that Gradio draws once, at the start, and checks of the events of these pages.

No request for a page ever reaches Gradio: its own routes allow requests from other sites' scripts,
repeat a request's headers in the page, and answer invalid addresses with tracebacks. Events that no
page sends are refused, and only checked fields are passed on, so that no event can name files.
"""

import asyncio
import gzip
import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import gradio as gr
import httpx
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field, JsonValue, ValidationError
from starlette.types import ASGIApp

FONT = ("system-ui", "sans-serif")
"""Fonts of the rater's machine: the browser would fetch the theme's default font from another
server."""

MONOSPACE = ("ui-monospace", "monospace")

ORIGIN = "http://gradio.invalid"
"""Placeholder of the page's origin in the drawn page. The browser replaces it by the true origin,
also behind a proxy.
"""


@dataclass(frozen=True)
class Drawn:
    """One file of a drawn page."""

    content: str
    media_type: str

    async def answer(self, request: Request) -> Response:
        """Return the file, packed; or 304 if the browser's copy is up to date."""
        headers = {"Cache-Control": "no-cache", "ETag": self.tag, "Vary": "Accept-Encoding"}
        if self.tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return Response(self.content, headers=headers, media_type=self.media_type)
        headers["Content-Encoding"] = "gzip"
        return Response(self.packed, headers=headers, media_type=self.media_type)

    @cached_property
    def packed(self) -> bytes:
        """The content, compressed."""
        return gzip.compress(self.content.encode())

    @cached_property
    def tag(self) -> str:
        """HTTP's entity tag of the content."""
        return f'"{hashlib.sha256(self.content.encode()).hexdigest()[:16]}"'


def gradio_app(
    blocks: gr.Blocks,
    path: str,
    theme: gr.themes.Base,
    css: Path,
    *,
    head: str = "",
    user: Callable[..., str | None] | None = None,
) -> FastAPI:
    """Return an app with Gradio at this path, reduced to the needs of a page.

    Its `state.events` has the page's events by number.

    Args:
        blocks: the page.
        path: address of the page.
        theme: colors and fonts.
        css: file of the page's style.
        head: HTML for the page's head.
        user: returns the user of a request, or None to refuse it.
    """
    app = FastAPI(openapi_url=None)
    app.state.events = blocks.fns
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
        css_paths=[css],
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


def house_theme() -> gr.themes.Base:
    """Return Gradio's theme in the colors of the raters' page."""
    hues: dict[str, tuple[str, str]] = {
        "body_background_fill": ("#f6f7f9", "#14161b"),
        "body_text_color": ("#1d2129", "#e9ecf2"),
        "body_text_color_subdued": ("#59616e", "#a3acba"),
        "background_fill_primary": ("#ffffff", "#1d2027"),
        "background_fill_secondary": ("#f6f7f9", "#14161b"),
        "block_background_fill": ("#ffffff", "#1d2027"),
        "block_label_text_color": ("#59616e", "#a3acba"),
        "block_title_text_color": ("#1d2129", "#e9ecf2"),
        "border_color_primary": ("#dde1e8", "#343a46"),
        "block_border_color": ("#dde1e8", "#343a46"),
        "border_color_accent": ("#3457b9", "#9db6ff"),
        "color_accent_soft": ("#e9eefb", "#26304a"),
        "input_background_fill": ("#ffffff", "#1d2027"),
        "input_border_color": ("#848b96", "#7d8592"),
        "link_text_color": ("#3457b9", "#9db6ff"),
        "button_primary_background_fill": ("#3457b9", "#9db6ff"),
        "button_primary_background_fill_hover": ("#2b4a9f", "#b7caff"),
        "button_primary_text_color": ("#ffffff", "#14161b"),
        "checkbox_background_color_selected": ("#3457b9", "#9db6ff"),
        "checkbox_border_color_selected": ("#3457b9", "#9db6ff"),
        "slider_color": ("#3457b9", "#9db6ff"),
        "button_secondary_background_fill": ("#ffffff", "#1d2027"),
        "button_secondary_background_fill_hover": ("#e9eefb", "#26304a"),
        "button_secondary_border_color": ("#dde1e8", "#343a46"),
        "button_secondary_text_color": ("#1d2129", "#e9ecf2"),
        "table_even_background_fill": ("#ffffff", "#1d2027"),
        "table_odd_background_fill": ("#fafbfc", "#1a1d24"),
        "table_border_color": ("#dde1e8", "#343a46"),
        "table_row_focus": ("#e9eefb", "#26304a"),
        "table_text_color": ("#1d2129", "#e9ecf2"),
    }
    colors = {name: light for name, (light, _) in hues.items()}
    colors |= {f"{name}_dark": dark for name, (_, dark) in hues.items()}
    return gr.themes.Base(font=FONT, font_mono=MONOSPACE, radius_size="lg").set(**colors)


def frontend_folder(name: str) -> Path:
    """Return the folder of the files that Gradio's pages load."""
    return Path(gr.__file__).parent / "templates" / "frontend" / name


Session = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Event(BaseModel, frozen=True):
    """Body of an event."""

    fn_index: int
    data: list[JsonValue]
    """Values of the event's inputs."""
    session_hash: Session | None = None
    trigger_id: int | None = None
    event_data: JsonValue = None


def checked(body: bytes, events: Mapping[int, Any]) -> bytes:
    """Return the checked body of one of `events`, reduced to the fields that pages send.

    Raises:
        HTTPException: 422, no page sends this event.
    """
    try:
        event = Event.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(422, "no event of this page") from error
    known = events.get(event.fn_index)
    if known is None or known.fn is None or len(event.data) != len(known.inputs):
        raise HTTPException(422, "no event of this page, or not its inputs")
    if known.preprocess:  # without it, handlers check their input
        for block, value in zip(known.inputs, event.data, strict=True):
            if not _fits(block, value):
                raise HTTPException(422, f"not a value of {block.label or 'this page'}")
    return event.model_dump_json().encode()


def _fits(block: Any, value: JsonValue) -> bool:
    """Whether a component accepts the value: a number, a text or a list of these, never a file."""
    if isinstance(block, gr.State):
        return value is None  # stored in the page
    if any(isinstance(one, list | dict) for one in (value if isinstance(value, list) else [value])):
        return False
    if isinstance(block, gr.Textbox):
        return isinstance(value, str)
    if isinstance(block, gr.Slider):
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_number = is_whole or (isinstance(value, float) and block.step % 1 != 0)
        # also false for NaN
        return is_number and block.minimum <= value <= block.maximum  # type: ignore[operator]
    try:
        block.preprocess(value)
    except Exception:  # noqa: BLE001 - each component has its own
        return False
    return True
