"""Who is rating: a signed cookie that holds the rater's id, name and browser session, and what was proved at the sign-in.

With passwords, only raters that have one get in. Where the app is open, a name is enough; but whoever has a password, as admins do,
must give it there too.
"""

import hashlib
import unicodedata
import uuid
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from pydantic import AfterValidator, BaseModel, Field

from data.feedback import Account, Role
from labeling_app.desk import Desk, TheDesk
from labeling_app.passwords import LONGEST, is_password


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
            _check_password(request, desk, login, None)
        rater_id = desk.store.add_rater(login.rater)
        account = desk.store.raters.get(rater_id)
        assert account is not None
    else:
        _check_password(request, desk, login, account.password_hash)
    rater = Rater(rater_id=account.rater_id, name=account.name, session_id=str(uuid.uuid4()), proof=_proof(account))
    request.session["rater"] = rater.model_dump()
    return Identity(**rater.model_dump(exclude={"proof"}), role=account.role)


def _check_password(request: Request, desk: Desk, login: Login, password_hash: str | None) -> None:
    address = request.client.host if request.client else ""
    wait_s = desk.attempts_by_name.attempt(login.rater) or desk.attempts_by_address.attempt(address)
    if wait_s:
        raise HTTPException(429, f"too many attempts; try again in {wait_s} s", headers={"Retry-After": str(wait_s)})
    if not is_password(login.password or "", password_hash):
        raise HTTPException(401, "name or password is wrong")
    desk.attempts_by_name.forget(login.rater)


def _proof(account: Account) -> str | None:
    return None if account.password_hash is None else hashlib.sha256(account.password_hash.encode()).hexdigest()[:16]


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
    """What the store knows of the rater now, who may have been given another password or role since the sign-in.

    Raises:
        HTTPException: 401, the sign-in does not hold any more.
    """
    account = desk.store.raters.get(rater.rater_id)
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
