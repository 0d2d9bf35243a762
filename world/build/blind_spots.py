"""The embedded CLIP's knowledge, zero-shot and by linear probes, on generated images.

Zero-shot, the caption with the highest cosine is the answer. A probe is a logistic regression on
the image's embedding, fitted and tested on different images. Where the probe is right and the
caption is not, the embedding knows more than the CLIP score, and a reward can learn it from
labels. Real CLIPs are like that: they count 32 % of CountBench's images right (nine numbers; Paiss
et al. 2023, arXiv 2302.12066), and behave like bags of words, although each of their embeddings
says which attribute belongs to which object (Yuksekgonul et al. 2022, arXiv 2210.01936;
Koishigarina et al. 2025, arXiv 2502.03566).
"""

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from world.captions import COUNT_WORDS, PLACE_PHRASES, PLURALS
from world.drawing import render
from world.scenes import ANIMALS, TINTS, Animal, Reading, Scene

FOLDS = 5
"""Parts of the images; a probe is tested on each after it was fitted on the others."""
BINDING = 400
"""Number of renders of a red and a blue animal; half of them have the colors swapped."""


class Knowledge(BaseModel, frozen=True):
    """Shares of right answers to one question."""

    images: int
    choices: int
    """Answers to choose from."""
    zero_shot: float
    probe: float


@dataclass(frozen=True)
class Question:
    """A choice of captions for some images; one caption of each image is true."""

    rows: Sequence[int]
    """Indices [N] of the images."""
    captions: Sequence[Sequence[str]]
    """For each image its captions, the same number for all."""
    true: Sequence[int]
    """Index of the true caption of each image, which is also the class that a probe predicts."""


Embed = Callable[[Sequence[str]], Tensor]
"""Returns unit embeddings [N, D] of captions."""


def questions(readings: Sequence[Reading]) -> dict[str, Question]:
    """Return the questions about generated images, from the oracle's readings."""
    certain = [(i, one) for i, one in enumerate(readings) if one.readable]
    single = [(i, one, next(iter(one.counts))) for i, one in certain if len(one.counts) == 1]
    alone = [(i, one, animal) for i, one, animal in single if one.counts[animal] == 1]
    counted = [(i, one, animal) for i, one, animal in single if one.counts[animal] in COUNT_WORDS]
    placed = [(i, one, animal) for i, one, animal in alone if one.place in PLACE_PHRASES]
    tinted = [(i, one, animal) for i, one, animal in alone if one.tints.get(animal)]
    pairs = [(i, sorted(one.counts)) for i, one in certain if sorted(one.counts.values()) == [1, 1]]
    places = tuple(PLACE_PHRASES)
    return {
        "object": Question(
            [i for i, _, _ in alone],
            [[f"a {each}" for each in ANIMALS]] * len(alone),
            [ANIMALS.index(animal) for _, _, animal in alone],
        ),
        "place": Question(
            [i for i, _, _ in placed],
            [[f"a {animal} {PLACE_PHRASES[p]}" for p in places] for _, _, animal in placed],
            [places.index(one.place) for _, one, _ in placed],
        ),
        "color": Question(
            [i for i, _, _ in tinted],
            [[f"a {tint} {animal}" for tint in TINTS] for _, _, animal in tinted],
            [TINTS.index(str(one.tints[animal])) for _, one, animal in tinted],
        ),
        "count": Question(
            [i for i, _, _ in counted],
            [_numbers(animal) for _, _, animal in counted],
            [one.counts[animal] - 1 for _, one, animal in counted],
        ),
        "second animal": Question(
            [i for i, _ in pairs],
            [[f"a {first} and a {each}" for each in ANIMALS] for _, (first, _) in pairs],
            [ANIMALS.index(second) for _, (_, second) in pairs],
        ),
    }


def _numbers(animal: str) -> list[str]:
    return [
        f"a {animal}" if n == 1 else f"{word} {PLURALS[animal]}" for n, word in COUNT_WORDS.items()
    ]


def knowledge(question: Question, images: Tensor, embed: Embed) -> Knowledge:
    """Return the shares of right answers about images with unit embeddings [all, D]."""
    mine, true = images[list(question.rows)], np.array(question.true)
    choices = len(question.captions[0])
    texts = embed([text for texts in question.captions for text in texts]).unflatten(
        0, (-1, choices)
    )
    answers = (mine[:, None] * texts).sum(-1).argmax(-1).numpy()
    return Knowledge(
        images=len(true),
        choices=choices,
        zero_shot=float((answers == true).mean()),
        probe=float((_probe(mine.numpy(), true) == true).mean()),
    )


def _probe(embeddings: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class [N] that a linear probe predicts for each embedding [N, D]."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        predicted: NDArray[np.int64] = cross_val_predict(probe, embeddings, classes, cv=folds)
    return predicted


def binding(seed: int = 0) -> tuple[Tensor, Question]:
    """Return renders [N, 3, 64, 64] in [0, 1] of cat and dog, and whose color is whose.

    The base draws two colors too seldom for generated images.
    """
    rng = random.Random(seed)
    true = [rng.randrange(2) for _ in range(BINDING)]
    tints = [("red", "blue"), ("blue", "red")]
    captions = [f"a {first} cat and a {second} dog" for first, second in tints]
    pixels = []
    for answer in true:
        first, second = tints[answer]
        scene = Scene((Animal("cat", first), Animal("dog", second)), "plain")
        pixels.append(np.asarray(render(scene, rng)[0]))
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return images, Question(range(BINDING), [captions] * BINDING, true)
