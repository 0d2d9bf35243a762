"""Sign-in of raters, kept in a signed cookie: id, name, browser session and proof of a password.

With passwords, only raters who have a password get in. In an open app a name is enough; raters with
a password, such as admins, must give it there as well.
"""

import hashlib
import ipaddress
import unicodedata
import uuid
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import AfterValidator, BaseModel, Field
from starlette.middleware.sessions import SessionMiddleware

from data.feedback import Account, Role
from data.store.people.attempts import Limit
from labeling_app.app_state import AppState, State
from labeling_app.passwords import LONGEST, is_password

WINDOW_S = 60.0
"""Length in seconds of the window in which wrong passwords are counted."""

MOST_ATTEMPTS = 5
"""Most wrong passwords for a name from one address, or from one browser known for the name."""

MOST_OF_ADDRESS = 50
"""Most wrong passwords from one address, for all names together."""

MOST_FOR_NAME = 100
"""Most wrong passwords for a name from all addresses; known browsers do not count. It is far above
the limit of one address, so that one attacker cannot keep raters out."""

MOST_KNOWN = 10
"""Largest number of raters that a browser remembers."""


def add_cookie(app: FastAPI, secret: bytes, *, is_secure: bool) -> None:
    """Let an app keep the sign-in in a cookie, signed with `secret`; over TLS alone if secure."""
    app.add_middleware(
        SessionMiddleware,
        secret_key=secret.hex(),
        # All ports of a host share cookies: two campaigns must not sign out each other's raters,
        # but replicas, which have one key, must accept each other's cookies.
        session_cookie=f"pictune_{hashlib.sha256(secret).hexdigest()[:8]}",
        same_site="strict",
        https_only=is_secure,
    )


def tidy_name(name: str) -> str:
    """Return the normalized name.

    Differences in spaces or Unicode composition, as in "Ann" and "Ann ", must not make different
    raters.
    """
    tidy = " ".join(unicodedata.normalize("NFC", name).split())
    if not tidy or not tidy.isprintable():
        raise ValueError("a name has at least one character and no control characters")
    return tidy


Name = Annotated[str, Field(max_length=64), AfterValidator(tidy_name)]


class Login(BaseModel, frozen=True, extra="forbid"):
    """Body of a sign-in."""

    rater: Name
    password: Annotated[str, Field(max_length=LONGEST)] | None = None


class Identity(BaseModel, frozen=True):
    """The rater who is signed in."""

    rater_id: str
    name: str
    session_id: str
    role: Role


class Rater(BaseModel, frozen=True):
    """The rater who is signed in, as the cookie says."""

    rater_id: str
    name: str
    session_id: str
    proof: str | None = None
    """Digest of the password at the sign-in; None if a name was enough."""


class Browser(BaseModel, frozen=True):
    """Raters who have signed in from a browser; its cookie keeps them after a sign-out."""

    browser_id: str
    rater_ids: tuple[str, ...]
    """Raters who gave their right password in the browser, the latest last."""

    def with_rater(self, rater_id: str) -> "Browser":
        """Return the browser with a further rater; only the latest `MOST_KNOWN` raters are kept."""
        others = [known for known in self.rater_ids if known != rater_id]
        return self.model_copy(update={"rater_ids": (*others, rater_id)[-MOST_KNOWN:]})


def sign_in(request: Request, state: AppState, login: Login) -> Identity:
    """Check the password, if needed, and put the sign-in into the response's cookie.

    An open app enters new raters in the store.

    Raises:
        HTTPException: 401, wrong name or password; 429, too many attempts.
    """
    account = state.store.raters.find(login.rater)
    if account is None or account.password_hash is None:
        if not state.config.open:
            _check_password(request, state, login, account)
        rater_id = state.store.add_rater(login.rater)
        account = state.store.raters.get(rater_id)
        assert account is not None
    else:
        _check_password(request, state, login, account)
        request.session["browser"] = _browser(request).with_rater(account.rater_id).model_dump()
    rater = Rater(
        rater_id=account.rater_id,
        name=account.name,
        session_id=str(uuid.uuid4()),
        proof=_proof(account),
    )
    request.session["rater"] = rater.model_dump()
    return Identity(**rater.model_dump(exclude={"proof"}), role=account.role)


