"""Expanders: rules that turn a prompt into candidate prompts of five categories.

The rules know no language. They learn from a list of prompts what stands in one place of prompts of
one form: "A red cat." and "A blue cat." differ in one place, so "red" and "blue" can be exchanged.
The word of a prompt with the most others in its place is its subject. General phrases fill in
where the list says too little.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from data.sessions import Candidate, Category, Session

EACH = 5
"""Candidates of a category."""

REPHRASED = ("an image of {}", "{}, in full view", "this is {}", "{} and nothing else", "look: {}")
DETAILS = (
    "in soft light", "seen from above", "close up", "on a plain background", "at night",
)  # fmt: skip
STYLES = (
    "as a watercolor", "as a photo", "as a pencil drawing", "in pixel art", "in bright colors",
)  # fmt: skip

Words = tuple[str, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Vocabulary:
    """Words of a list of prompts, and the places where they stand."""

    prompts: tuple[Words, ...]
    exchangeable: Mapping[str, frozenset[str]]
    """For a word, those that stand in its place in prompts that are equal otherwise."""

    @classmethod
    def of(cls, prompts: Iterable[str]) -> "Vocabulary":
        """Return the vocabulary of a list of prompts, which may be empty."""
        split = tuple(dict.fromkeys(map(words_of, prompts)))
        forms: dict[tuple[Words, Words], set[str]] = defaultdict(set)
        for words in split:
            for place, word in enumerate(words):
                forms[words[:place], words[place + 1 :]].add(word)
        exchangeable: dict[str, set[str]] = defaultdict(set)
        for alike in forms.values():
            for word in alike:
                exchangeable[word] |= alike - {word}
        return cls(split, {word: frozenset(alike) for word, alike in exchangeable.items()})

    def others(self, word: str) -> list[str]:
        """Return the words that can stand in a word's place, in the order of the alphabet."""
        return sorted(self.exchangeable.get(word, ()))

    def subject(self, words: Words) -> int | None:
        """Return the place of the subject; None where no word can be exchanged."""
        others = [len(self.others(word)) for word in words]
        return others.index(max(others)) if any(others) else None

    def around(self, words: Words) -> tuple[list[str], list[Words]]:
        """Return what the list puts before and after subjects like that of a prompt.

        The first are single words that never begin a prompt, the second run to a prompt's end.
        """
        place = self.subject(words)
        if place is None:
            return [], []
        alike = {words[place], *self.others(words[place])}
        firsts = {one[0] for one in self.prompts if one}
        found = [
            (one, k) for one in self.prompts for k, word in enumerate(one) if k and word in alike
        ]
        before = {one[k - 1] for one, k in found if self.others(one[k - 1])} - firsts - alike
        after = {one[k + 1 :] for one, k in found} - {()}
        return sorted(before), sorted(after)


def words_of(prompt: str) -> Words:
    """Return a prompt's words in lower case, without the mark at its end."""
    return tuple(prompt.strip().rstrip(".!").casefold().split())


def _rephrase(known: Vocabulary, words: Words, _rng: random.Random) -> Iterator[Words]:
    place = known.subject(words)
    alike = {words[place], *known.others(words[place])} if place is not None else set()
    subjects = [k for k, word in enumerate(words) if word in alike]
    if len(subjects) == 2:  # as "a cat and a dog", which is "a dog and a cat"
        first, second = subjects
        swapped = list(words)
        swapped[first], swapped[second] = words[second], words[first]
        yield tuple(swapped)
    text = " ".join(words)
    for form in REPHRASED:  # another form takes the place of one that the prompt has
        before, _, after = form.partition("{}")
        text = text.removeprefix(before).removesuffix(after)
    yield from (words_of(form.format(text)) for form in ("{}", *REPHRASED))


def _detail(known: Vocabulary, words: Words, rng: random.Random) -> Iterator[Words]:
    place = known.subject(words)
    _, after = known.around(words)
    if place == len(words) - 1:
        subjects = {words[place], *known.others(words[place])}
        tails = [tail for tail in after if not subjects & set(tail)]
        yield from (words + tail for tail in _shuffled(tails, rng))
    yield from _added(words, DETAILS, rng)


def _style(known: Vocabulary, words: Words, rng: random.Random) -> Iterator[Words]:
    place, (before, _) = known.subject(words), known.around(words)
    if place:
        has_one = words[place - 1] in before
        start = words[: place - 1] if has_one else words[:place]
        yield from ((*start, word, *words[place:]) for word in _shuffled(before, rng))
    yield from _added(words, STYLES, rng)


def _subject(known: Vocabulary, words: Words, rng: random.Random) -> Iterator[Words]:
    place = known.subject(words)
    if place is not None:
        new = [word for word in known.others(words[place]) if word not in words]
        yield from ((*words[:place], word, *words[place + 1 :]) for word in _shuffled(new, rng))
    yield from _shuffled(known.prompts, rng)


def _surprise(known: Vocabulary, words: Words, rng: random.Random) -> Iterator[Words]:
    """Yield prompts with another word in every place, then other prompts of the list."""
    for _ in range(2):
        yield tuple(rng.choice(known.others(word) or [word]) for word in words)
    yield from _shuffled(known.prompts, rng)
    first, second = rng.sample(DETAILS, 2)
    text = " ".join(words)
    yield words_of(f"{text}, {first}, {second}, {rng.choice(STYLES)}")


Expander = Callable[[Vocabulary, Words, random.Random], Iterator[Words]]

EXPANDERS: dict[Category, Expander] = {
    "rephrase": _rephrase,
    "detail": _detail,
    "style": _style,
    "subject": _subject,
    "surprise": _surprise,
}
"""The rules of each category."""


class Rules:
    """Proposes candidates of all categories by rules; a `pipelines.session.turns.Propose`."""

    def __init__(self, prompts: Iterable[str], each: int = EACH) -> None:
        """Learn the vocabulary of these prompts; `each` is the number a category."""
        self._known, self._each = Vocabulary.of(prompts), each

    def __call__(self, session: Session, prompt: str, rng: random.Random) -> list[Candidate]:
        """Return up to `each` candidates a category, different from each other.

        None is the prompt, or was shown in the turns of `session`.
        """
        words, seen = words_of(prompt), shown_before(session, prompt)
        found = []
        for category, expander in EXPANDERS.items():
            proposed = dict.fromkeys(expander(self._known, words, rng))
            for one in [one for one in proposed if one not in seen][: self._each]:
                seen.add(one)
                found.append(Candidate(_text(one, like=prompt), category))
        return found


def shown_before(session: Session, prompt: str) -> set[Words]:
    """Return the words of a prompt, and of all that was shown in the turns of a session."""
    shown = [turn.candidates[number].prompt for turn in session.turns for number in turn.shown]
    return {words_of(one) for one in (prompt, *shown, *(turn.prompt for turn in session.turns))}


def _added(words: Words, phrases: Sequence[str], rng: random.Random) -> Iterator[Words]:
    """Yield the prompt with each phrase at its end, except for phrases that it has."""
    text = " ".join(words)
    new = [phrase for phrase in phrases if phrase not in text]
    yield from (words_of(f"{text}, {phrase}") for phrase in _shuffled(new, rng))


def _shuffled(values: Sequence[T], rng: random.Random) -> list[T]:
    return rng.sample(values, len(values))


def _text(words: Words, *, like: str) -> str:
    """Return a prompt that begins and ends as another one."""
    text = " ".join(words)
    if like[:1].isupper():
        text = text[:1].upper() + text[1:]
    end = re.search(r"[.!]?\s*$", like)
    return text + (end[0].strip() if end else "")
