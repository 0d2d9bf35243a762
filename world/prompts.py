"""Requirements of prompts on images, and prompts whose combinations the base never saw."""

import itertools
import random
import re
from dataclasses import dataclass, field

from world.captions import COUNT_WORDS, EXACT, PLURALS, caption
from world.scenes import (
    ANIMALS,
    NATURAL_TINTS,
    PLACES,
    TINTS,
    Animal,
    Reading,
    Scene,
    is_held_out,
)

FAMILIES = ("object", "color", "count", "composition", "place")

SINGULAR = {plural: animal for animal, plural in PLURALS.items()} | {
    animal: animal for animal in ANIMALS
}
COUNTS = {word: n for n, word in COUNT_WORDS.items()} | {"a": 1, "an": 1}


@dataclass(frozen=True)
class Requirement:
    """Content that a prompt asks for.

    The number of an animal may be None (at least one), and so may the place (any). Any tint is
    right for an animal that `tints` does not name.
    """

    counts: dict[str, int | None]
    tints: dict[str, str] = field(default_factory=dict)
    place: str | None = None

    @classmethod
    def parse(cls, prompt: str) -> "Requirement":
        """Read the world's words in a prompt, in order; other words are ignored."""
        counts: dict[str, int | None] = {}
        tints: dict[str, str] = {}
        place: str | None = None
        number: int | None = None
        tint: str | None = None
        for word in re.findall(r"[a-z]+", prompt.lower()):
            number = COUNTS.get(word, number)
            tint = word if word in TINTS else tint
            if word in SINGULAR:
                animal = SINGULAR[word]
                counts[animal] = number
                if tint is not None:
                    tints[animal] = tint
                number = tint = None
            elif word in PLACES[1:]:
                place = word
        return cls(counts, tints, place)

    def parts(self, reading: Reading) -> dict[str, bool]:
        """Return for each part of the prompt whether the image shows it.

        An unreadable image shows no part.
        """
        parts = {}
        for animal, wanted in self.counts.items():
            found = reading.counts.get(animal, 0)
            parts[f"count of {animal}"] = found >= 1 if wanted is None else found == wanted
        if self.counts:
            parts["nothing else"] = not any(
                n for animal, n in reading.counts.items() if animal not in self.counts
            )
        for animal, tint in self.tints.items():
            seen = reading.tints.get(animal)
            natural = seen is None and (animal, tint) in NATURAL_TINTS and animal in reading.counts
            parts[f"color of {animal}"] = seen == tint or natural
        if self.place is not None:
            parts["place"] = reading.place == self.place
        return {part: met and reading.readable for part, met in parts.items()}

    @property
    def asks_for_something(self) -> bool:
        """Whether the prompt names an animal or a place."""
        return bool(self.counts) or self.place is not None

    def met_by(self, reading: Reading) -> bool:
        """Whether the image shows all parts of the prompt and no other animal."""
        parts = self.parts(reading)
        return bool(parts) and all(parts.values())

    def score(self, reading: Reading) -> float:
        """Return the share of parts that the image shows; 0 for a prompt without parts."""
        parts = self.parts(reading)
        return sum(parts.values()) / len(parts) if parts else 0.0


def family_of(prompt: str) -> str:
    """Return the first hard family among composition, count, color and place; else "object"."""
    wanted = Requirement.parse(prompt)
    if len(wanted.counts) > 1:
        return "composition"
    if any((n or 1) > 1 for n in wanted.counts.values()):
        return "count"
    if wanted.tints:
        return "color"
    return "place" if wanted.place else "object"


def scenes_by_family() -> dict[str, list[Scene]]:
    """Return all scenes with a single difficulty, by family; "object" has single animals."""
    return {
        "object": [Scene((Animal(a),), "plain") for a in ANIMALS],
        "color": [
            Scene((Animal(a, t),), "plain")
            for a in ANIMALS
            for t in TINTS
            if (a, t) not in NATURAL_TINTS
        ],
        "count": [Scene((Animal(a),) * n, "plain") for a in ANIMALS for n in (2, 3, 4)],
        "composition": [
            Scene((Animal(a), Animal(b)), "plain") for a, b in itertools.combinations(ANIMALS, 2)
        ],
        "place": [Scene((Animal(a),), p) for a in ANIMALS for p in PLACES[1:]],
    }


def held_out_prompts(
    per_family: int, rng: random.Random, *, exclude: frozenset[str] = frozenset()
) -> list[str]:
    """Return up to `per_family` prompts of each family that name a combination the base never saw.

    No prompt has the same content as a prompt of `exclude`.
    """
    taken = [Requirement.parse(prompt) for prompt in exclude]
    prompts: list[str] = []
    for family, every in scenes_by_family().items():
        scenes = [scene for scene in every if family == "object" or is_held_out(scene)]
        shuffled = rng.sample(scenes, len(scenes))
        texts = (caption(scene, rng, EXACT).rstrip(".") for scene in shuffled)
        new = (text for text in texts if Requirement.parse(text) not in taken)
        prompts += itertools.islice(new, per_family)
    return prompts
