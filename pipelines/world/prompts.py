"""What a prompt asks of a picture, and prompts that the base never saw the like of."""

import itertools
import random
import re
from dataclasses import dataclass, field

from pipelines.world.captions import COUNT_WORDS, EXACT, PLACE_PHRASES, PLURALS, caption
from pipelines.world.scenes import (
    ANIMALS,
    HELD_OUT_COUNTS,
    HELD_OUT_PAIRS,
    HELD_OUT_PLACES,
    HELD_OUT_TINTS,
    NATURAL_TINTS,
    PLACES,
    TINTS,
    Animal,
    Reading,
    Scene,
)

PAPER_PROMPTS = (
    "A green colored rabbit.",
    "Four wolves in the park.",
    "A cat and a dog.",
    "A dog on the moon.",
)
"""The four prompts of DPOK (arXiv 2305.16381): colour, count, composition, place."""

FAMILIES = ("object", "color", "count", "composition", "place")

_SINGULAR = {plural: animal for animal, plural in PLURALS.items()} | {
    animal: animal for animal in ANIMALS
}
_COUNTS = {word: n for n, word in COUNT_WORDS.items()} | {"a": 1, "an": 1}


@dataclass(frozen=True)
class Requirement:
    """What a prompt asks for: animals with their number (None: at least one) and tint (None: any), and the place (None: any)."""

    counts: dict[str, int | None]
    tints: dict[str, str] = field(default_factory=dict)
    place: str | None = None

    @classmethod
    def parse(cls, prompt: str) -> "Requirement":
        """Reads the world's words off a prompt, in order; other words say nothing."""
        counts: dict[str, int | None] = {}
        tints: dict[str, str] = {}
        place: str | None = None
        number: int | None = None
        tint: str | None = None
        for word in re.findall(r"[a-z]+", prompt.lower()):
            number = _COUNTS.get(word, number)
            tint = word if word in TINTS else tint
            if word in _SINGULAR:
                animal = _SINGULAR[word]
                counts[animal] = number
                if tint is not None:
                    tints[animal] = tint
                number = tint = None
            elif word in PLACES[1:]:
                place = word
        return cls(counts, tints, place)

    def parts(self, reading: Reading) -> dict[str, bool]:
        """For each part that the prompt asks for, whether the picture has it; nothing is met by an unreadable picture."""
        parts = {}
        for animal, wanted in self.counts.items():
            found = reading.counts.get(animal, 0)
            parts[f"count of {animal}"] = found >= 1 if wanted is None else found == wanted
        if self.counts:
            parts["nothing else"] = not any(
                n for animal, n in reading.counts.items() if animal not in self.counts
            )
        for animal, tint in self.tints.items():
            same = (animal, tint) in NATURAL_TINTS and reading.tints.get(animal) is None
            parts[f"color of {animal}"] = reading.tints.get(animal) == tint or (
                same and animal in reading.counts
            )
        if self.place is not None:
            parts["place"] = reading.place == self.place
        return {part: met and reading.readable for part, met in parts.items()}

    def met_by(self, reading: Reading) -> bool:
        """Whether the picture shows all that the prompt asks for and no other animal."""
        parts = self.parts(reading)
        return bool(parts) and all(parts.values())

    def score(self, reading: Reading) -> float:
        """Share of the parts that are met, in [0, 1]; 0 for a prompt that asks for nothing of this world."""
        parts = self.parts(reading)
        return sum(parts.values()) / len(parts) if parts else 0.0


def family_of(prompt: str) -> str:
    """What is hard about a prompt: composition, count, color or place, in this order; else "object"."""
    wanted = Requirement.parse(prompt)
    if len(wanted.counts) > 1:
        return "composition"
    if any((n or 1) > 1 for n in wanted.counts.values()):
        return "count"
    if wanted.tints:
        return "color"
    return "place" if wanted.place else "object"


def _held_out_scenes() -> dict[str, list[Scene]]:
    """Every scene that holds exactly one held-out combination, by family; "object" has none, so it lists plain single animals."""
    return {
        "object": [Scene((Animal(a),), "plain") for a in ANIMALS],
        "color": [
            Scene((Animal(a, t),), "plain")
            for a in ANIMALS
            for t in TINTS
            if (a, t) in HELD_OUT_TINTS - NATURAL_TINTS
        ],
        "count": [
            Scene((Animal(a),) * n, "plain")
            for a in ANIMALS
            for n in (3, 4)
            if (a, n) in HELD_OUT_COUNTS
        ],
        "composition": [
            Scene((Animal(a), Animal(b)), "plain")
            for a, b in itertools.combinations(ANIMALS, 2)
            if frozenset({a, b}) in HELD_OUT_PAIRS
        ],
        "place": [
            Scene((Animal(a),), p)
            for a in ANIMALS
            for p in PLACE_PHRASES
            if (a, p) in HELD_OUT_PLACES
        ],
    }


def held_out_prompts(
    per_family: int, rng: random.Random, *, exclude: frozenset[str] = frozenset()
) -> list[str]:
    """Up to `per_family` prompts of each family that name a combination the base never saw; none that asks what `exclude` asks."""
    taken = [Requirement.parse(prompt) for prompt in exclude]
    prompts: list[str] = []
    for scenes in _held_out_scenes().values():
        texts = (
            caption(scene, rng, EXACT).rstrip(".") for scene in rng.sample(scenes, len(scenes))
        )
        prompts += itertools.islice(
            (t for t in texts if Requirement.parse(t) not in taken), per_family
        )
    return prompts
