"""Sessions: a slate of candidate prompts each turn, and what a person picked from it.

The setting of PASTA (Nabati et al. 2025, arXiv 2412.10419): a turn begins with a prompt. Expanders
propose candidate prompts, a policy shows a few of them, each as a column of images, and the person
picks a column. The next turn begins with the prompt of this column.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field, NonNegativeInt

from data.feedback import Source
from data.ids import Identifier, Remark
from data.schema import schema_of

Category = Literal["rephrase", "detail", "style", "subject", "surprise"]
"""Changes that an expander makes to a prompt: other words, a further detail, another style, another
subject, or something that nobody expects."""
CATEGORIES: tuple[Category, ...] = get_args(Category)

Progress = Literal["better", "same", "worse"]
"""The slate of a turn against the slate of the turn before."""

COLUMNS = 4
"""Candidates of a slate, at most one of each category."""
COLUMN_IMAGES = 4
"""Images of a candidate."""
MOST_TURNS = 5
"""Turns of a session."""

SESSIONS = schema_of("""
session_id    string   identifies the session
rater_id      string   salted hash of the person
source        string   human or simulated
intent        string?  what the person was asked to get drawn; null for a wish of their own
prompt        string   the prompt of the first turn
started_at    moment   when the first turn was asked for
ended_at      moment?  when the person stopped; null while the session goes on
n_turns       int16    turns that were answered
""")

SESSION_TURNS = schema_of("""
session_id     string    the session
turn           int16     counts the turns of a session from 1
after          int16     the turn whose pick this turn begins with; 0 for the prompt of the session
prompt         string    the prompt that the turn begins with
policy         string    name and version of the policy that chose the slate
shown_at       moment    when the slate was ready
answered_at    moment?   when the answer was saved; null while there is none
chosen         int16?    number of the candidate that was picked; null where none was
progress       string?   better, same or worse than the turn before; null where nobody said
critique       strings?  what is wrong, by the words offered
comment        string?   free text
stops          bool?     true where the person ended the session with this turn
time_on_task_ms  int32?  milliseconds from the slate on the screen to the answer
""")

SESSION_CANDIDATES = schema_of("""
session_id  string    the session
turn        int16     the turn
candidate   int16     counts the candidates of a turn from 0, as proposed
prompt      string    the candidate prompt
category    string    rephrase, detail, style, subject or surprise
place       int8?     the column, from 0 at the left; null where the candidate was not shown
chance      float32?  probability that the policy puts it at this place, given the columns before
    it; null where it was not shown
value       float32?  the policy's value of the candidate; null for a policy without values
chosen      bool      true for the candidate that was picked
image_ids   strings   its images; empty where it was not shown
""")


@dataclass(frozen=True)
class Candidate:
    """A candidate prompt of a turn; its number is its place in `Turn.candidates`."""

    prompt: str
    category: Category
    place: int | None = None
    """The column, from 0; None where the candidate is not shown."""
    chance: float | None = None
    """Probability that the policy puts it at this place, given the columns before it."""
    value: float | None = None
    """The policy's value of the candidate."""
    image_ids: tuple[str, ...] = ()


class TurnAnswer(BaseModel, frozen=True, extra="forbid"):
    """The answer of a person to a slate."""

    chosen: Annotated[NonNegativeInt, Field(lt=1000)] | None = None
    """Number of the candidate that is picked, one of those shown; None for none of them."""
    progress: Progress | None = None
    critique: Annotated[tuple[Identifier, ...], Field(max_length=10)] = ()
    """Words that the page offers."""
    comment: Remark | None = None
    stops: bool = False
    """Whether this turn is the session's last."""
    time_on_task_ms: Annotated[NonNegativeInt, Field(lt=2**31)] | None = None


@dataclass(frozen=True)
class Turn:
    """A slate, and its answer once there is one."""

    number: int
    """Counts from 1."""
    after: int
    """The turn whose pick this turn begins with; 0 for the prompt of the session."""
    prompt: str
    """The prompt that the turn begins with."""
    policy: str
    candidates: tuple[Candidate, ...]
    shown_at: datetime
    answer: TurnAnswer | None = None
    answered_at: datetime | None = None

    @property
    def shown(self) -> tuple[int, ...]:
        """Numbers of the candidates that are shown, by column."""
        placed = [(one.place, k) for k, one in enumerate(self.candidates) if one.place is not None]
        return tuple(number for _, number in sorted(placed))


@dataclass(frozen=True)
class Session:
    """A person's session, with all its turns."""

    session_id: str
    rater_id: str
    source: Source
    intent: str | None
    prompt: str
    started_at: datetime
    turns: tuple[Turn, ...] = ()
    ended_at: datetime | None = None

    def path_to(self, after: int) -> "Session":
        """Return the session with only the turns that lead to turn `after`, and it; none for 0."""
        by_number = {one.number: one for one in self.turns}
        turns: list[Turn] = []
        while after:
            turns.append(by_number[after])
            after = by_number[after].after
        return replace(self, turns=tuple(reversed(turns)))
