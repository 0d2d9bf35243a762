"""Stage `rater`: add a rater with a password, or change a rater's password or role."""

import argparse
import getpass
import sys
from typing import get_args

from pydantic import ValidationError

from data.errors import PictuneError
from data.feedback import Role
from data.runs import RunFolder
from labeling_app.passwords import LONGEST, hash_password
from labeling_app.sign_in import Login
from pipelines.flags import one_of
from pipelines.run.campaign import open_store
from pipelines.settings.config import Settings

ROLES = get_args(Role)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    parser.add_argument("--name", required=True, help="the name to sign in with")
    parser.add_argument(
        "--role",
        type=one_of("ROLE", ROLES),
        metavar="|".join(ROLES),
        help="what the rater may do (default: as before, a new one is a rater)",
    )


def main(run: RunFolder, settings: Settings, *, name: str, role: str | None) -> None:  # noqa: ARG001 - every stage is called alike
    """Read the password from the terminal or from a line of standard input, and store it.

    Raises:
        PictuneError: the name or the password is not allowed.
    """
    try:
        tidy = Login(rater=name).rater
    except ValidationError as error:
        raise PictuneError(f"NAME {name}: {error.errors()[0]['msg']}; give another") from error
    password_hash = hash_password(_ask_password(tidy))
    with open_store(run) as store:
        rater_id = store.add_rater(tidy)
        store.raters.set_password(rater_id, password_hash)
        if role is not None:
            store.raters.set_role(rater_id, "admin" if role == "admin" else "rater")
        account = store.raters.get(rater_id)
    assert account is not None
    print(f"rater: {account.name} may sign in as {account.role}")


def _ask_password(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline(LONGEST + 2).rstrip("\r\n")
    password = getpass.getpass(f"Password of {name}: ")
    if getpass.getpass("Once more: ") != password:
        raise PictuneError("password: typed differently the second time; try again")
    return password
