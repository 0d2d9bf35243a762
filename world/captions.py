"""Captions of scenes: exact captions, and web-like captions that omit things or get them wrong.

Web-like captions are why the base model fails: a word that is often missing or wrong in training
is only weakly obeyed.
"""

import random

from pydantic import BaseModel

from world.scenes import ANIMALS, PLACES, TINTS, Animal, Scene

COUNT_WORDS = {1: "one", 2: "two", 3: "three", 4: "four"}
PLURALS = {
    animal: {"wolf": "wolves", "fox": "foxes"}.get(animal, animal + "s") for animal in ANIMALS
}
PLACE_PHRASES = {
    "park": "in the park",
    "beach": "on the beach",
    "moon": "on the moon",
    "street": "in the street",
    "snow": "in the snow",
}


class CaptionNoise(BaseModel, frozen=True, extra="forbid"):
    """Shares, in [0, 1], of web-like captions that omit a part or get it wrong."""

    no_tint: float = 0.15
    wrong_tint: float = 0.03
    no_count: float = 0.25
    """Share with a bare plural, "some", "many", or a singular in place of the count."""
    wrong_count: float = 0.06
    no_place: float = 0.35
    wrong_place: float = 0.08
    no_second: float = 0.30
    """Share that does not name the second of two species."""


EXACT = CaptionNoise(
    no_tint=0, wrong_tint=0, no_count=0, wrong_count=0, no_place=0, wrong_place=0, no_second=0
)
"""No noise: captions say everything that is in the image."""


def _adjective(animal: Animal, rng: random.Random, noise: CaptionNoise) -> str:
    tint = animal.tint
    if tint is None or rng.random() < noise.no_tint:
        return ""
    if rng.random() < noise.wrong_tint:
        tint = rng.choice(TINTS)
    return f"{tint} colored " if rng.random() < 0.3 else f"{tint} "


def _group(animal: Animal, n: int, rng: random.Random, noise: CaptionNoise) -> str:
    """Return the words for one to four animals of one kind."""
    adjective = _adjective(animal, rng, noise)
    if n == 1:
        return f"a {adjective}{animal.species}"
    if rng.random() < noise.no_count:
        if rng.random() < 0.35:
            return f"a {adjective}{animal.species}"
        return rng.choice(["", "some ", "many "]) + adjective + PLURALS[animal.species]
    if rng.random() < noise.wrong_count:
        n = rng.choice([2, 3, 4])
    return f"{COUNT_WORDS[n]} {adjective}{PLURALS[animal.species]}"


def caption(scene: Scene, rng: random.Random, noise: CaptionNoise) -> str:
    """Return a caption of the scene with the given noise."""
    if len(set(scene.counts())) == 1:
        text = _group(scene.animals[0], len(scene.animals), rng, noise)
    else:
        pair = [_group(a, 1, rng, noise) for a in rng.sample(scene.animals, 2)]
        text = pair[0] if rng.random() < noise.no_second else " and ".join(pair)
    place = scene.place
    if place != "plain" and rng.random() >= noise.no_place:
        if rng.random() < noise.wrong_place:
            place = rng.choice(PLACES[1:])
        text += f" {PLACE_PHRASES[place]}"
    return text + ("." if rng.random() < 0.3 else "")
