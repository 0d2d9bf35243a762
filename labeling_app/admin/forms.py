"""Forms of the admin page, as its script sends them: names and texts of their fields."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from data.feedback import Decision, Role
from data.ids import Identifier, Remark
from data.kinds.kind import Answer
from data.kinds.ranking import RankingAnswer
from data.kinds.registry import TaskKind
from data.kinds.verdict import BinaryAnswer
from data.store.plan.planning import LARGEST_OVERLAP
from labeling_app.admin import actions
from labeling_app.admin.responses import NewPassword
from labeling_app.app_state import AppState
from labeling_app.sign_in import Name

RANK = "rank "
"""Beginning of the names of the fields that have ranks; the image's id follows."""


def _or_none(text: object) -> object:
    """Return None for an empty field."""
    return None if isinstance(text, str) and not text.strip() else text


Percent = Annotated[
    Annotated[float, Field(gt=0, le=100)] | None,
    BeforeValidator(_or_none),
]


class DecisionForm(BaseModel, frozen=True):
    """Decision about a reported image, or about all that a rater has reported."""

    decision: Decision
    image_id: Identifier | None = None
    rater: Identifier | None = None

    def apply(self, state: AppState, admin_id: str) -> None:
        """Do it.

        Raises:
            NotFound: no such report is open.
        """
        if self.image_id is not None:
            actions.decide(state, admin_id, self.image_id, self.decision)
        elif self.rater is not None:
            actions.put_back_all(state, admin_id, self.rater)


class TaskForm(BaseModel, frozen=True):
    """Form about a task."""

    task_id: Identifier


class AdjudicationForm(TaskForm, frozen=True, extra="allow"):
    """Answer in the raters' place: `verdict`, or a field with a rank for each image."""

    kind: TaskKind
    verdict: str | None = None
    comment: Annotated[Remark | None, BeforeValidator(_or_none)] = None

    @property
    def answer(self) -> Answer:
        """The answer.

        Raises:
            ValidationError: pydantic's; it is none.
        """
        facts: dict[str, Any] = {"comment": self.comment}
        if self.kind == "binary":
            return BinaryAnswer.model_validate(facts | {"verdict": self.verdict})
        fields = self.model_extra or {}
        ranks = {
            name.removeprefix(RANK): _or_none(value)
            for name, value in fields.items()
            if name.startswith(RANK)
        }
        return RankingAnswer.model_validate(facts | {"ranks": ranks})


class PersonForm(BaseModel, frozen=True):
    """Change of a rater, or a new one."""

    what: Literal["add", "pause", "resume", "password", "role", "share"]
    rater: Name
    role: Role = "rater"
    share: Percent = None

    def apply(self, state: AppState, admin_id: str) -> NewPassword | None:
        """Do it; return a new password, if there is one.

        Raises:
            HTTPException: it cannot be done.
        """
        if self.what == "add":
            return actions.add_rater(state, admin_id, self.rater, self.role)
        if self.what == "password":
            return actions.new_password(state, admin_id, self.rater)
        if self.what == "role":
            actions.set_role(state, admin_id, self.rater, self.role)
        elif self.what == "share":
            share = None if self.share is None else self.share / 100
            actions.set_share(state, admin_id, self.rater, share)
        else:
            actions.set_paused(state, admin_id, self.rater, paused=self.what == "pause")
        return None


class OverlapForm(BaseModel, frozen=True):
    """Overlap of a kind of task."""

    kind: TaskKind
    overlap: Annotated[int, Field(ge=1, le=LARGEST_OVERLAP)]


class GoldForm(BaseModel, frozen=True):
    """File of gold."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    csv: str
