"""Who is rating: a signed cookie that holds the rater's id, name and browser session, and what was proved at the sign-in.

With passwords, only raters that have one get in. Where the app is open, a name is enough; but whoever has a password, as admins do,
must give it there too.
"""

import hashlib
import ipaddress
import unicodedata
import uuid
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from pydantic import AfterValidator, BaseModel, Field

from data.feedback import Account, Role
from labeling_app.desk import Desk, TheDesk
from labeling_app.passwords import LONGEST, is_password
from labeling_app.throttle import Throttle

MOST_KNOWN = 10
"""Raters whom a browser is known for."""


def tidy_name(name: str) -> str:
    """The name in one spelling: "Ann", "Ann " and a differently composed "Ánn" must not become several raters."""
    tidy = " ".join(unicodedata.normalize("NFC", name).split())
    if not tidy or not tidy.isprintable():
        raise ValueError("a name has at least one character and no control characters")
    return tidy


Name = Annotated[str, Field(max_length=64), AfterValidator(tidy_name)]


class Login(BaseModel, frozen=True, extra="forbid"):
    """Body of a sign-in."""

    rater: Name
    password: Annotated[str, Field(max_length=LONGEST)] | None = None


class Rater(BaseModel, frozen=True):
    """Who is signed in, as the cookie says."""

    rater_id: str
    name: str
    session_id: str
    proof: str | None = None
    """Names the password that was given; None where a name was enough."""


class Browser(BaseModel, frozen=True):
    """What a browser is known for, also after a sign-out; in the cookie."""

    browser_id: str
    rater_ids: tuple[str, ...]
    """The raters whose right passwords were given there, the latest last."""

    def with_rater(self, rater_id: str) -> "Browser":
        """The browser with one rater more; a cookie is small, so that only the latest are kept."""
        others = [known for known in self.rater_ids if known != rater_id]
        return self.model_copy(update={"rater_ids": (*others, rater_id)[-MOST_KNOWN:]})


class Identity(BaseModel, frozen=True):
    """Who is signed in, as clients are told."""

    rater_id: str
    name: str
    session_id: str
    role: Role


def sign_in(request: Request, desk: Desk, login: Login) -> Identity:
    """Checks the password, where one is needed, and puts the sign-in into the answer's cookie; an open app enters new raters in the store.

    Raises:
        HTTPException: 401, wrong name or password; 429, too many attempts.
    """
    account = desk.store.raters.find(login.rater)
    if account is None or account.password_hash is None:
        if not desk.is_open:
            _check_password(request, desk, login, account)
        rater_id = desk.store.add_rater(login.rater)
        account = desk.store.raters.get(rater_id)
        assert account is not None
    else:
        _check_password(request, desk, login, account)
        request.session["browser"] = _browser(request).with_rater(account.rater_id).model_dump()
    rater = Rater(
        rater_id=account.rater_id,
        name=account.name,
        session_id=str(uuid.uuid4()),
        proof=_proof(account),
    )
    request.session["rater"] = rater.model_dump()
    return Identity(**rater.model_dump(exclude={"proof"}), role=account.role)


def sign_out(request: Request, desk: Desk) -> None:
    """Ends the session of the request's cookie, if there is one; the browser stays known."""
    if "rater" in request.session:
        desk.store.raters.end_session(Rater.model_validate(request.session["rater"]).session_id)
        del request.session["rater"]


def _check_password(request: Request, desk: Desk, login: Login, account: Account | None) -> None:
    limits = _limits(request, desk, login, account)
    for number, (throttle, key) in enumerate(
        limits
    ):  # counted before it is known to be wrong, as many may come at once
        wait_s = throttle.attempt(key)
        if wait_s:
            _take_back(limits[:number])
            raise HTTPException(
                429,
                f"too many attempts; try again in {wait_s} s",
                headers={"Retry-After": str(wait_s)},
            )
    if not is_password(login.password or "", account.password_hash if account else None):
        raise HTTPException(401, "name or password is wrong")
    _take_back(limits)


def _limits(
    request: Request, desk: Desk, login: Login, account: Account | None
) -> list[tuple[Throttle, str]]:
    """What a wrong password counts towards. A browser that once gave the right one has a limit of its own: nobody else can keep it out."""
    who = account.rater_id if account else login.rater
    browser = _browser(request)
    if who in browser.rater_ids:
        return [(desk.attempts, f"{who} {browser.browser_id}")]
    address = _address(request)
    return [
        (desk.attempts, f"{who} {address}"),
        (desk.attempts_by_address, address),
        (desk.attempts_by_name, who),
    ]


def _take_back(limits: Sequence[tuple[Throttle, str]]) -> None:
    for throttle, key in limits:
        throttle.take_back(key)


def _browser(request: Request) -> Browser:
    known = request.session.get("browser")
    return (
        Browser(browser_id=str(uuid.uuid4()), rater_ids=())
        if known is None
        else Browser.model_validate(known)
    )


def _address(request: Request) -> str:
    """The client's address; of IPv6 the network, since each of its clients has 2^64 addresses to choose from."""
    host = request.client.host if request.client else ""
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


def rater_of(request: Request, desk: Desk) -> Rater:
    """The rater of the request's cookie, which all tabs of a browser share.

    A page that names its rater in `X-Pictune` must not act for another one, who has signed in since.

    Raises:
        HTTPException: 401, nobody is signed in, or somebody else than the page says.
    """
    if "rater" not in request.session:
        raise HTTPException(401, "not signed in; give your name first")
    rater = Rater.model_validate(request.session["rater"])
    if rater.proof is None and not desk.is_open:
        raise HTTPException(401, "a password is needed now; sign in again")
    if request.headers.get("x-pictune", "1") not in ("1", rater.rater_id):
        raise HTTPException(401, "somebody else has signed in in this browser; sign in again")
    return rater


async def _rater(request: Request, desk: TheDesk) -> Rater:
    return rater_of(request, desk)


SignedIn = Annotated[Rater, Depends(_rater)]


def present(rater: SignedIn, desk: TheDesk) -> Account:
    """What the store knows of the rater now, who may have signed out or been given another password or role since the sign-in.

    Raises:
        HTTPException: 401, the sign-in does not hold any more.
    """
    account = desk.store.raters.get_signed_in(rater.rater_id, rater.session_id)
    if account is None or _proof(account) != rater.proof:
        raise HTTPException(401, "your sign-in does not hold any more; sign in again")
    return account


Present = Annotated[Account, Depends(present)]


def admin(account: Present) -> Account:
    """The admin who is signed in.

    Raises:
        HTTPException: 403, a rater.
    """
    if account.role != "admin":
        raise HTTPException(403, "for admins only; sign in as one")
    return account


Admin = Annotated[Account, Depends(admin)]
