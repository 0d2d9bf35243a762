"""Scenes of the embedded world: animals, tints, counts, places; and combinations held out.

A scene is one to four animals of one species and tint, or a pair of two species, in one place. The
base model is trained on scenes without the held-out combinations. So prompts with a held-out
combination fail in the ways that Lee et al. 2023 (arXiv 2302.12192) and DPOK (arXiv 2305.16381)
describe: wrong color, wrong count, missing object, wrong place.
"""

import itertools
from dataclasses import dataclass, field

ANIMALS = (
    "cat",
    "dog",
    "rabbit",
    "wolf",
    "fox",
    "bear",
    "pig",
    "frog",
    "lion",
    "cow",
    "penguin",
    "monkey",
)
TINTS = ("red", "green", "blue", "yellow", "purple", "pink")
PLACES = ("plain", "park", "beach", "moon", "street", "snow")
MAX_COUNT = 4
SIZE = 64
"""Side of an image in pixels."""
FACE_SIZES = {1: (32, 36), 2: (26, 26), 3: (22, 22), 4: (20, 20), 5: (17, 17), 6: (16, 16)}
"""Sides of a face in pixels, one of which is drawn, by the number of faces."""

NATURAL_TINTS = frozenset(
    {
        ("cat", "yellow"),
        ("lion", "yellow"),
        ("pig", "pink"),
        ("frog", "green"),
        ("fox", "red"),
        ("penguin", "blue"),
    }
)
"""(species, tint) where the natural color passes for the tint: never drawn or asked for."""

HELD_OUT_TINTS = frozenset(
    {
        (animal, TINTS[(i + k) % 6])
        for i, animal in enumerate(ANIMALS)
        for k in (0, 3)
        if animal != "rabbit"
    }
    | {("rabbit", "green"), ("dog", "blue"), ("cat", "green")}
)
"""(species, tint) that the base never sees."""

SEEN_PLACES = {
    animal: tuple(PLACES[1 + (i + k) % 5] for k in (0, 2, 3)) for i, animal in enumerate(ANIMALS)
}
"""Places, besides `plain`, where the base sees each species."""

HELD_OUT_PLACES = frozenset((a, p) for a in ANIMALS for p in PLACES[1:] if p not in SEEN_PLACES[a])
"""(species, place) that the base never sees."""

HELD_OUT_COUNTS = frozenset({(a, 4) for a in ("wolf", "dog", "cat")} | {("rabbit", 3), ("cow", 3)})
"""(species, count) that the base never sees."""

HELD_OUT_PAIRS = frozenset(
    {frozenset(p) for k, p in enumerate(itertools.combinations(ANIMALS, 2)) if k % 2 == 0}
    | {frozenset({"cat", "dog"})}
)
"""Pairs of species that the base never sees together."""


@dataclass(frozen=True)
class Animal:
    """One animal of a scene; `tint` None is its natural color."""

    species: str
    tint: str | None = None


@dataclass(frozen=True)
class Scene:
    """The animals of one image and their place."""

    animals: tuple[Animal, ...]
    place: str

    def counts(self) -> dict[str, int]:
        """Return the number of animals by species."""
        species = [a.species for a in self.animals]
        return {s: species.count(s) for s in set(species)}


@dataclass(frozen=True)
class SeenFace:
    """One face that a judge finds, with its middle in fractions of the image."""

    species: str | None
    """None for a face that the judge cannot tell."""
    tint: str | None
    x: float
    y: float


@dataclass(frozen=True)
class Reading:
    """Content of an image, as a judge (the oracle or a person) sees it.

    A species in several tints has the tint of its clearest face; tint None is the natural color.
    `readable` is false when the judge cannot tell.
    """

    counts: dict[str, int]
    tints: dict[str, str | None]
    place: str
    readable: bool
    faces: tuple[SeenFace, ...] = field(default=(), compare=False)
    """All faces, the clearest first."""


def is_held_out(scene: Scene) -> bool:
    """Whether the scene holds any combination that the base must not see."""
    species = {a.species for a in scene.animals}
    return (
        any((a.species, a.tint) in HELD_OUT_TINTS for a in scene.animals)
        or any((s, scene.place) in HELD_OUT_PLACES for s in species)
        or any(item in HELD_OUT_COUNTS for item in scene.counts().items())
        or frozenset(species) in HELD_OUT_PAIRS
    )
