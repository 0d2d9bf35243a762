"""Wrong prompts for an image, made by rules (Lee et al. 2023, arXiv 2302.12192).

One count, color, object or place is replaced: "Two red dogs in the park" becomes "Four red dogs in
the park", "Two blue dogs in the park", "Two red cats in the park" or "Two red dogs on the moon".
The new words come from the other prompts, so there is no word list to maintain.
"""

import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

from reward.learning.split import normalized

Kind = Literal["count", "color", "object", "place"]
KINDS: tuple[Kind, ...] = ("count", "color", "object", "place")

_NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"a": 1, "an": 1, "one": 1} | {word: n for n, word in enumerate(_NUMBER_WORDS, start=2)}
NUMBERS |= {str(number): number for number in range(1, 11)}
"""Value of each English number word or numeral, up to ten."""

_COLOR_WORDS = """red orange yellow green blue purple pink brown
    black white gray grey golden silver violet"""
COLORS = frozenset(_COLOR_WORDS.split())
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

_IRREGULAR_NOUNS = """bus buses calf calves child children deer deer fish fish foot feet
    goose geese half halves knife knives leaf leaves man men mouse mice ox oxen
    person people sheep sheep shelf shelves tooth teeth wolf wolves woman women"""
_IRREGULAR = dict(zip(_IRREGULAR_NOUNS.split()[::2], _IRREGULAR_NOUNS.split()[1::2], strict=True))
_SINGULARS = {many: one for one, many in _IRREGULAR.items()}
_HISSING = ("s", "x", "z", "ch", "sh")


@dataclass(frozen=True)
class Slot:
    """A part of a prompt that can be replaced."""

    kind: Kind
    start: int
    stop: int
    value: str
    """Its meaning in a standard form: objects in the singular, counts as digits, colors by one
    name."""
    many: bool = False
    """For objects: whether the text is in the plural."""


def find_slots(prompt: str) -> list[Slot]:
    """Return the counts, colors, objects and places of a prompt, by position.

    An object is the last word of a noun phrase; a place is a preposition with the words after it.
    """
    slots = []
    rest = prompt
    for match in _PLACE.finditer(prompt):
        slots.append(Slot("place", *match.span(), normalized(match.group())))
        commas = "," * len(match.group())  # words that end a noun phrase
        rest = f"{rest[: match.start()]}{commas}{rest[match.end() :]}"
    for phrase in _NOUN_PHRASE.finditer(rest):
        words = list(_WORD.finditer(rest, *phrase.span()))
        for word in words:
            text = word.group().lower()
            if text in NUMBERS:
                slots.append(Slot("count", *word.span(), str(NUMBERS[text])))
            elif text in COLORS:
                slots.append(Slot("color", *word.span(), _SAME_COLOR.get(text, text)))
            elif word is words[-1]:
                one = singular(text)
                slots.append(Slot("object", *word.span(), one, many=one != text))
    return sorted(slots, key=lambda slot: slot.start)


def vocabulary(prompts: Iterable[str]) -> dict[Kind, tuple[str, ...]]:
    """Return the distinct values of each kind in `prompts`, sorted."""
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
    exclude: Collection[str] = (),
) -> list[str]:
    """Return up to `limit` distinct prompts that differ from `prompt` in one slot.

    The kinds take turns. No result has a normalized text in `exclude`: held-out prompts must not
    occur in training, not even as wrong prompts.
    """
    slots = find_slots(prompt)
    mentioned = {slot.value for slot in slots}
    by_kind = []
    for kind in KINDS:
        others = [value for value in words[kind] if value not in mentioned]
        of_kind = [slot for slot in slots if slot.kind == kind]
        swaps = [_swap(prompt, slots, slot, value) for slot in of_kind for value in others]
        by_kind.append(rng.sample(swaps, len(swaps)))
    rng.shuffle(by_kind)
    in_turns = (text for turn in zip_longest(*by_kind) for text in turn if text is not None)
    distinct = {normalized(text): text for text in in_turns}
    for text in (normalized(prompt), *exclude):
        distinct.pop(text, None)
    return list(distinct.values())[:limit]


def plural(word: str) -> str:
    """Return the plural of a lower-case singular noun, by the rules that prompts need."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("y") and word[-2:-1] not in {"a", "e", "i", "o", "u", ""}:
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(_HISSING) else "s")


def singular(word: str) -> str:
    """Return the singular of a lower-case noun; other words are unchanged."""
    if word in _SINGULARS:
        return _SINGULARS[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    after_hissing = word.endswith("es") and word[:-2].endswith(_HISSING) and len(word) > 4
    if after_hissing and (word.endswith("sses") or word[-3] not in "sz"):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2:
        return word[:-1]
    return word


def _swap(prompt: str, slots: Sequence[Slot], slot: Slot, value: str) -> str:
    """Return `prompt` with `value` in place of `slot`.

    Objects agree with their count in number, and a/an with the next word.
    """
    swaps = {slot: value}
    if slot.kind == "object":
        swaps = {slot: plural(value) if slot.many else value}
    if slot.kind == "count":
        swaps = {slot: _number_word(value)}
        objects = (other for other in slots if other.kind == "object" and other.start > slot.start)
        counted = next(objects, None)
        if counted is not None:
            swaps[counted] = counted.value if value == "1" else plural(counted.value)
    text = prompt
    for changed in sorted(swaps, key=lambda each: each.start, reverse=True):
        new = _with_case_of(prompt[changed.start], swaps[changed])
        text = text[: changed.start] + new + text[changed.stop :]
    return _ARTICLE.sub(_agreeing_article, text)


def _agreeing_article(article: re.Match[str]) -> str:
    return article.group(1) + ("n" if article.group(2).lower() in "aeiou" else "")


def _number_word(value: str) -> str:
    return next((word for word, number in NUMBERS.items() if str(number) == value), value)


def _with_case_of(first: str, text: str) -> str:
    """Return `text`, capitalized if `first`, the letter that it replaces, is a capital."""
    return text[:1].upper() + text[1:] if first.isupper() else text
