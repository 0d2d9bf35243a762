"""Reasons for a skip, a report or a bad verdict: built-in, or from the settings.

Labels store the same reason in all languages; raters read it in their language.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, StringConstraints

from labeling_app.words import Words

Question = Literal["bad", "skip", "skip_several", "unsafe"]
"""Questions for a reason: why an image is bad, why one image or several are skipped, and why nobody
should see an image."""

LONGEST = 200
"""Characters of the longest reason."""

Text = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=LONGEST, pattern=r"^[^\x00-\x1f]*$"
    ),
]


class OfferedReason(BaseModel, frozen=True):
    """A reason as the page offers it."""

    stored: str
    """Reason in labels and in tables."""
    words: dict[str, str] = {}
    """Words by language; raters of other languages read the English words, or else `stored`."""
    reports: bool = False
    """Whether the reason reports images of a task with several images; the page then asks which."""


REPORT = "An image is unsafe"
"""Stored reason for a report in a task with several images."""

OURS: Mapping[Question, Mapping[str, str]] = {
    "bad": {},
    "skip": {
        "I cannot tell": "reason.cannot_tell",
        "The prompt is unclear": "reason.unclear",
        "The image is broken": "reason.broken",
        "Something else": "reason.else",
    },
    "skip_several": {
        "I cannot tell": "reason.cannot_tell",
        "The prompt is unclear": "reason.unclear",
        "An image is broken": "reason.one_broken",
        REPORT: "reason.one_unsafe",
        "Something else": "reason.else",
    },
    "unsafe": {
        "Sexual": "reason.sexual",
        "Violent or cruel": "reason.violent",
        "Hateful": "reason.hateful",
        "A real person is harmed": "reason.harm",
        "Something else": "reason.else",
    },
}
"""The built-in reasons: stored reason -> key of the words. A bad verdict needs no reason."""


def _check(reasons: Mapping[Question, Sequence[str]]) -> Mapping[Question, Sequence[str]]:
    for question, offered in reasons.items():
        most = 8 if question == "skip_several" else 9
        if not 0 < len(offered) <= most:
            raise ValueError(f"{question} has {len(offered)} reasons; give 1 to {most}, one a key")
        stored = [reason.casefold() for reason in offered]
        twice = [reason for reason in offered if stored.count(reason.casefold()) > 1]
        if twice:
            raise ValueError(f"{question} has {twice[0]!r} twice; name each once")
        if question == "skip_several" and any("unsafe" in one for one in stored):
            raise ValueError(
                "skip_several says unsafe; leave that out, the page always offers a report there"
            )
    return reasons


Reasons = Annotated[dict[Question, tuple[Text, ...]], AfterValidator(_check)]


def offered_reasons(
    reasons: Mapping[Question, Sequence[str]], words: Mapping[str, Words]
) -> dict[Question, list[OfferedReason]]:
    """Return the reasons on the page: from the settings, or else built-in."""

    def ours(stored: str, key: str) -> OfferedReason:
        # a reason's words depend on no number
        by_language = {language: str(known[key]) for language, known in words.items()}
        return OfferedReason(stored=stored, words=by_language, reports=stored == REPORT)

    offered: dict[Question, list[OfferedReason]] = {}
    for question, own in OURS.items():
        if question not in reasons:
            offered[question] = [ours(stored, key) for stored, key in own.items()]
            continue
        offered[question] = [OfferedReason(stored=reason) for reason in reasons[question]]
        if question == "skip_several":
            offered[question].append(ours(REPORT, own[REPORT]))
    return offered
