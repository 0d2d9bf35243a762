"""Split of the labels into parts that train, validate and test.

All labels of one image and prompt are in the same part. Prompts and images are ordered by a hash of
their text and the seed. So the same data has the same split on every machine, and new data changes
little of the split.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from reward.dataset import FeedbackDataset, Indices
from reward.settings import SplitConfig


class Part(IntEnum):
    """Parts of the labels; a part with a higher number is held out more strictly."""

    TRAIN = 0
    VAL = 1
    TEST_SEEN = 2
    TEST_UNSEEN = 3


@dataclass(frozen=True, eq=False)
class Split:
    """The four parts of a dataset, each over the same images and prompts."""

    train: FeedbackDataset
    val: FeedbackDataset
    test_seen: FeedbackDataset
    """Labels of held-out images of prompts in `train`."""
    test_unseen: FeedbackDataset
    """Labels of prompts that are in no other part."""


def normalized(prompt: str) -> str:
    """Return the prompt in lower case, with single spaces and without a full stop at the end."""
    return " ".join(prompt.lower().split()).rstrip(" .")


def split_feedback(dataset: FeedbackDataset, config: SplitConfig) -> Split:
    """Split the labels.

    If three or more prompts may be held out, at least one is held out, and with `split_by =
    "prompt"` at least one is for validation. A ranked pair goes to the stricter part of its two
    images, so training never sees a held-out image.
    """
    texts = [normalized(prompt) for prompt in dataset.prompts]
    part_of_prompt = _parts_of_prompts(texts, config)
    part_of_image = _parts_of_images(dataset, part_of_prompt, config)

    def part(image: Indices, prompt: Indices) -> NDArray[np.int64]:
        keys = zip(image.tolist(), prompt.tolist(), strict=True)
        return np.array([part_of_image[key] for key in keys], np.int64)

    verdicts, pairs = dataset.verdicts, dataset.pairs
    of_verdicts = part(verdicts.image, verdicts.prompt)
    of_pairs = np.maximum(part(pairs.image_0, pairs.prompt), part(pairs.image_1, pairs.prompt))
    train, val, seen, unseen = (
        dataset.where(of_verdicts == code, of_pairs == code) for code in Part
    )
    return Split(train, val, seen, unseen)


def _parts_of_prompts(texts: list[str], config: SplitConfig) -> list[Part]:
    """Return TEST_UNSEEN, VAL or TRAIN for each prompt; equal normalized texts stay together."""
    kept = {normalized(prompt) for prompt in config.always_seen}
    movable = _by_hash(set(texts) - kept, config.seed)
    least = 1 if len(movable) >= 3 else 0
    unseen = _count(config.unseen_prompts, len(movable), least)
    validating = 0
    if config.split_by == "prompt":
        validating = _count(config.validation, len(movable), least)
    part = dict.fromkeys(movable[:unseen], Part.TEST_UNSEEN)
    part |= dict.fromkeys(movable[unseen : unseen + validating], Part.VAL)
    return [part.get(text, Part.TRAIN) for text in texts]


def _parts_of_images(
    dataset: FeedbackDataset, part_of_prompt: list[Part], config: SplitConfig
) -> dict[tuple[int, int], Part]:
    """Return the part of each labeled image and prompt, by their indices."""
    verdicts, pairs = dataset.verdicts, dataset.pairs
    images = np.concatenate([verdicts.image, pairs.image_0, pairs.image_1])
    prompts = np.concatenate([verdicts.prompt, pairs.prompt, pairs.prompt])
    parts: dict[tuple[int, int], Part] = {}
    for prompt in np.unique(prompts).tolist():
        indices = {dataset.image_ids[i]: i for i in np.unique(images[prompts == prompt]).tolist()}
        ordered = [indices[image_id] for image_id in _by_hash(indices, config.seed)]
        whole = part_of_prompt[prompt]
        parts |= {(i, prompt): whole for i in ordered}
        if whole is Part.TRAIN:
            test = config.test_images * len(ordered)
            validation = config.validation * len(ordered) * (config.split_by == "image")
            drawn = _uniform(dataset.prompts[prompt], config.seed)
            testing = round(test) or int(drawn < test)
            validating = round(validation) or int(1 - drawn < validation)
            parts |= {(i, prompt): Part.TEST_SEEN for i in ordered[:testing]}
            parts |= {(i, prompt): Part.VAL for i in ordered[testing : testing + validating]}
    return parts


def _count(share: float, total: int, least: int) -> int:
    return max(round(share * total), least) if share else 0


def _uniform(prompt: str, seed: int) -> float:
    """Return a number in [0, 1] that is uniform over prompts.

    If a prompt's share is less than half an image, one image is held out with that probability.
    """
    # The salt must stay: another word would move images between the parts.
    digest = hashlib.sha256(f"{seed}:pictures of {normalized(prompt)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _by_hash(keys: Iterable[str], seed: int) -> list[str]:
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
