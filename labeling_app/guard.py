"""Rules for every request: known host names, no calls from other sites' pages, no large bodies.

The cookie is SameSite=Strict, but to browsers all ports of a host and all names of a domain are one
site. So a call of the interface that says which page it comes from must come from a page of the app
itself. Besides, a POST must be JSON or have the header `X-Pictune`. A form can send neither, and a
script of another site would need a CORS preflight, which is never granted.

The owner of a host name can point it to this machine (DNS rebinding); the browser then treats the
owner's page and the app as one site. So only requests under names from the settings are answered.
IP addresses and names below `localhost` are safe: no other page was loaded from there.
"""

import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labeling_app.settings import ServerConfig

LARGEST_BODY = 64 * 1024
"""Largest body in bytes; the longest answer with remarks has a third of this size."""

WRITABLE = ("/api/", "/admin/")
"""Prefixes of the labeling app's addresses that accept writes and that other sites may not read."""

OTHER_SITE = (
    "sent by a page of another site; a proxy in front of the app must hand on the Host header"
)

UNKNOWN = (
    "this app is not known under this name; whoever runs it can add the name to the setting "
    "`host_names`, and a proxy in front of it must hand on the Host header"
)

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # Gradio's pages need inline scripts and styles, and eval, but no connection to any other
    # server.
    "Content-Security-Policy": (
        "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
}


class Guard:
    """ASGI middleware; the outermost, so that it sees requests first and responses last."""

    def __init__(self, app: ASGIApp, writable: tuple[str, ...] = WRITABLE) -> None:
        self._app = app
        self._writable = writable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 403, 404 or 413, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = _refusal(scope, self._writable)
        if refusal is None and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            body = await _read(receive)
            if body is None:
                refusal = 413, f"the body is larger than {LARGEST_BODY} bytes"
            else:
                receive = replaying(body, receive)
        if refusal is not None:
            status, detail = refusal
            await JSONResponse({"detail": detail}, status_code=status)(
                scope, receive, send_with_headers
            )
            return
        await self._app(scope, receive, send_with_headers)


def _refusal(scope: Scope, writable: tuple[str, ...]) -> tuple[int, str] | None:
    headers = Headers(scope=scope)
    reads = scope["method"] in ("GET", "HEAD", "OPTIONS")
    if not scope["path"].startswith(writable):
        return None if reads else (404, "nothing is sent there")
    if _is_foreign(headers, typed=reads):
        return 403, OTHER_SITE
    if reads:
        return None
    is_json = headers.get("content-type", "").split(";")[0].strip().lower() == "application/json"
    if not is_json and "x-pictune" not in headers:
        return 403, "send JSON, with Content-Type: application/json"
    return None


def _is_foreign(headers: Headers, *, typed: bool) -> bool:
    """Whether a page of another origin sends the request.

    `typed` admits requests from the browser's address bar.
    """
    site = headers.get("sec-fetch-site", "same-origin")
    if site != "same-origin" and not (typed and site == "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and not _is_at(origin, headers.get("host", ""))


def _is_at(origin: str, host: str) -> bool:
    """Whether pages at `host` have this origin, with any scheme: a TLS proxy may change it."""
    scheme, _, address = origin.lower().partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    return bool(address) and address.removesuffix(port) == host.lower().removesuffix(port)


async def _read(receive: Receive) -> bytes | None:
    """Return the body; None if it is too large, regardless of its declared length."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return body


def replaying(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields this body first, then the following messages."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


class KnownHosts:
    """ASGI middleware that answers 403 to requests with an unknown Host."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app = app
        self._names = {"localhost", *map(str.lower, (config.host, *config.host_names))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        known = scope["type"] == "lifespan" or self._knows(Headers(scope=scope).get("host", ""))
        app = self._app if known else JSONResponse({"detail": UNKNOWN}, 403)
        await app(scope, receive, send)

    def _knows(self, host: str) -> bool:
        bracketed = host.startswith("[")
        name = host[1:].partition("]")[0] if bracketed else host.partition(":")[0]
        name = name.lower().removesuffix(".")
        return name in self._names or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
