"""The web app of sessions: a Gradio shell around our own front end, and its HTTP interface.

Gradio draws the shell once, at the start, as for the raters' page; no request reaches Gradio. The
front end sends a call again until it is answered, so each call may come twice: a session and an
answer have ids that the browser makes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gradio as gr
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field

from data.feedback import Account
from data.ids import Identifier, Remark
from data.sessions import MOST_TURNS, Session, Turn, TurnAnswer
from data.store.sessions import SessionRefused, open_turn
from labeling_app.app_state import AppState
from labeling_app.gradio_pages import draw, gradio_app, house_theme
from labeling_app.guard import Guard
from labeling_app.page import DRAWN, add_files
from labeling_app.passwords import LONGEST
from labeling_app.rater.api import image, login
from labeling_app.refusals import add_refusals
from labeling_app.settings import ServerConfig
from labeling_app.sign_in import Present, add_cookie
from pipelines.play.studio import VisitorError, checked_prompt
from pipelines.run.image_plan import LONGEST_PROMPT
from pipelines.session.desk import Desk
from pipelines.session.turns import Turns

STATIC = Path(__file__).parent / "static"

CRITIQUE = (
    "not what I meant",
    "something is missing",
    "too much in it",
    "wrong count",
    "wrong colors",
    "wrong style",
    "poor quality",
)
"""Words for what is wrong with a slate."""

router = APIRouter(prefix="/api/v1")
router.add_api_route("/login", login, methods=["POST"])
router.add_api_route("/images/{image_id}", image, response_class=Response)

View = dict[str, Any]
"""A session as the page shows it: its turns, without prompts where these are hidden, and how far
its next turn is."""


@dataclass(frozen=True)
class SessionPage:
    """State that the routes share, as `app.state.page`."""

    state: AppState
    turns: Turns
    desk: Desk
    intents: tuple[str, ...]
    show_prompts: bool
    title: str


class NewSession(BaseModel, frozen=True, extra="forbid"):
    """Body of a new session."""

    session_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Made by the browser; sending the same again changes nothing."""
    prompt: Remark
    intent: Remark | None = None
    """One of the lead's, or none."""


class AnswerBody(BaseModel, frozen=True, extra="forbid"):
    """Body of an answer."""

    answer_id: Identifier
    """Made by the browser for every answer; sending it again changes nothing."""
    turn: int
    answer: TurnAnswer


async def _page(request: Request) -> SessionPage:
    page: SessionPage = request.app.state.page
    return page


ThePage = Annotated[SessionPage, Depends(_page)]


def _own(session_id: str, page: ThePage, account: Present) -> Session:
    """Return a session of the rater who is signed in."""
    session = page.turns.store.find(session_id)
    if session is None or session.rater_id != account.rater_id:
        raise HTTPException(404, "no such session of yours; begin a new one")
    return session


Own = Annotated[Session, Depends(_own)]


@router.get("/me")
def me(account: Present) -> str:
    """Return the name of the rater who is signed in."""
    return account.name


@router.post("/sessions")
def begin(body: NewSession, page: ThePage, account: Present) -> View:
    """Begin a session; its id may be one of the rater's own sessions that has begun."""
    _check_active(account)
    if body.intent is not None and body.intent not in page.intents:
        raise HTTPException(422, "no such intent; load the page again")
    try:
        prompt = checked_prompt(body.prompt)
        session = page.turns.store.begin(
            body.session_id, account.rater_id, prompt, intent=body.intent
        )
    except VisitorError as error:
        raise HTTPException(422, str(error)) from error
    except SessionRefused as error:
        raise HTTPException(409, str(error)) from error
    return _view(page, session)


@router.get("/sessions/{session_id}")
def look(session: Own, page: ThePage) -> View:
    """Return the session with its turns, and how far its next turn is."""
    return _view(page, session)


@router.post("/sessions/{session_id}/turns")
def ask(session: Own, page: ThePage, account: Present, after: int | None = None) -> View:
    """Have the next turn drawn, unless one waits for its answer or the session has ended.

    `after` is the turn to go on from, 0 for the first prompt; the latest without it.
    """
    _check_active(account)
    if after and after not in {one.number for one in session.turns}:
        raise HTTPException(422, f"there is no turn {after} to go on from")
    if open_turn(session) is None and session.ended_at is None:
        page.desk.ask(session.session_id, after)
    return _view(page, page.turns.store.get(session.session_id))


@router.post("/sessions/{session_id}/answers")
def answer(body: AnswerBody, session: Own, page: ThePage) -> View:
    """Save the answer to a turn; reply after it is on disk."""
    if not set(body.answer.critique) <= set(CRITIQUE):
        raise HTTPException(422, "no such critique; load the page again")
    try:
        session = page.turns.store.save_answer(
            session.session_id, body.turn, body.answer, answer_id=body.answer_id
        )
    except SessionRefused as error:
        raise HTTPException(409, str(error)) from error
    return _view(page, session)


def _check_active(account: Account) -> None:
    if account.status != "active":
        raise HTTPException(403, "an admin has paused you; ask them")


def _view(page: SessionPage, session: Session) -> View:
    found = page.desk.find(session.session_id)
    is_drawing = found is not None and open_turn(session) is None
    return {
        "session_id": session.session_id,
        "intent": session.intent,
        "prompt": session.prompt,
        "ended": session.ended_at is not None,
        "most_turns": MOST_TURNS,
        "turns": [_turn(page, turn) for turn in session.turns],
        "drawing": vars(found[0]) | {"ahead": found[1]} if found and is_drawing else None,
    }


def _turn(page: SessionPage, turn: Turn) -> View:
    shown = [(number, turn.candidates[number]) for number in turn.shown]
    return {
        "turn": turn.number,
        "after": turn.after,
        "prompt": turn.prompt if page.show_prompts or turn.after == 0 else None,
        "columns": [
            {
                "candidate": number,
                "prompt": one.prompt if page.show_prompts else None,
                "images": one.image_ids,
            }
            for number, one in shown
        ],
        "answer": turn.answer,
    }


def create_app(page: SessionPage, config: ServerConfig, secret: bytes) -> FastAPI:
    """Build the web app; `secret` signs the cookies. Not to be called from a coroutine."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.page, app.state.labeling = page, page.state
    add_cookie(app, secret, is_secure=config.https)  # the raters' own: one sign-in is enough
    app.add_middleware(Guard)
    app.include_router(router)
    add_refusals(app)
    _, files = draw(lambda: _shell(page), DRAWN)
    add_files(app, files)
    return app


def _shell(page: SessionPage) -> FastAPI:
    blocks: gr.Blocks
    with gr.Blocks(
        title=f"Pictune session: {page.title}", analytics_enabled=False, fill_width=True
    ) as blocks:
        gr.HTML(
            html_template=(STATIC / "page.html").read_text(encoding="utf-8"),
            js_on_load="startSession(element);",
            apply_default_css=False,
        )
    return gradio_app(blocks, "/", house_theme(), STATIC / "session.css", head=_head(page))


def _head(page: SessionPage) -> str:
    """Return HTML for the page's head: our script, and the facts that it needs."""
    facts = {
        "needs_password": not page.state.config.open,
        "intents": page.intents,
        "critique": CRITIQUE,
        "longest_prompt": LONGEST_PROMPT,
        "longest_password": LONGEST,
    }
    told = json.dumps(facts).replace("<", "\\u003c")
    script = (STATIC / "session.js").read_text(encoding="utf-8")
    return f'<script type="application/json" id="facts">{told}</script><script>{script}</script>'
