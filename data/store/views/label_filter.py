"""Choice among the labels of one rater, as conditions of a query over labels."""

from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from data.comparisons import SHOWN_WITHOUT_PROMPT
from data.kinds.registry import TaskKind
from data.store.tables import labels, prompts, tasks

AnswerGroup = Literal["good", "bad", "skipped", "reported", "commented"]
"""`skipped` says nothing about quality and reports nothing, `reported` reports an image."""


@dataclass(frozen=True)
class LabelFilter:
    """Labels that are wanted."""

    before: int | None = None
    """Only labels that were given before the one with this sequence number."""
    words: str = ""
    """Words that all occur in the prompt, in whatever case, whole or as a part. Where raters are
    not told the prompt, they must not learn it so: there it is what is counted, if anything is."""
    kind: TaskKind | None = None
    answer: AnswerGroup | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on labels."""
        found: list[sa.ColumnElement[bool]] = []
        if self.before is not None:
            found.append(labels.c.sequence < self.before)
        if self.kind is not None:
            found.append(labels.c.kind == self.kind)
        if self.answer is not None:
            found.append(_GROUPS[self.answer])
        if words := self.words.split():
            found.append(_asked(words))
        return found


_GROUPS: dict[AnswerGroup, sa.ColumnElement[bool]] = {
    "good": labels.c.outcome == "good",
    "bad": labels.c.outcome == "bad",
    "skipped": labels.c.outcome == "skip",
    "reported": labels.c.outcome == "unsafe",
    "commented": labels.c.has_comment,
}


def _asked(words: list[str]) -> sa.ColumnElement[bool]:
    """Return the condition that the label's task shows all of these words."""
    of_prompt = sa.select(prompts.c.prompt_id).where(*(_has(prompts.c.prompt, w) for w in words))
    hides = tasks.c.axis.in_(SHOWN_WITHOUT_PROMPT)
    by_prompt = sa.and_(tasks.c.prompt_id.in_(of_prompt), sa.or_(tasks.c.axis.is_(None), ~hides))
    by_subject = sa.and_(tasks.c.axis == "count", *(_has(tasks.c.subject, w) for w in words))
    return sa.exists().where(tasks.c.task_id == labels.c.task_id, sa.or_(by_prompt, by_subject))


def _has(column: sa.Column[str], word: str) -> sa.ColumnElement[bool]:
    # SQLite knows the cases of ASCII letters only
    spellings = dict.fromkeys((word, word.lower(), word.upper(), word.capitalize()))
    return sa.or_(*(column.icontains(spelling, autoescape=True) for spelling in spellings))
