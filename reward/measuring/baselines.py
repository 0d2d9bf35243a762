"""Baselines of the reward, on the same split.

The CLIP score is the knowledge of the backbone without labels. A head on the image alone, or on the
prompt alone, shows how much of the reward does not depend on their match: images that are good for
any prompt, or prompts that mostly fail. The settings can add external rewards.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from data.errors import PictuneError
from reward.calibration import Values
from reward.clip.backbone import ClipBackbone
from reward.dataset import Indices
from reward.embedding import ENCODE_BATCH, Track, read_image
from reward.learning.examples import Examples, as_values
from reward.learning.training import train_from_scratch
from reward.measuring.evaluation import labeled, model_scorer
from reward.measuring.metrics import Scorer
from reward.settings import RewardConfig, RewardSource
from reward.sources import load_reward


def baselines(
    backbone: ClipBackbone, examples: Examples, config: RewardConfig
) -> dict[str, Scorer]:
    """Return all baselines by name."""
    return {
        "clip_score": clip_scorer(examples),
        "image_only": blind_scorer(backbone, examples, config, sees="image"),
        "prompt_only": blind_scorer(backbone, examples, config, sees="prompt"),
    }


def rewards_from_elsewhere(
    examples: Examples, config: RewardConfig, *, device: torch.device, track: Track = iter
) -> dict[str, Scorer]:
    """Return the scorers of the external rewards `config.baselines` by name.

    `track` wraps the loop over image batches.

    Raises:
        PictuneError: a reward cannot be loaded, or does not return a finite number for each image.
    """
    return {
        source.name: _source_scorer(source, examples, device, track) for source in config.baselines
    }


def clip_scorer(examples: Examples) -> Scorer:
    """Return the cosine of image and prompt, as a probability."""

    def cosine(image: Indices, prompt: Indices) -> Values:
        texts = examples.text_embeddings[torch.from_numpy(prompt)]
        images = examples.image_features[torch.from_numpy(image), : texts.shape[1]]
        return as_values((images * texts).sum(-1))

    return as_probability(cosine, examples)


def as_probability(score: Scorer, examples: Examples) -> Scorer:
    """Turn a score (higher is better) into a probability.

    The probability is fitted by logistic regression on the training verdicts. Without verdicts of
    both classes, only the order of the results has a meaning.
    """
    verdicts, pairs = examples.split.train.verdicts, examples.split.train.pairs
    fits = len(np.unique(verdicts.good)) == 2
    image = verdicts.image if len(verdicts) else pairs.image_0
    prompt = verdicts.prompt if len(verdicts) else pairs.prompt
    scores = score(image, prompt)
    center, scale, slope, intercept = scores.mean(), max(scores.std(), 1e-9), 1.0, 0.0
    if fits:
        fitted = LogisticRegression().fit(((scores - center) / scale)[:, None], verdicts.good)
        # The slope is never negative, so a score with reversed order stays visible.
        slope, intercept = max(fitted.coef_.item(), 1e-6), fitted.intercept_.item()
    return lambda image, prompt: expit(slope * (score(image, prompt) - center) / scale + intercept)


def blind_scorer(
    backbone: ClipBackbone,
    examples: Examples,
    config: RewardConfig,
    *,
    sees: Literal["image", "prompt"],
) -> Scorer:
    """Return a head of the reward's kind that sees only the image, or only the prompt."""
    if sees == "image":
        blind = replace(examples, text_embeddings=torch.zeros_like(examples.text_embeddings))
    else:
        blind = replace(examples, image_features=torch.zeros_like(examples.image_features))
    # Such a head cannot tell an image's prompts apart.
    one_head = {"members": 1, "auxiliary_weight": 0.0}
    model = train_from_scratch(backbone, blind, config.model_copy(update=one_head))
    return model_scorer(model, blind)


def score_files(
    source: RewardSource,
    paths: Sequence[Path],
    prompts: Sequence[str],
    *,
    device: torch.device,
    track: Track = iter,
) -> Values:
    """Return the rewards [N] of image files for their prompts; the images may differ in size.

    Raises:
        PictuneError: the reward cannot be loaded, or does not return a finite number for each
            image.
    """
    reward = load_reward([source], device=device, finite=False)
    rewards = np.zeros(len(paths))
    for start in track(range(0, len(paths), ENCODE_BATCH)):
        rows = range(start, min(start + ENCODE_BATCH, len(paths)))
        loaded = {row: read_image(paths[row]) for row in rows}
        for size in {image.shape for image in loaded.values()}:
            same = [row for row in rows if loaded[row].shape == size]
            images = torch.stack([loaded[row] for row in same]).to(device)
            with torch.no_grad():
                rewards[same] = as_values(reward(images, [prompts[row] for row in same]))
    broken = np.flatnonzero(~np.isfinite(rewards))
    if len(broken):
        raise PictuneError(
            f"{source.path}: gives no finite number for {paths[broken[0]]} "
            f"({len(broken)} in all); fix it"
        )
    return rewards


def _source_scorer(
    source: RewardSource, examples: Examples, device: torch.device, track: Track
) -> Scorer:
    """Return an external reward as a probability.

    Every labeled image is scored at once, so that the reward need not stay in memory.
    """
    dataset = examples.dataset
    keys, _ = labeled(dataset)
    rewards = score_files(
        source,
        [dataset.paths[image] for image in keys[:, 0]],
        [dataset.prompts[prompt] for prompt in keys[:, 1]],
        device=device,
        track=track,
    )
    number = keys[:, 0] * len(dataset.prompts) + keys[:, 1]

    def score(image: Indices, prompt: Indices) -> Values:
        return rewards[np.searchsorted(number, image * len(dataset.prompts) + prompt)]

    return as_probability(score, examples)
