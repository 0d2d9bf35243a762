"""The labeling app as a web server: built by `create_app`, run by `serve` until Ctrl-C."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI

from data.errors import PictuneError
from labeling_app.admin.alarms import watch
from labeling_app.admin.api import router as admin_router
from labeling_app.admin.gate import mount_admin_page
from labeling_app.app_state import APP_VERSION, AppState
from labeling_app.guard import Guard, KnownHosts
from labeling_app.page import mount_page
from labeling_app.rater.api import router
from labeling_app.rater.own_work import router as own_work_router
from labeling_app.refusals import add_refusals
from labeling_app.settings import ServerConfig
from labeling_app.sign_in import add_cookie

SECONDS_BETWEEN_ANSWERS = 75
"""Seconds until an idle connection is closed; longer than a rater's time to think."""

SECONDS_TO_FINISH = 3
"""Seconds that open connections get after Ctrl-C."""


def serve(app: FastAPI, config: ServerConfig, announce: Callable[[str], None] = print) -> None:
    """Serve an app until Ctrl-C; call `announce` with its address when it is up.

    At the end the event `app.state.ending`, if any, is set: it ends open streams.

    Raises:
        PictuneError: the server cannot listen on the address.
    """
    with _listen(config.host, config.port) as listener:
        address = f"http://{config.host}:{listener.getsockname()[1]}"
        ending = getattr(app.state, "ending", None)
        server = _Server(server_settings(app, config), lambda: announce(address), ending)
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after its orderly end
            server.run(sockets=[listener])


def create_app(state: AppState, secret: bytes) -> FastAPI:
    """Build the whole app: HTTP interface, pages and regular exports.

    `secret` signs the cookies; with the same secret, raters stay signed in after a restart.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        ending = asyncio.Event()
        every_s = state.config.export_every_s
        tasks = [state.exports.export_regularly(every_s, ending)]
        if state.config.alarm_url is not None:
            tasks.append(watch(state, state.config.alarm_url, ending))
        running = asyncio.gather(*tasks)
        yield
        ending.set()
        await running

    app = FastAPI(
        title="Pictune labeling",
        version=APP_VERSION,
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the request's Host
    )
    app.state.labeling = state
    add_cookie(app, secret, is_secure=state.config.https)
    app.add_middleware(Guard)
    for routes in (router, own_work_router, admin_router):
        app.include_router(routes)
    add_refusals(app)
    mount_page(app, state)
    mount_admin_page(app, state)
    return app


class _Server(uvicorn.Server):
    """Server with callbacks at its start (after which signals end it in order) and its end."""

    def __init__(
        self,
        settings: uvicorn.Config,
        on_start: Callable[[], None],
        ending: asyncio.Event | None,
    ) -> None:
        super().__init__(settings)
        self._ending = ending
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then call `on_start`."""
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Set the app's `ending`, then end as uvicorn does."""
        if self._ending is not None:
            self._ending.set()
        await super().shutdown(sockets)


def server_settings(app: FastAPI, config: ServerConfig) -> uvicorn.Config:
    """Return uvicorn's settings.

    Clients' addresses come from `X-Forwarded-For` only behind a proxy, and only from that proxy.
    """
    return uvicorn.Config(
        KnownHosts(app, config),
        log_level="warning",
        proxy_headers=config.https,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
        timeout_keep_alive=SECONDS_BETWEEN_ANSWERS,
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise PictuneError(
            f"{host}:{port}: cannot listen there ({error.strerror}); choose another PORT="
        ) from error
