"""Actions of admins: what the JSON routes and the buttons of the admin page do.

Each is in the trail of the store (`data.store.people.audit`) with the admin who did it.
"""

from fastapi import HTTPException

from data.errors import PictuneError
from data.feedback import Account, Decision, Role, Status
from data.kinds.kind import Answer
from data.kinds.registry import TaskKind
from labeling_app.admin.responses import (
    Adjudicated,
    Decided,
    Exported,
    GoldAdded,
    NewPassword,
    PauseState,
    PutBack,
)
from labeling_app.app_state import AppState
from labeling_app.campaign.known_answers import parse_gold
from labeling_app.passwords import draw_password, hash_password


def decide(state: AppState, admin_id: str, image_id: str, decision: Decision) -> Decided:
    """Record an admin's decision about a reported image.

    Raises:
        NotFound: no report of the image is open.
    """
    state.store.reports.decide(image_id, decision, admin_id)
    return Decided(decision=decision)


def put_back_all(state: AppState, admin_id: str, rater: str) -> PutBack:
    """Put all images back that this rater alone reported, where nobody has decided yet.

    Raises:
        NotFound: no report of theirs is open.
    """
    return PutBack(images=state.store.reports.put_back_all(rater, admin_id))


def adjudicate(state: AppState, admin_id: str, task_id: str, answer: Answer) -> Adjudicated:
    """Answer a task in the raters' place.

    Raises:
        NotFound: no such task.
        InvalidAnswer: the answer does not fit the task.
    """
    receipt = state.store.adjudications.decide(task_id, answer, admin_id)
    return Adjudicated(label_id=receipt.label_id, revision=receipt.revision)


def withdraw(state: AppState, admin_id: str, task_id: str) -> None:
    """Take the answer in the raters' place back.

    Raises:
        NotFound: there is none.
    """
    state.store.adjudications.withdraw(task_id, admin_id)


def set_paused(state: AppState, admin_id: str, rater: str | None, *, paused: bool) -> PauseState:
    """Pause or resume the rater of this name, or the campaign where `rater` is None.

    Raises:
        HTTPException: 404, nobody is called so.
    """
    if rater is None:
        state.store.set_paused(paused, by=admin_id)
    else:
        status: Status = "paused" if paused else "active"
        state.store.raters.set_status(_named(state, rater).rater_id, status, by=admin_id)
    return PauseState(paused=paused)


def add_rater(state: AppState, admin_id: str, name: str, role: Role) -> NewPassword:
    """Add a rater with a new password, which nobody can read again.

    Raises:
        HTTPException: 409, somebody is called so.
    """
    with state.store.database.write():
        known = state.store.raters.find(name)
        if known is not None:
            raise HTTPException(409, f"{known.name} is there already; give them a new password")
        rater_id = state.store.add_rater(name, by=admin_id)
        state.store.raters.set_role(rater_id, role, by=admin_id)
    return new_password(state, admin_id, name)


def new_password(state: AppState, admin_id: str, rater: str) -> NewPassword:
    """Give a rater a new password, which ends earlier sign-ins.

    Raises:
        HTTPException: 404, nobody is called so.
    """
    account = _named(state, rater)
    password = draw_password()
    # on the threads that check passwords, as a hash takes as much memory as a check
    password_hash = state.signing_in.submit(hash_password, password).result()
    state.store.raters.set_password(account.rater_id, password_hash, by=admin_id)
    return NewPassword(rater=account.name, role=account.role, password=password)


def set_role(state: AppState, admin_id: str, rater: str, role: Role) -> None:
    """Make a rater an admin, or an admin a rater.

    Raises:
        HTTPException: 404, nobody is called so; 409, it is the admin's own role.
    """
    account = _named(state, rater)
    if account.rater_id == admin_id and role != "admin":
        raise HTTPException(409, "you cannot take your own role away; ask another admin")
    if role == "admin" and account.password_hash is None:
        raise HTTPException(409, f"{account.name} has no password; give them one first")
    state.store.raters.set_role(account.rater_id, role, by=admin_id)


def set_share(state: AppState, admin_id: str, rater: str, share: float | None) -> None:
    """Limit a rater to a share of the wanted labels; None lifts the limit.

    Raises:
        HTTPException: 404, nobody is called so.
    """
    state.store.raters.set_share(_named(state, rater).rater_id, share, by=admin_id)


def set_overlap(state: AppState, admin_id: str, kind: TaskKind, overlap: int) -> None:
    """Ask so many people about each task of this kind."""
    state.store.plan.set_overlap(kind, overlap, admin_id)


def add_gold(state: AppState, admin_id: str, name: str, text: str) -> GoldAdded:
    """Add images whose right answers are known, as `tasks.gold` does.

    Args:
        state: the app's.
        admin_id: who adds it.
        name: name of the CSV file.
        text: its content.

    Raises:
        HTTPException: 422, a row cannot be understood; then nothing is added.
    """
    if state.images is None:
        raise HTTPException(422, "this app does not know the campaign's images by their paths")
    try:
        gold = parse_gold(text, name, state.images())
    except PictuneError as error:
        raise HTTPException(422, str(error)) from error
    new = state.store.plan.add_gold(gold, admin_id)
    return GoldAdded(tasks=len(gold), new=new)


def export(state: AppState, admin_id: str) -> Exported:
    """Export to Parquet now.

    Raises:
        PictuneError: the export failed; the labels are safe in the store.
    """
    state.store.audit.note("export", admin_id)
    state.exports.export()
    return Exported(last_export=state.health.last_export)


def _named(state: AppState, rater: str) -> Account:
    account = state.store.raters.find(rater)
    if account is None:
        raise HTTPException(404, f"no rater is called {rater}")
    return account
