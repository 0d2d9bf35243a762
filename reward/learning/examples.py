"""The data of training and evaluation: split labels, embeddings, and a model's logits."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.errors import PictuneError
from reward.calibration import Values
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.dataset import FeedbackDataset, Indices
from reward.embedding import (
    ENCODE_BATCH,
    Track,
    embed_images,
    embed_prompts,
    file_digests,
)
from reward.learning.contrastive import negatives, vocabulary
from reward.learning.split import Split, normalized, split_feedback
from reward.model import RewardModel
from reward.settings import ExamplesConfig


@dataclass(frozen=True, eq=False)
class Examples:
    """A dataset as inputs of the head; tensors are on the backbone's device."""

    dataset: FeedbackDataset
    split: Split
    image_features: Tensor
    """[images, F], in the order of `dataset.image_ids`."""
    text_embeddings: Tensor
    """[prompts + wrong prompts, D] of unit length, `dataset.prompts` first."""
    wrong: Tensor
    """[prompts, N - 1] rows of `text_embeddings` with each prompt's wrong versions; -1 for prompts
    with fewer. On the CPU."""


def prepare(
    dataset: FeedbackDataset,
    config: ExamplesConfig,
    backbone: ClipBackbone,
    *,
    track: Track = iter,
    cache: EmbeddingCache | None = None,
) -> Examples:
    """Split the labels, make wrong prompts, and encode every image and prompt once.

    `track` wraps the loop over image batches. Images and prompts in `cache` are not encoded.

    Raises:
        PictuneError: an image cannot be read or is not the labeled image, or embeddings are not
            finite.
    """
    split = split_feedback(dataset, config.split)
    wrong_texts = _wrong_prompts(dataset, split, config)
    distinct = dict.fromkeys(text for texts in wrong_texts for text in texts)
    row = {text: len(dataset.prompts) + i for i, text in enumerate(distinct)}
    wrong = torch.full((len(dataset.prompts), config.negatives), -1)
    for prompt, texts in enumerate(wrong_texts):
        wrong[prompt, : len(texts)] = torch.tensor([row[text] for text in texts], dtype=torch.long)
    paths = dataset.paths
    digests = file_digests(paths)
    _check_unchanged(dataset, digests)
    images = embed_images(
        paths, backbone, batch_size=ENCODE_BATCH, track=track, cache=cache, digests=digests
    )
    return Examples(
        dataset=dataset,
        split=split,
        image_features=images,
        text_embeddings=embed_prompts([*dataset.prompts, *row], backbone, cache=cache),
        wrong=wrong,
    )


def _wrong_prompts(
    dataset: FeedbackDataset, split: Split, config: ExamplesConfig
) -> list[list[str]]:
    """Return the wrong versions of each prompt, without held-out prompts."""
    taught = split.train.labeled_prompts.tolist()
    held_out = {normalized(prompt) for i, prompt in enumerate(dataset.prompts) if i not in taught}
    words = vocabulary(dataset.prompts)
    rng = random.Random(config.seed)
    return [
        negatives(prompt, words, config.negatives, rng, exclude=held_out)
        for prompt in dataset.prompts
    ]


def _check_unchanged(dataset: FeedbackDataset, digests: Sequence[bytes]) -> None:
    files = zip(dataset.paths, dataset.image_ids, digests, strict=True)
    changed = [path for path, image_id, digest in files if digest.hex() != image_id]
    if changed:
        raise PictuneError(
            f"{changed[0]}: not the image that was labeled ({len(changed)} in all); put the file "
            "back or remove its labels"
        )


def verdict_logits(
    model: RewardModel, examples: Examples, part: FeedbackDataset
) -> tuple[Values, Values]:
    """Return the uncalibrated logit and the label of each verdict of `part`, both [V]."""
    verdicts = part.verdicts
    logits = logits_at(model, examples, verdicts.image, verdicts.prompt)
    return logits, verdicts.good.astype(np.float64)


def logits_and_margins(
    model: RewardModel, examples: Examples, part: FeedbackDataset
) -> tuple[Values, Values]:
    """Return uncalibrated logits of the verdicts [V] and logit margins of the pairs [K].

    A margin is the logit of image 0 minus the logit of image 1.
    """
    verdicts, pairs = part.verdicts, part.pairs
    logits = logits_at(model, examples, verdicts.image, verdicts.prompt)
    logits_0 = logits_at(model, examples, pairs.image_0, pairs.prompt)
    logits_1 = logits_at(model, examples, pairs.image_1, pairs.prompt)
    return logits, logits_0 - logits_1


@torch.no_grad()
def logits_at(model: RewardModel, examples: Examples, image: Indices, prompt: Indices) -> Values:
    """Return the uncalibrated logits [N] of images and prompts given by index [N]."""
    return as_values(model.member_logits(**embeddings_at(examples, image, prompt)).mean(0))


def embeddings_at(examples: Examples, image: Indices, prompt: Indices) -> dict[str, Tensor]:
    """Return `image_features` [N, F] and `text_embeddings` [N, D] of indices [N]."""
    return {
        "image_features": examples.image_features[torch.from_numpy(image)],
        "text_embeddings": examples.text_embeddings[torch.from_numpy(prompt)],
    }


def as_values(values: Tensor) -> Values:
    """Return a tensor as an array of doubles."""
    return values.double().cpu().numpy()
