"""Which labels teach and which only test.

Never by label: all raters' labels of one picture and prompt fall on one side. Prompts and pictures are ordered by a hash of their text and
the seed, so the same data gives the same split on every machine, and most of it stays as it is when more data comes.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from reward.dataset import FeedbackDataset, Indices

Share = Annotated[float, Field(ge=0, lt=1)]


class SplitConfig(BaseModel, frozen=True, extra="forbid"):
    """How much is held out, and of what."""

    split_by: Literal["prompt", "image"] = "prompt"
    """What the validation part consists of: whole prompts, as Lee et al. do, or, where there are few prompts, pictures of every prompt."""
    validation: Share = 0.15
    """Share of the prompts (or of each prompt's pictures) that early stopping and calibration look at."""
    unseen_prompts: Share = 0.15
    """Share of the prompts that are wholly held out for the test on unseen prompts."""
    test_images: Share = 0.1
    """Share of the pictures of every other prompt that are held out for the test on seen prompts."""
    always_seen: tuple[str, ...] = ()
    """Prompts that are never held out whole: those that a model will be fine-tuned on."""
    seed: int = 0
    """Chooses another split."""


class Part(IntEnum):
    """A part of the labels; a higher one is held out more strictly."""

    TRAIN = 0
    VAL = 1
    TEST_SEEN = 2
    TEST_UNSEEN = 3


@dataclass(frozen=True, eq=False)
class Split:
    """The four parts of a dataset, each over the same pictures and prompts."""

    train: FeedbackDataset
    val: FeedbackDataset
    test_seen: FeedbackDataset
    """Held-out pictures of prompts that are in `train`."""
    test_unseen: FeedbackDataset
    """Prompts that are in no other part."""


def normalised(prompt: str) -> str:
    """The prompt's text for splitting: lower case, single spaces, no full stop at the end."""
    return " ".join(prompt.lower().split()).rstrip(" .")


def split_feedback(dataset: FeedbackDataset, config: SplitConfig) -> Split:
    """Splits the labels.

    With three prompts or more that may be held out, at least one is, and with `split_by = "prompt"` at least one validates. A ranked pair
    falls into the stricter part of its two pictures, so training never sees a held-out picture.
    """
    texts = [normalised(prompt) for prompt in dataset.prompts]
    part_of_prompt = _parts_of_prompts(texts, config)
    part_of_image = _parts_of_images(dataset, part_of_prompt, config)

    def part(image: Indices, prompt: Indices) -> NDArray[np.int64]:
        return np.array(
            [part_of_image[key] for key in zip(image.tolist(), prompt.tolist(), strict=True)],
            np.int64,
        )

    verdicts, pairs = dataset.verdicts, dataset.pairs
    of_verdicts = part(verdicts.image, verdicts.prompt)
    of_pairs = np.maximum(part(pairs.image_0, pairs.prompt), part(pairs.image_1, pairs.prompt))
    train, val, seen, unseen = (
        dataset.where(of_verdicts == code, of_pairs == code) for code in Part
    )
    return Split(train, val, seen, unseen)


def _parts_of_prompts(texts: list[str], config: SplitConfig) -> list[Part]:
    """TEST_UNSEEN, VAL or TRAIN for each prompt; prompts of the same normalised text go together."""
    kept = {normalised(prompt) for prompt in config.always_seen}
    movable = _by_hash(set(texts) - kept, config.seed)
    least = 1 if len(movable) >= 3 else 0
    unseen = _count(config.unseen_prompts, len(movable), least)
    validating = (
        _count(config.validation, len(movable), least) if config.split_by == "prompt" else 0
    )
    part = dict.fromkeys(movable[:unseen], Part.TEST_UNSEEN) | dict.fromkeys(
        movable[unseen : unseen + validating], Part.VAL
    )
    return [part.get(text, Part.TRAIN) for text in texts]


def _parts_of_images(
    dataset: FeedbackDataset, part_of_prompt: list[Part], config: SplitConfig
) -> dict[tuple[int, int], Part]:
    """The part of each picture for each prompt that it is labelled for, by their indices."""
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
            test, validation = (
                config.test_images * len(ordered),
                config.validation * len(ordered) * (config.split_by == "image"),
            )
            drawn = _drawn(dataset.prompts[prompt], config.seed)
            testing, validating = (
                round(test) or int(drawn < test),
                round(validation) or int(1 - drawn < validation),
            )
            parts |= {(i, prompt): Part.TEST_SEEN for i in ordered[:testing]}
            parts |= {(i, prompt): Part.VAL for i in ordered[testing : testing + validating]}
    return parts


def _count(share: float, total: int, least: int) -> int:
    return max(round(share * total), least) if share else 0


def _drawn(prompt: str, seed: int) -> float:
    """Of a prompt, uniform in [0, 1]: where its share is less than half a picture, a picture is held out with that probability."""
    return (
        int.from_bytes(
            hashlib.sha256(f"{seed}:pictures of {normalised(prompt)}".encode()).digest()[:8], "big"
        )
        / 2**64
    )


def _by_hash(keys: Iterable[str], seed: int) -> list[str]:
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
