"""Wrong prompts for a right picture, made by rules: another count, colour, object or place (Lee et al. 2023, arXiv 2302.12192).

"Two red dogs in the park" becomes "Four red dogs in the park", "Two blue dogs in the park", "Two red cats in the park" and "Two red
dogs on the moon"; always one swap at a time. The words to swap in are those of the other prompts: nobody has to keep up a list of them.
"""

import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

from reward.inflection import NUMBERS, plural, singular
from reward.split import normalised

Kind = Literal["count", "color", "object", "place"]
KINDS: tuple[Kind, ...] = ("count", "color", "object", "place")

COLORS = frozenset(
    (
        "red",
        "orange",
        "yellow",
        "green",
        "blue",
        "purple",
        "pink",
        "brown",
        "black",
        "white",
        "gray",
        "grey",
        "golden",
        "silver",
        "violet",
    )
)
_SAME_COLOR = {"grey": "gray", "violet": "purple"}
_PREPOSITIONS = (
    r"in front of|on top of|next to|in|on|at|under|near|by|inside|over|above|below|behind|beside"
)
_PLACE = re.compile(
    rf"\b(?:{_PREPOSITIONS})\s+\w[^.,;:!?]*?(?=\s+(?:and|with)\b|[.,;:!?]|\s*$)", re.IGNORECASE
)
_NOUN_PHRASE = re.compile(r"(?:(?!\b(?:and|with|of|or)\b)[^.,;:!?])+", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_ARTICLE = re.compile(r"\b(a)n?(?=\s+(\w))", re.IGNORECASE)


@dataclass(frozen=True)
class Slot:
    """A stretch of a prompt that can be swapped."""

    kind: Kind
    start: int
    stop: int
    value: str
    """What it says, whatever its form: objects in the singular, counts as digits, colours by one name."""
    many: bool = False
    """For objects: whether the text has the plural."""


def find_slots(prompt: str) -> list[Slot]:
    """The counts, colours, objects and places of a prompt, in order of their beginning.

    An object is the last word of a noun phrase; a place is a preposition with what follows it.
    """
    slots = []
    rest = prompt
    for match in _PLACE.finditer(prompt):
        slots.append(Slot("place", *match.span(), normalised(match.group())))
        rest = f"{rest[: match.start()]}{',' * len(match.group())}{rest[match.end() :]}"  # commas end a noun phrase
    for phrase in _NOUN_PHRASE.finditer(rest):
        words = list(_WORD.finditer(rest, *phrase.span()))
        for word in words:
            text = word.group().lower()
            if text in NUMBERS:
                slots.append(Slot("count", *word.span(), str(NUMBERS[text])))
            elif text in COLORS:
                slots.append(Slot("color", *word.span(), _SAME_COLOR.get(text, text)))
            elif word is words[-1]:
                slots.append(
                    Slot("object", *word.span(), singular(text), many=singular(text) != text)
                )
    return sorted(slots, key=lambda slot: slot.start)


def vocabulary(prompts: Iterable[str]) -> dict[Kind, tuple[str, ...]]:
    """The distinct values of each kind in `prompts`, sorted."""
    slots = list(chain.from_iterable(find_slots(prompt) for prompt in prompts))
    return {
        kind: tuple(sorted({slot.value for slot in slots if slot.kind == kind})) for kind in KINDS
    }


def negatives(
    prompt: str,
    words: dict[Kind, tuple[str, ...]],
    limit: int,
    rng: random.Random,
    *,
    leave_out: Collection[str] = (),
) -> list[str]:
    """Up to `limit` distinct prompts that differ from `prompt` in one count, colour, object or place; the kinds take turns.

    None has a normalised text of `leave_out`: prompts that are held out must not be taught, not even as wrong ones.
    """
    slots = find_slots(prompt)
    mentioned = {slot.value for slot in slots}
    by_kind = []
    for kind in KINDS:
        others = [value for value in words[kind] if value not in mentioned]
        swaps = [
            _swap(prompt, slots, slot, value)
            for slot in slots
            if slot.kind == kind
            for value in others
        ]
        by_kind.append(rng.sample(swaps, len(swaps)))
    rng.shuffle(by_kind)
    in_turns = (text for turn in zip_longest(*by_kind) for text in turn if text is not None)
    distinct = {normalised(text): text for text in in_turns}
    for text in (normalised(prompt), *leave_out):
        distinct.pop(text, None)
    return list(distinct.values())[:limit]


def _swap(prompt: str, slots: Sequence[Slot], slot: Slot, value: str) -> str:
    """`prompt` with `value` in place of `slot`; counts and objects keep agreeing in number, and a/an with what follows."""
    swaps = {slot: value}
    if slot.kind == "object":
        swaps = {slot: plural(value) if slot.many else value}
    if slot.kind == "count":
        swaps = {slot: _number_word(value)}
        counted = next(
            (other for other in slots if other.kind == "object" and other.start > slot.start), None
        )
        if counted is not None:
            swaps[counted] = counted.value if value == "1" else plural(counted.value)
    text = prompt
    for changed in sorted(swaps, key=lambda each: each.start, reverse=True):
        text = (
            text[: changed.start]
            + _like(prompt[changed.start], swaps[changed])
            + text[changed.stop :]
        )
    return _ARTICLE.sub(
        lambda article: article.group(1) + ("n" if article.group(2).lower() in "aeiou" else ""),
        text,
    )


def _number_word(value: str) -> str:
    return next((word for word, number in NUMBERS.items() if str(number) == value), value)


def _like(first: str, text: str) -> str:
    """`text` with a capital where `first`, the letter that it replaces, is one."""
    return text[:1].upper() + text[1:] if first.isupper() else text
