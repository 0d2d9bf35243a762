"""Check of the name by which a browser reaches the app.

Whoever owns a name can let it lead to this machine (DNS rebinding): their page, loaded under that
name, and the app are then one site to a browser, and the page may read and send what the app's own
pages may. So only names that the operator knows are answered. An address in place of a name, or a
name below `localhost`, gives nothing away: nobody else's page was loaded from there.
"""

import ipaddress

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from labeling_app.settings import ServerConfig

UNKNOWN = (
    "this app is not known under this name; whoever runs it can add the name to the setting "
    "`host_names`, and a proxy in front of it must hand on the Host header"
)


class KnownHosts:
    """ASGI middleware that answers 403 to requests whose Host is a name it does not know."""

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
    """Whether this is an IP address rather than a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
