"""The labeling app as a web server: built by `create_app`, run by `serve` until Ctrl-C."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field, PositiveFloat
from starlette.middleware.sessions import SessionMiddleware

from data.errors import PictuneError
from data.store import FeedbackStore
from labeling_app.api import router
from labeling_app.desk import APP_VERSION, Desk, Guidelines, Health
from labeling_app.page import mount_page
from labeling_app.refusals import add_refusals

LOGGER = logging.getLogger(__name__)

SECONDS_TO_FINISH = 3
"""Open pages hold a connection for good; after Ctrl-C they get this long."""


class LabelConfig(BaseModel, frozen=True, extra="forbid"):
    """How the app is served."""

    host: str = "127.0.0.1"
    """Address to listen on. Anyone who reaches it signs in by name alone, so open it to trusted networks only."""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """Port to listen on; 0 takes a free one."""
    guidelines: Path | None = None
    """Markdown file with the instructions that raters read; without it, our own."""
    export_every_s: PositiveFloat = 30.0
    """Seconds between exports to Parquet while the app runs."""


def create_app(
    store: FeedbackStore,
    image_path: Callable[[str], Path | None],
    config: LabelConfig,
    *,
    secret: bytes,
    on_export: Callable[[], None] | None,
) -> FastAPI:
    """The whole app: HTTP interface, page and regular exports.

    Args:
        store: where labels go.
        image_path: the file of an image id of this campaign, None for any other; nothing else is ever served.
        config: how it is served.
        secret: signs the cookies; keep it, and raters stay signed in when the app starts again.
        on_export: called every `export_every_s` seconds while the app runs, and once when it ends.

    Raises:
        PictuneError: the guidelines cannot be read.
    """
    desk = Desk(store, image_path, Guidelines.read(config.guidelines))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if on_export is None:
            yield
            return
        ending = asyncio.Event()
        exports = asyncio.create_task(_export_regularly(on_export, config.export_every_s, desk.health, ending))
        yield
        ending.set()
        await exports

    app = FastAPI(
        title="Pictune labeling", version=APP_VERSION, lifespan=lifespan, openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None
    )
    app.state.desk = desk
    # cookies are shared by all ports of a host: the name keeps two campaigns from signing each other's raters out
    app.add_middleware(SessionMiddleware, secret_key=secret.hex(), session_cookie=f"pictune_{config.port}", same_site="strict")
    app.include_router(router)
    add_refusals(app)
    mount_page(app, desk.guidelines)
    return app


async def _export_regularly(on_export: Callable[[], None], every_s: float, health: Health, ending: asyncio.Event) -> None:
    """Exports until `ending` is set, and then a last time; a failed export is recorded and tried again at the next turn."""
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), every_s)
        last = ending.is_set()
        try:
            await asyncio.to_thread(on_export)
        except (PictuneError, OSError) as error:
            health.export_error = str(error)
            LOGGER.warning("export failed, the labels are safe in the store: %s", error)
        else:
            health.last_export, health.export_error = datetime.now(UTC), None
        if last:
            return


def serve(
    store: FeedbackStore,
    image_path: Callable[[str], Path | None],
    config: LabelConfig,
    *,
    secret: bytes,
    on_export: Callable[[], None] | None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serves the app until Ctrl-C; arguments as of `create_app`, and `announce` is told the page's address.

    Raises:
        PictuneError: the address cannot be listened on.
    """
    app = create_app(store, image_path, config, secret=secret, on_export=on_export)
    with _listen(config.host, config.port) as listener:
        announce(f"label at http://{config.host}:{listener.getsockname()[1]} (Ctrl-C ends; every answer is saved as it is given)")
        settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_FINISH)
        with suppress(KeyboardInterrupt):  # uvicorn passes it on after its orderly end
            uvicorn.Server(settings).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise PictuneError(f"{host}:{port}: cannot listen there ({error.strerror}); choose another PORT=") from error
