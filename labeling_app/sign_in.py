"""Who is rating: a signed cookie that holds the rater's id, name and browser session."""

import unicodedata
import uuid
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from pydantic import AfterValidator, BaseModel, Field

from labeling_app.desk import Desk


def _tidy(name: str) -> str:
    # "Ann", "Ann " and a differently composed "Ánn" must not become several raters
    tidy = " ".join(unicodedata.normalize("NFC", name).split())
    if not tidy or not tidy.isprintable():
        raise ValueError("a name has at least one character and no control characters")
    return tidy


class Login(BaseModel, frozen=True, extra="forbid"):
    """Body of a sign-in: any name will do, so the app listens on this machine alone unless told otherwise."""

    rater: Annotated[str, Field(max_length=64), AfterValidator(_tidy)]


class Rater(BaseModel, frozen=True):
    """Who is signed in."""

    rater_id: str
    name: str
    session_id: str


def sign_in(request: Request, desk: Desk, login: Login) -> Rater:
    """Enters the rater in the store, if new, and puts the sign-in into the answer's cookie."""
    rater = Rater(rater_id=desk.store.add_rater(login.rater), name=login.rater, session_id=str(uuid.uuid4()))
    request.session["rater"] = rater.model_dump()
    return rater


def signed_in(request: Request) -> Rater:
    """The rater of the request's cookie.

    Raises:
        HTTPException: 401, nobody is signed in.
    """
    if "rater" not in request.session:
        raise HTTPException(401, "not signed in; give your name first")
    return Rater.model_validate(request.session["rater"])


SignedIn = Annotated[Rater, Depends(signed_in)]
