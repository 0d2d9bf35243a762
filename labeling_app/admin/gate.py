"""Access control of the admin page: for admins only, and only at the addresses that it needs.

Gradio has more than sixty routes; some require no sign-in. Under `/admin`, only the drawn files and
the page's events can be reached.
"""

import httpx
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Template
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from data.feedback import Account
from labeling_app.admin.board import ADMIN
from labeling_app.admin.page import build_admin_page
from labeling_app.app_state import STATIC, AppState
from labeling_app.gradio_pages import ORIGIN, Drawn, checked, draw, gradio_app, house_theme
from labeling_app.guard import replaying
from labeling_app.passwords import LONGEST
from labeling_app.sign_in import admin, present, rater_of

PATH = "/admin"
FILES = (f"{PATH}/theme.css", f"{PATH}/static/js/iframeResizer.contentWindow.min.js")
"""Files that the page loads from below its own address."""

EVENTS = f"{PATH}/gradio_api/run/predict"
"""Address of the page's events."""

KNOWN = ("type", "asgi", "http_version", "method", "path")
"""Parts of a request's scope that reach Gradio."""

HANDED_ON = (b"content-type",)
"""Headers that reach Gradio; others are removed, because Gradio might repeat them."""

LEAVE_WHEN_SIGNED_OUT = """<script>
const send = window.fetch;
window.fetch = async (...call) => {
  const answer = await send(...call);
  const refused = answer.status === 401 || answer.status === 403;
  if (refused && answer.url.includes("/admin/gradio_api/")) location.reload();
  return answer;
};
</script>"""
"""HTML of the page's head: it replaces the page by the sign-in page when the sign-in has ended."""


def mount_admin_page(app: FastAPI, state: AppState) -> None:
    """Add the admin page. Not to be called from a coroutine."""
    theme, head = house_theme(), LEAVE_WHEN_SIGNED_OUT

    def build() -> FastAPI:
        page = build_admin_page(state)
        return gradio_app(page, PATH, theme, STATIC / "admin.css", head=head, user=_user)

    gradio, drawn = draw(build, (f"{PATH}/", *FILES), lambda app: _let_in(app, None))
    gate = _Gate(state, gradio, drawn)
    app.add_route(PATH, gate.page, include_in_schema=False)
    app.mount(PATH, gate)


class _Gate:
    """ASGI app that lets only admins through."""

    def __init__(self, state: AppState, gradio: FastAPI, drawn: dict[str, Drawn]) -> None:
        self._state = state
        self._gradio = gradio
        self._drawn = drawn
        page = (STATIC / "admin_sign_in.html").read_text(encoding="utf-8")
        self._sign_in = Template(page, autoescape=True)

    async def page(self, request: Request) -> Response:
        """Return the page, or the sign-in page with the status of the refusal."""
        try:
            await run_in_threadpool(self._admin, request)
        except HTTPException as refusal:
            reason = str(refusal.detail) if refusal.status_code == 403 else ""
            text = self._sign_in.render(reason=reason, longest_password=LONGEST)
            return HTMLResponse(text, refusal.status_code, {"Cache-Control": "no-store"})
        return HTMLResponse(self._drawn[f"{PATH}/"].content, headers={"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404 to all addresses but the page's, 401 or 403 to all but admins."""
        if scope["type"] != "http":
            return
        await (await self._answer(scope, receive))(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> ASGIApp:
        method, path = scope["method"], scope["path"]
        is_file = method == "GET" and path in FILES
        if not is_file and (method, path) != ("POST", EVENTS):
            return JSONResponse({"detail": "Not Found"}, 404)
        try:
            request = Request(scope)
            account = await run_in_threadpool(self._admin, request)
            if is_file:
                return await self._drawn[path].answer(request)
            body = checked(await Request(scope, receive).body(), self._gradio.state.events)
        except HTTPException as refusal:
            return JSONResponse({"detail": refusal.detail}, refusal.status_code)
        return _let_in(self._gradio, account, body)

    def _admin(self, request: Request) -> Account:
        return admin(present(rater_of(request, self._state), self._state))


def _let_in(gradio: ASGIApp, account: Account | None, body: bytes = b"") -> ASGIApp:
    """Return Gradio for one admin, with only the necessary parts of the request."""
    origin = httpx.URL(ORIGIN)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        known = {name: scope[name] for name in KNOWN if name in scope}
        headers = [header for header in scope["headers"] if header[0] in HANDED_ON]
        address = {"scheme": origin.scheme, "server": (origin.host, 80), "root_path": ""}
        bare = {"headers": headers, "query_string": b"", ADMIN: account}
        await gradio(known | address | bare, replaying(body, receive), send)

    return app


def _user(request: Request) -> str | None:
    """Return the admin; Gradio refuses requests that did not pass the gate."""
    if ADMIN not in request.scope:
        return None
    account: Account | None = request.scope[ADMIN]
    return account.rater_id if account else ""  # drawing the page needs no admin
