"""Stage `rater`: adds a rater with a password, or gives one that is there a new password and perhaps another role."""

import getpass
import sys

from pydantic import ValidationError

from data.errors import PictuneError
from data.runs import RunFolder
from labeling_app.passwords import LONGEST, hash_password
from labeling_app.sign_in import Login
from pipelines.config import Settings
from pipelines.tasks import open_store


def main(run: RunFolder, settings: Settings, *, name: str, role: str | None) -> None:  # noqa: ARG001 - every stage is called alike
    """Asks for the password, on the terminal or as a line of standard input.

    Raises:
        PictuneError: the name or the password will not do.
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
