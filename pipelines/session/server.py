"""The web app of sessions: a Gradio shell around our own front end, and its HTTP interface.

Gradio draws the shell once, at the start, as for the raters' page; no request reaches Gradio. The
front end sends a call again until it is answered, so each call may come twice: a session and an
answer have ids that the browser makes.
"""

import asyncio
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import gradio as gr
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field
from starlette.middleware.sessions import SessionMiddleware

from data.feedback import Account
from data.ids import Identifier, Remark
from data.sessions import MOST_TURNS, Session, Turn, TurnAnswer
from data.store.sessions import SessionRefused, open_turn
from labeling_app.app_state import AppState, State
from labeling_app.gradio_pages import draw, gradio_app, house_theme
from labeling_app.guard import Guard
from labeling_app.page import DRAWN, add_files
from labeling_app.passwords import LONGEST
from labeling_app.rater.images import bare_png, encoded
from labeling_app.refusals import add_refusals
from labeling_app.settings import ServerConfig
from labeling_app.sign_in import Identity, Login, Present, sign_in
from pipelines.play.studio import LONGEST_PROMPT, VisitorError, checked_prompt
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


@dataclass(frozen=True)
class SessionPage:
    """What the routes share, as `app.state.page`."""

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


class AskBody(BaseModel, frozen=True, extra="forbid"):
    """Body of a request for the next turn."""

    after: int | None = None
    """The turn to go on from, 0 for the first prompt; null for the latest."""


class Column(BaseModel, frozen=True):
    """A candidate as the person sees it."""

    candidate: int
    prompt: str | None
    """Null where prompts are not shown."""
    images: list[str]
    """Ids, for `images/{image_id}`."""


class TurnView(BaseModel, frozen=True):
    """A turn as the person sees it."""

    turn: int
    after: int
    prompt: str | None
    """What it begins with; null where prompts are not shown, except for the person's own."""
    columns: list[Column]
    answer: TurnAnswer | None


class Drawing(BaseModel, frozen=True):
    """How far the next turn is."""

    ahead: int
    """Sessions that are drawn before this one."""
    done: int
    of: int
    error: str | None


class SessionView(BaseModel, frozen=True):
    """A session as the person sees it."""

    session_id: str
    intent: str | None
    prompt: str
    ended: bool
    most_turns: int = MOST_TURNS
    turns: list[TurnView]
    drawing: Drawing | None
    """Null while nothing is drawn for the session."""


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


@router.post("/login")
async def login(request: Request, body: Login, state: State) -> Identity:
    """Sign in and set the cookie, as on the raters' page."""
    return await asyncio.get_running_loop().run_in_executor(
        state.signing_in, sign_in, request, state, body
    )


@router.get("/me")
def me(account: Present) -> str:
    """Return the name of the rater who is signed in."""
    return account.name


@router.post("/sessions")
def begin(body: NewSession, page: ThePage, account: Present) -> SessionView:
    """Begin a session; its id may be one of the rater's own sessions that has begun."""
    _check_active(account)
    if body.intent is not None and body.intent not in page.intents:
        raise HTTPException(422, "no such intent; load the page again")
    try:
        prompt = checked_prompt(body.prompt)
        session = page.turns.begin(body.session_id, account.rater_id, prompt, intent=body.intent)
    except VisitorError as error:
        raise HTTPException(422, str(error)) from error
    except SessionRefused as error:
        raise HTTPException(409, str(error)) from error
    return _view(page, session)


@router.get("/sessions/{session_id}")
def look(session: Own, page: ThePage) -> SessionView:
    """Return the session with its turns, and how far its next turn is."""
    return _view(page, session)


@router.post("/sessions/{session_id}/turns")
def ask(body: AskBody, session: Own, page: ThePage, account: Present) -> SessionView:
    """Have the next turn drawn, unless one waits for its answer or the session has ended."""
    _check_active(account)
    if body.after and body.after not in {one.number for one in session.turns}:
        raise HTTPException(422, f"there is no turn {body.after} to go on from")
    if open_turn(session) is None and session.ended_at is None:
        page.desk.ask(session.session_id, body.after)
    return _view(page, page.turns.store.get(session.session_id))


@router.post("/sessions/{session_id}/answers")
def answer(body: AnswerBody, session: Own, page: ThePage) -> SessionView:
    """Save the answer to a turn; reply after it is on disk."""
    if not set(body.answer.critique) <= set(CRITIQUE):
        raise HTTPException(422, "no such critique; load the page again")
    try:
        session = page.turns.answer(
            session.session_id, body.turn, body.answer, answer_id=body.answer_id
        )
    except SessionRefused as error:
        raise HTTPException(409, str(error)) from error
    return _view(page, session)


@router.get("/images/{image_id}", response_class=Response)
async def image(image_id: str, state: State, _account: Present) -> Response:
    """Return an image of the run as PNG, without metadata."""
    content = await asyncio.get_running_loop().run_in_executor(
        state.decoding, lambda: encoded(state.image_path(image_id), bare_png)
    )
    # the id is a hash of the content, so a browser may cache it forever
    kept = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(content, media_type="image/png", headers=kept)


def _check_active(account: Account) -> None:
    if account.status != "active":
        raise HTTPException(403, "an admin has paused you; ask them")


def _view(page: SessionPage, session: Session) -> SessionView:
    found = page.desk.find(session.session_id)
    drawing = None
    if found is not None and open_turn(session) is None:
        job, ahead = found
        drawing = Drawing(ahead=ahead, done=job.done, of=job.of, error=job.error)
    return SessionView(
        session_id=session.session_id,
        intent=session.intent,
        prompt=session.prompt,
        ended=session.ended_at is not None,
        turns=[_turn(page, turn) for turn in session.turns],
        drawing=drawing,
    )


def _turn(page: SessionPage, turn: Turn) -> TurnView:
    shown = page.show_prompts
    return TurnView(
        turn=turn.number,
        after=turn.after,
        prompt=turn.prompt if shown or turn.after == 0 else None,
        columns=[
            Column(
                candidate=number,
                prompt=turn.candidates[number].prompt if shown else None,
                images=list(turn.candidates[number].image_ids),
            )
            for number in turn.shown
        ],
        answer=turn.answer,
    )


def create_app(page: SessionPage, config: ServerConfig, secret: bytes) -> FastAPI:
    """Build the web app; `secret` signs the cookies. Not to be called from a coroutine."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.page, app.state.labeling = page, page.state
    # the raters' cookie: all ports of a host share cookies, so one sign-in is enough
    app.add_middleware(
        SessionMiddleware,
        secret_key=secret.hex(),
        session_cookie=f"pictune_{hashlib.sha256(secret).hexdigest()[:8]}",
        same_site="strict",
        https_only=config.https,
    )
    app.add_middleware(Guard)
    app.include_router(router)
    add_refusals(app)
    _, files = draw(
        lambda: gradio_app(
            _build_page(page), "/", house_theme(), STATIC / "session.css", head=_head(page)
        ),
        DRAWN,
    )
    add_files(app, files)
    return app


def _build_page(page: SessionPage) -> gr.Blocks:
    blocks: gr.Blocks
    with gr.Blocks(
        title=f"Pictune session: {page.title}", analytics_enabled=False, fill_width=True
    ) as blocks:
        gr.HTML(
            html_template=(STATIC / "page.html").read_text(encoding="utf-8"),
            js_on_load="startSession(element);",
            apply_default_css=False,
        )
    return blocks


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
