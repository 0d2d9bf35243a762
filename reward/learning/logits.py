"""Logits of a reward model on the images and prompts of a dataset, before its calibration."""

import numpy as np
import torch

from reward.calibration import Values
from reward.dataset import FeedbackDataset, Indices
from reward.learning.examples import Examples
from reward.model import RewardModel


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

    A margin is the logit of image 0 minus that of image 1.
    """
    verdicts, pairs = part.verdicts, part.pairs
    logits = logits_at(model, examples, verdicts.image, verdicts.prompt)
    logits_0 = logits_at(model, examples, pairs.image_0, pairs.prompt)
    logits_1 = logits_at(model, examples, pairs.image_1, pairs.prompt)
    return logits, logits_0 - logits_1


@torch.no_grad()
def logits_at(model: RewardModel, examples: Examples, image: Indices, prompt: Indices) -> Values:
    """Return the uncalibrated logits [N] of images and prompts given by index [N]."""
    return as_values(model.mean_logits(**embeddings_at(model, examples, image, prompt)))


def embeddings_at(
    model: RewardModel, examples: Examples, image: Indices, prompt: Indices
) -> dict[str, torch.Tensor]:
    """Return `image_features` [N, F] and `text_embeddings` [N, D] of indices [N]."""
    images = examples.embeddings_by(model.backbone, torch.from_numpy(image))
    return {
        "image_features": images[torch.from_numpy(image)],
        "text_embeddings": examples.text_embeddings[torch.from_numpy(prompt)],
    }


def as_values(values: torch.Tensor) -> Values:
    """Return a tensor as an array of doubles."""
    return values.double().cpu().numpy()
