"""Raters of several types in the embedded world, and the rewards learned from their choices."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.session_bank import ANIMALS, PLACES, PROMPTS, TINTS, Bank, Wish
from benchmarks.session_people import Eye, Sight
from reward.calibration import Values
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset, RankedPairs, Verdicts
from reward.learning.examples import Examples, logits_and_margins
from reward.learning.rater_types import RaterTypes, fit_types
from reward.learning.split import Split
from reward.learning.training import train_from_scratch
from reward.measuring.type_comparison import compare_types
from reward.model import RewardModel
from reward.settings import RewardConfig
from world.prompts import Requirement
from world.scenes import Reading

LIKED = tuple(zip(TINTS, PLACES, strict=True))
"""The color and the place that each of the four types likes."""
TASTE = 0.4
"""Weight of what the type likes against what the prompt or the wish asks for."""
SHARPNESS = 20.0
"""Sharpness of raters' choices."""
CHOICES = 10
CONFIG = RewardConfig(
    hidden=(64,), members=3, epochs=40, ranking_weight=1.0, auxiliary_weight=0, rater_types=4
)
MISSING = {
    "count": "wrong count",
    "nothing": "too much in it",
    "color": "wrong colors",
    "place": "something is missing",
}
"""Word of the critique for each part of a prompt."""


def quality(kind: int, wanted: Requirement, reading: Reading) -> float:
    """Return in 0..1 how good an image is for a rater of a type."""
    asked = wanted.score(reading)
    tint, place = LIKED[kind]
    likes = (tint in reading.tints.values()) + (reading.place == place)
    return (1 - TASTE) * asked + TASTE * likes / 2 * reading.readable


def eye_of(bank: Bank, kind: int, wish: Wish) -> Eye:
    """Return what a person of a type sees in images, who wants `wish`."""
    wanted = Requirement.parse(wish.prompt())

    def eye(image_id: str) -> Sight:
        reading = bank.readings[image_id]
        lacks = [MISSING[part.split()[0]] for part, met in wanted.parts(reading).items() if not met]
        return Sight(quality(kind, wanted, reading), tuple(dict.fromkeys(lacks)))

    return eye


@dataclass(frozen=True, eq=False)
class Raters:
    """Raters' choices among four images each, as ranked pairs of the chosen and each other one."""

    kinds: list[int]
    """True type of each rater."""
    examples: Examples
    """Choices to learn from are `split.train` and `split.val`, held-out ones `split.test_seen`."""


def choices(bank: Bank, kinds: Sequence[int], rng: random.Random) -> Raters:
    """Return ten choices of each rater to learn from, and ten that are held out."""
    prompts = [one.prompt() for animal in ANIMALS for one in _halves(animal)]
    by_animal = {
        animal: [
            i
            for p, (wish, _) in PROMPTS.items()
            if wish.animal == animal
            for i in bank.image_ids[p]
        ]
        for animal in ANIMALS
    }
    rows: list[tuple[int, ...]] = []
    for rater, kind in enumerate(kinds):
        for number in range(2 * CHOICES):
            prompt = rng.randrange(len(prompts))
            wanted = Requirement.parse(prompts[prompt])
            shown = rng.sample(by_animal[next(iter(wanted.counts))], 4)
            seen = [SHARPNESS * quality(kind, wanted, bank.readings[one]) for one in shown]
            weights = np.exp(np.array(seen) - max(seen))
            picked = rng.choices(range(4), weights=weights.tolist())[0]
            first = bank.row_of_image[shown[picked]]
            ranking = 2 * CHOICES * rater + number
            rows += [
                (first, bank.row_of_image[one], prompt, ranking, rater, number)
                for place, one in enumerate(shown)
                if place != picked
            ]
    first, second, prompt_of, ranking_of, rater_of, number_of = np.array(rows).T
    won, third = (np.full(len(rows), one, np.float32) for one in (1, 1 / 3))
    pairs = RankedPairs(first, second, prompt_of, won, third, ranking_of, rater_of)
    none = np.zeros(0, np.int64)
    nothing = Verdicts(none, none, np.zeros(0, np.float32), none)
    dataset = FeedbackDataset(
        image_ids=tuple(bank.readings),
        paths=(Path(),) * len(bank.readings),
        prompts=tuple(prompts),
        categories=("",) * len(prompts),
        verdicts=nothing,
        pairs=pairs,
        raters=tuple(f"rater {i}" for i in range(len(kinds))),
    )
    learned, held_out = number_of < CHOICES - 1, number_of >= CHOICES
    masks = learned, ~learned & ~held_out, held_out
    train, val, tested = (dataset.where(none, mask) for mask in masks)
    split = Split(train, val, tested, dataset.where(none, none))
    texts = bank.texts(prompts)
    wrong = torch.full((len(prompts), CONFIG.negatives), -1)
    examples = Examples(dataset, split, bank.features, texts, wrong)
    return Raters(list(kinds), examples)


def _halves(animal: str) -> list[Wish]:
    """Return the wishes that name the animal and at most one more thing."""
    return [
        Wish(animal),
        *(Wish(animal, tint) for tint in TINTS),
        *(Wish(animal, None, place) for place in PLACES),
    ]


def accuracy(models: Sequence[RewardModel], shares: Values, raters: Raters) -> float:
    """Return the share of held-out choices that are predicted; `shares` are [raters, k]."""
    part = raters.examples.split.test_seen
    margins = [logits_and_margins(one, raters.examples, part)[1] for one in models]
    chances = 1 / (1 + np.exp(-np.stack(margins, axis=1)))
    right = (shares[part.pairs.rater] * chances).sum(1) > 0.5
    return float(right.reshape(-1, 3).all(1).mean())


def true_types(backbone: ClipBackbone, raters: Raters) -> list[RewardModel]:
    """Return a reward for each true type, learned from its raters alone."""
    kinds, models = np.array(raters.kinds), []
    for kind in range(len(LIKED)):
        split = raters.examples.split
        train, val = (
            part.where(part.verdicts.rater, kinds[part.pairs.rater] == kind)
            for part in (split.train, split.val)
        )
        examples = replace(raters.examples, split=replace(split, train=train, val=val))
        models.append(train_from_scratch(backbone, examples, CONFIG))
    return models


def learned_types(
    backbone: ClipBackbone, raters: Raters, config: RewardConfig = CONFIG
) -> tuple[RewardModel, RaterTypes]:
    """Return the pooled reward and the rater types by EM."""
    pooled = train_from_scratch(backbone, raters.examples, config)
    generator = torch.Generator().manual_seed(config.seed)
    return pooled, fit_types(pooled, raters.examples, config, generator=generator)


def choose_types(
    backbone: ClipBackbone, examples: Examples, config: RewardConfig, numbers: Sequence[int]
) -> int:
    """Return which of `numbers` of types gives held-out raters' labels the highest likelihood.

    It is 1 where no number of types has a gain over one type whose interval lies above 0.
    """
    gains: dict[int, float] = {}
    for number in numbers:
        of_number = config.model_copy(update={"rater_types": number})
        gain = compare_types(backbone, examples, of_number).gain
        if gain is not None and gain.interval is not None and gain.interval[0] > 0:
            gains[number] = gain.value
    return max(gains, key=gains.__getitem__, default=1)
