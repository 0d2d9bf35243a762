"""The web app of the playground: only the few addresses of Gradio that its page needs.

The page itself is drawn once, at the start. Nothing can be uploaded.
"""

import asyncio
import logging
import re
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labeling_app.gradio_pages import checked, draw, gradio_app, house_theme
from labeling_app.guard import Guard, replaying
from labeling_app.page import DRAWN, add_files
from pipelines.play.page import Playground
from pipelines.play.settings import PlayConfig
from pipelines.play.studio import Studio

LOGGER = logging.getLogger(__name__)

STYLE = Path(__file__).parent / "play.css"

API = "/gradio_api/"
FILE = f"{API}file="
EVENTS = (f"{API}queue/join", f"{API}run/predict")
STREAM = re.compile(
    rf"GET {API}(heartbeat/[A-Za-z0-9_-]{{1,64}}\?|queue/data\?session_hash=[A-Za-z0-9_-]{{1,64}})"
)
"""Method, address and query of the page's event streams."""

KNOWN = ("type", "asgi", "http_version", "method", "path", "query_string", "server", "client")
"""Parts of a request's scope that reach Gradio."""

HANDED_ON = (b"content-type", b"host")
"""Headers that reach Gradio; it might repeat any other header. It builds the addresses of images
from Host, whose value is checked before."""


def create_app(studio: Studio, config: PlayConfig) -> FastAPI:
    """Return the web app. Do not call it from a coroutine."""
    gradio, files = draw(
        lambda: gradio_app(Playground(studio, config).blocks, "/", house_theme(), STYLE), DRAWN
    )
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=gradio.router.lifespan_context,
    )
    app.state.ending = asyncio.Event()
    add_files(app, files)
    scheme = "https" if config.https else "http"
    app.mount("/", _Gate(gradio, studio.folder, scheme, app.state.ending))
    app.add_middleware(Guard, writable=(API,))
    return app


class _Gate:
    """ASGI app that forwards the page's own requests to Gradio."""

    def __init__(self, gradio: FastAPI, folder: Path, scheme: str, ending: asyncio.Event) -> None:
        self._gradio = gradio
        self._ending = ending
        self._folder = folder.resolve()
        self._scheme = scheme

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404 for all other addresses, and 422 for requests that the page never sends."""
        if scope["type"] != "http":
            return
        app: ASGIApp = self._gradio
        if (scope["method"], scope["path"]) in [("POST", path) for path in EVENTS]:
            try:
                body = checked(await Request(scope, receive).body(), self._gradio.state.events)
                receive = replaying(body, receive)
            except HTTPException as refusal:
                app = JSONResponse({"detail": refusal.detail}, refusal.status_code)
        elif not self._is_open(scope):
            app = JSONResponse({"detail": "Not Found"}, 404)
        known = {name: scope[name] for name in KNOWN if name in scope}
        headers = [header for header in scope["headers"] if header[0] in HANDED_ON]
        bare = {"headers": headers, "scheme": self._scheme, "root_path": ""}
        try:
            await self._answer(app, known | bare, receive, send)
        except Exception as error:  # noqa: BLE001 - Gradio's; a visitor may cause one at will
            LOGGER.error("%s: %r", scope["path"], error)  # noqa: TRY400 - one line

    async def _answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; streams, which last as long as a page is open, end with the server."""
        more = False

        async def send_on(message: Message) -> None:
            nonlocal more
            more = message.get("more_body", message["type"] == "http.response.start")
            await send(message)

        answering = asyncio.ensure_future(app(scope, receive, send_on))
        ending = asyncio.ensure_future(self._ending.wait())
        await asyncio.wait((answering, ending), return_when=asyncio.FIRST_COMPLETED)
        for task in (answering, ending):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await answering
        if self._ending.is_set() and more:
            await send({"type": "http.response.body"})

    def _is_open(self, scope: Scope) -> bool:
        method, path, query = scope["method"], scope["path"], scope["query_string"]
        if not path.startswith(FILE):
            return bool(STREAM.fullmatch(f"{method} {path}?{query.decode('latin-1')}"))
        try:
            file = Path(path.removeprefix(FILE)).resolve()
            is_ours = file.is_relative_to(self._folder) and file.is_file()
        except (OSError, ValueError):  # not a valid file name
            return False
        return is_ours and method in ("GET", "HEAD")
