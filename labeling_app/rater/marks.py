"""Checks of the marks on an image against the settings of the campaign."""

from data.kinds.kind import Answer, InvalidAnswer
from data.kinds.verdict import BinaryAnswer
from labeling_app.campaign.tasks import TasksConfig


def check_marks(answer: Answer, config: TasksConfig) -> None:
    """Check that an answer has the marks that the campaign asks for, and no others.

    Raises:
        InvalidAnswer: it does not.
    """
    if not isinstance(answer, BinaryAnswer):
        return
    if answer.marks is None:
        if config.marks == "required" and answer.verdict == "bad":
            raise InvalidAnswer(
                "marks: a bad verdict without any; mark what is wrong, or send an empty list "
                "if there is nothing to mark"
            )
        return
    if config.marks == "off":
        raise InvalidAnswer("marks: this campaign asks for none; leave them out")
    if answer.verdict == "skip":
        raise InvalidAnswer("marks: a skip has none; leave them out, or answer bad")
    unknown = sorted({mark.aspect for mark in answer.marks} - set(config.aspects))
    if unknown:
        raise InvalidAnswer(
            f"marks: aspect {unknown[0]!r} is not of this campaign; "
            f"choose from {', '.join(config.aspects)}"
        )