def sign_out(request: Request, state: AppState) -> None:
    """End the session of the request's cookie, if any; the browser stays known."""
    if "rater" in request.session:
        state.store.raters.end_session(Rater.model_validate(request.session["rater"]).session_id)
        del request.session["rater"]


def _check_password(
    request: Request, state: AppState, login: Login, account: Account | None
) -> None:
    limits = _limits(request, login, account)
    # counted before the check of the password, because many attempts may come at once
    wait_s = state.store.attempts.count(limits)
    if wait_s:
        raise HTTPException(
            429,
            f"too many attempts; try again in {wait_s} s",
            headers={"Retry-After": str(wait_s)},
        )
    if not is_password(login.password or "", account.password_hash if account else None):
        raise HTTPException(401, "name or password is wrong")
    state.store.attempts.take_back(limits)


def _limits(request: Request, login: Login, account: Account | None) -> list[Limit]:
    """Return the limits for a wrong password.

    A browser that once gave the right password has a separate limit, so that nobody can lock it
    out.
    """
    who = account.rater_id if account else login.rater
    browser = _browser(request)
    if who in browser.rater_ids:
        subject = f"browser {browser.browser_id} for {who}"
        return [Limit(subject, MOST_ATTEMPTS, WINDOW_S)]
    address = network_of(request.client.host if request.client else "")
    return [
        Limit(f"address {address} for {who}", MOST_ATTEMPTS, WINDOW_S),
        Limit(f"address {address}", MOST_OF_ADDRESS, WINDOW_S),
        Limit(f"name {who}", MOST_FOR_NAME, WINDOW_S),
    ]


def _browser(request: Request) -> Browser:
    known = request.session.get("browser")
    return (
        Browser(browser_id=str(uuid.uuid4()), rater_ids=())
        if known is None
        else Browser.model_validate(known)
    )


def network_of(host: str) -> str:
    """Return a client's IPv4 address or IPv6 network, as an IPv6 client has 2^64 addresses."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and not address.ipv4_mapped:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host


def _proof(account: Account) -> str | None:
    return (
        None
        if account.password_hash is None
        else hashlib.sha256(account.password_hash.encode()).hexdigest()[:16]
    )


def rater_of(request: Request, state: AppState) -> Rater:
    """Return the rater of the request's cookie, which all tabs of a browser share.

    A page that names its rater in `X-Pictune` must not act for another rater who signed in later.

    Raises:
        HTTPException: 401, nobody is signed in, or not the rater that the page names.
    """
    if "rater" not in request.session:
        raise HTTPException(401, "not signed in; give your name first")
    rater = Rater.model_validate(request.session["rater"])
    if rater.proof is None and not state.config.open:
        raise HTTPException(401, "a password is needed now; sign in again")
    if request.headers.get("x-pictune", "1") not in ("1", rater.rater_id):
        raise HTTPException(401, "somebody else has signed in in this browser; sign in again")
    return rater


async def _rater(request: Request, state: State) -> Rater:
    return rater_of(request, state)


SignedIn = Annotated[Rater, Depends(_rater)]


def present(rater: SignedIn, state: State) -> Account:
    """Return the rater's current account.

    Since the sign-in, the rater may have signed out or got another password or role.

    Raises:
        HTTPException: 401, the sign-in is no longer valid.
    """
    account = state.store.raters.get_signed_in(rater.rater_id, rater.session_id)
    if account is None or _proof(account) != rater.proof:
        raise HTTPException(401, "your sign-in does not hold any more; sign in again")
    return account


Present = Annotated[Account, Depends(present)]


def admin(account: Present) -> Account:
    """Return the admin who is signed in.

    Raises:
        HTTPException: 403, the rater is not an admin.
    """
    if account.role != "admin":
        raise HTTPException(403, "for admins only; sign in as one")
    return account


Admin = Annotated[Account, Depends(admin)]
